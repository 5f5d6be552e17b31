"""Durable runs in tests: a run's directory with a view into its store, and a runner for it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import attrs
from attrs import define
from image_support import is_image_file

from kontext_async import KontextSession, Limits
from kontext_async.bulk import BulkReport, BulkRun
from kontext_async.images import detect_format
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from decimal import Decimal
    from pathlib import Path

    from kontext_async import Settings
    from kontext_async.emulator import Emulator
    from kontext_async.store.base import Store

ONE_AT_A_TIME = attrs.evolve(FAST, limits=Limits(max_in_flight=1, polls_per_second=2000))


@define
class Folder:
    """A run's directory."""

    path: Path

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows of the store, in the order in which the requests were read."""
        with closing(sqlite3.connect(self.path / "journal.sqlite")) as connection, connection:
            connection.row_factory = sqlite3.Row
            records = connection.execute("SELECT * FROM kontext_requests ORDER BY id")
            return [dict(record) for record in records]

    def states(self) -> list[str]:
        """Return the state of every request, in the order in which the requests were read."""
        return [row["state"] for row in self.rows()]

    def change(self, statement: str, *parameters: object) -> None:
        """Execute a statement in the store."""
        with closing(sqlite3.connect(self.path / "journal.sqlite")) as connection, connection:
            connection.execute(statement, parameters)

    def results(self) -> list[dict[str, Any]]:
        """Return the lines of ``results.jsonl``."""
        return [json.loads(line) for line in (self.path / "results.jsonl").read_text("utf-8").splitlines()]

    def images(self) -> list[str]:
        """Return the names of all images, and check that each file is one."""
        names = sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if is_image_file(path))
        assert all(detect_format((self.path / name).read_bytes()) for name in names)
        return names

    def other_files(self) -> list[str]:
        """Return the names of everything in the directory that is not an image."""
        return sorted(path.name for path in self.path.iterdir() if not is_image_file(path))


class BulkRunOptions(TypedDict, total=False):
    """The options of a `BulkRun`."""

    filename_template: str
    max_cost: Decimal | None
    resend_uncertain: bool
    retry_failed: bool
    store: str | Store | None
    run: str | None


@define
class RunRequests:
    """Runs requests in a folder. Each call opens a session of its own."""

    emulator: Emulator
    folder: Folder

    async def __call__(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        settings: Settings = FAST,
        **options: Unpack[BulkRunOptions],
    ) -> BulkReport:
        """Run all requests and return the report."""
        base_url = self.emulator.base_url
        async with KontextSession(self.emulator.api_key, base_url=base_url, settings=settings) as session:
            return await BulkRun(session, self.folder.path, **options).execute(requests)

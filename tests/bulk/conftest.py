"""Durable runs against an emulator in this process, and a look into their journals."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define

from kontext_async import KontextSession
from kontext_async.bulk import BulkReport, BulkRun
from kontext_async.images import detect_format
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from kontext_async.emulator import Emulator


@pytest.fixture
def emulator_options() -> dict[str, Any]:
    return {"service_time": 0.0, "pixels": 256}


@define
class Folder:
    """A run's directory."""

    path: Path

    def rows(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.path / "journal.sqlite")) as connection, connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM kontext_requests ORDER BY id")
            rows = [dict(row) for row in found]
        connection.close()
        return rows

    def states(self) -> list[str]:
        return [row["state"] for row in self.rows()]

    def change(self, statement: str, *parameters: object) -> None:
        with closing(sqlite3.connect(self.path / "journal.sqlite")) as connection, connection:
            connection.execute(statement, parameters)
        connection.close()

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "results.jsonl").read_text("utf-8").splitlines()]

    def pictures(self) -> list[str]:
        names = sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if is_picture(path))
        assert all(detect_format((self.path / name).read_bytes()) for name in names)
        return names

    def others(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if not is_picture(path))


def is_picture(path: Path) -> bool:
    return path.suffix in (".jpg", ".png")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


@pytest.fixture
def run(emulator: Emulator, folder: Folder) -> Callable[..., Any]:
    """Runs requests in the folder, in a session of their own."""

    async def execute(requests: Iterable[Any] | Sequence[Any], settings: Any = FAST, **options: Any) -> BulkReport:
        async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
            return await BulkRun(session, folder.path, **options).execute(requests)

    return execute

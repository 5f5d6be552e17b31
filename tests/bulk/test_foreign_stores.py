"""Damaged and foreign files in place of a run's store: they are refused before anything is submitted, and untouched."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import attrs
import pytest

from kontext_async import StoreError, StoreSettings, StoreUnusable
from kontext_async.bulk import RunRefused
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from pathlib import Path

    from bulk_support import Folder, RunRequests

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(6)]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the store's files, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.glob("journal.sqlite*")}


def make_database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE songs (id INTEGER, name TEXT)", "INSERT INTO songs VALUES (1, 'x')"],
        ["CREATE TABLE songs (id INTEGER)", "PRAGMA user_version = 7"],
        ["CREATE TABLE kontext_requests (id INTEGER)"],
        ["PRAGMA journal_mode = WAL", "CREATE TABLE songs (id INTEGER)"],
    ],
)
async def test_the_database_of_another_application_is_refused_and_untouched(
    run: RunRequests, folder: Folder, emulator: Emulator, statements: list[str]
) -> None:
    folder.path.mkdir()
    make_database(folder.path / "journal.sqlite", *statements)
    before = contents(folder.path)
    with pytest.raises(StoreUnusable):
        await run(FOXES)
    assert contents(folder.path) == before
    assert emulator.ledger.accepted == 0


@pytest.mark.parametrize(
    "change",
    [
        "state = 'done'",
        "cost = '-1000'",
        "cost = 'NaN'",
        "fields = '[]'",
        "files = '[[7, \"x.jpg\"]]'",
        "error = 'x'",
        "digest = 'text'",
        "images = 'many'",
        "task_id = NULL",
        "seconds = 'long'",
        "completion = 'x'",
        "completed_at = 1e300",
        "position = 'x'",
    ],
)
async def test_a_value_that_no_run_writes_is_refused_before_anything_is_submitted(
    run: RunRequests, folder: Folder, emulator: Emulator, change: str
) -> None:
    await run(FOXES)
    folder.change(f"UPDATE kontext_requests SET {change} WHERE id = 2")  # noqa: S608 # the test's own text
    before = contents(folder.path)
    with pytest.raises(StoreUnusable):
        await run([*FOXES, "one more"])
    assert contents(folder.path) == before
    assert emulator.ledger.accepted == 6


@pytest.mark.parametrize("size", [0, 1, 99, 100, 4096, 8192, 12_000])
async def test_a_truncated_store_is_refused(run: RunRequests, folder: Folder, emulator: Emulator, size: int) -> None:
    await run(FOXES)
    path = folder.path / "journal.sqlite"
    path.write_bytes(path.read_bytes()[:size])
    before = contents(folder.path)
    with pytest.raises((StoreUnusable, RunRefused)):
        await run([*FOXES, "one more"])
    assert size == 0 or contents(folder.path) == before
    assert emulator.ledger.accepted == 6


async def test_a_store_that_another_process_has_locked_is_reported(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    await run(FOXES)
    impatient = attrs.evolve(FAST, store=StoreSettings(connect=1.0, step=1.0))
    with closing(sqlite3.connect(folder.path / "journal.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StoreError, match="locked"):
            await run(FOXES, settings=impatient)
        assert time.monotonic() - began < 5
    assert (await run(FOXES)).skipped == 6
    assert emulator.ledger.accepted == 6

"""Damaged and foreign journals: they are refused before anything is submitted, and stay byte for byte as they are."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from kontext_async.bulk import JournalUnusable
from kontext_async.bulk.entries import InputRequest
from kontext_async.bulk.examination import Unsuitable, examine
from kontext_async.bulk.journal import Journal
from kontext_async.models import KontextRequest

if TYPE_CHECKING:
    from pathlib import Path

    from bulk_support import Folder, RunRequests

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(6)]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the journal's files, byte for byte."""
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
    with pytest.raises(JournalUnusable, match=r"of another application|has no column"):
        await run(FOXES)
    assert contents(folder.path) == before
    assert emulator.ledger.accepted == 0


async def test_a_database_that_another_application_has_open_is_refused_and_untouched(
    run: RunRequests, folder: Folder
) -> None:
    folder.path.mkdir()
    path = folder.path / "journal.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE songs (id INTEGER)")
        connection.commit()
        before = contents(folder.path)
        with pytest.raises(JournalUnusable, match="of another application"):
            await run(FOXES)
        after = contents(folder.path)
        assert {name: after[name] for name in before if not name.endswith("-shm")} == {
            name: before[name] for name in before if not name.endswith("-shm")
        }


@pytest.mark.parametrize(
    "change",
    [
        "state = 'done'",
        "state = 7",
        "cost = '-1000'",
        "cost = 'NaN'",
        "cost = '1E-6000000'",
        "cost = 'Infinity'",
        "cost = 'much'",
        "cost = ''",
        "sunk = '-1'",
        "fields = '[]'",
        "fields = 'x'",
        "files = '{}'",
        "files = '[1]'",
        "files = '[[\"x.jpg\"]]'",
        "files = '[[7, \"x.jpg\"]]'",
        "files = 'x'",
        "error = '[]'",
        "error = 'x'",
        "fingerprint = 'text'",
        "fingerprint = x'00'",
        "images = 'many'",
        "images = -1",
        "attempts = 'x'",
        "doubtful = -5",
        "prompt = x'00'",
        "task_id = x'00'",
        "task_id = NULL",
        "seconds = 'long'",
        "completion = 'x'",
        "completed_at = 1e300",
        "completed_at = -1",
        "position = 'x'",
        "generation = 1.5",
    ],
)
async def test_a_value_that_no_run_writes_is_refused_before_anything_is_submitted(
    run: RunRequests, folder: Folder, emulator: Emulator, change: str
) -> None:
    await run(FOXES)
    folder.change(f"UPDATE kontext_requests SET {change} WHERE id = 2")  # noqa: S608 # the test's own text
    before = contents(folder.path)
    with pytest.raises(JournalUnusable, match="its row 2 has values that no run writes"):
        await run([*FOXES, "one more"])
    assert contents(folder.path) == before
    assert emulator.ledger.accepted == 6


async def test_a_text_that_is_not_unicode_is_refused(run: RunRequests, folder: Folder, emulator: Emulator) -> None:
    await run(FOXES)
    folder.change("UPDATE kontext_requests SET prompt = CAST(x'ff80' AS TEXT) WHERE id = 2")
    before = contents(folder.path)
    with pytest.raises(JournalUnusable):
        await run(FOXES)
    assert contents(folder.path) == before
    assert emulator.ledger.accepted == 6


@pytest.mark.parametrize("size", [1, 99, 100, 4096, 8192, 12_000])
async def test_a_truncated_journal_is_refused_and_untouched(
    run: RunRequests, folder: Folder, emulator: Emulator, size: int
) -> None:
    await run(FOXES)
    path = folder.path / "journal.sqlite"
    path.write_bytes(path.read_bytes()[:size])
    before = contents(folder.path)
    with pytest.raises(JournalUnusable):
        await run([*FOXES, "one more"])
    assert contents(folder.path) == before
    assert emulator.ledger.accepted == 6


async def test_an_emptied_journal_of_a_run_is_refused(run: RunRequests, folder: Folder, emulator: Emulator) -> None:
    await run(FOXES)
    (folder.path / "journal.sqlite").write_bytes(b"")
    with pytest.raises(JournalUnusable):
        await run(FOXES)
    assert emulator.ledger.accepted == 6


@pytest.mark.parametrize("lock", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
async def test_a_locked_journal_is_reported_at_once(
    run: RunRequests, folder: Folder, emulator: Emulator, lock: str
) -> None:
    await run(FOXES)
    with closing(sqlite3.connect(folder.path / "journal.sqlite", isolation_level=None)) as other:
        other.execute(lock)
        began = time.monotonic()
        with pytest.raises(JournalUnusable, match="is locked by another process: close the program"):
            await run(FOXES)
        assert time.monotonic() - began < 3
    assert (await run(FOXES)).skipped == 6
    assert emulator.ledger.accepted == 6


async def test_a_journal_that_a_killed_run_left_in_its_log_is_used(tmp_path: Path) -> None:
    """Everything is in the log beside the file then, the tables included."""
    folder, copy = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    copy.mkdir()
    journal = await Journal.open(folder)
    for path in folder.glob("journal.sqlite*"):
        (copy / path.name).write_bytes(path.read_bytes())
    await journal.aclose()
    journal = await Journal.open(copy, must_exist=True)
    assert journal.generation == 2
    await journal.aclose()


@pytest.fixture(scope="module")
def whole_journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    async def make() -> None:
        journal = await Journal.open(folder)
        request = KontextRequest("a fox")
        entries = [InputRequest(position=place, request=request, fingerprint=f"{place:064x}") for place in range(20)]
        for row in await journal.take(entries):
            await journal.commit(row.id, state="saved", task_id="t", cost="0.04", files='[["x.jpg", 1]]', completion=1)
        await journal.aclose()

    folder = tmp_path_factory.mktemp("run")
    anyio.run(make)
    return folder / "journal.sqlite"


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_damage_is_more_than_an_unusable_journal(whole_journal: Path, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(whole_journal.read_bytes())
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path = whole_journal.with_name("damaged.sqlite")
    path.write_bytes(damaged)
    with suppress(Unsuitable, sqlite3.Error):
        examine(path)
    assert path.read_bytes() == bytes(damaged)
    assert not any(path.parent.glob("damaged.sqlite-*"))

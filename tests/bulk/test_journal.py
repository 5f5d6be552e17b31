"""The journal: durable steps, group commit, and journals and disks that cannot be used."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from kontext_async import KontextSession, Limits
from kontext_async.bulk import BulkRun, JournalFailed, JournalUnusable, RunRefused
from kontext_async.bulk.committer import Committer
from kontext_async.bulk.entries import InputRequest
from kontext_async.bulk.journal import Journal
from kontext_async.bulk.occurrences import REMEMBERED
from kontext_async.bulk.reserve import SIZE, Reserve
from kontext_async.bulk.states import State
from kontext_async.models import KontextRequest
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bulk_support import Folder, RunRequests

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(6)]


def entry(position: int, name: int) -> InputRequest:
    return InputRequest(position=position, request=KontextRequest(f"fox {name}"), fingerprint=f"{name:064x}")


async def test_concurrent_steps_are_written_in_one_transaction() -> None:
    groups: list[Mapping[int, Any]] = []

    async def write(changes: Mapping[int, Any]) -> None:
        await asyncio.sleep(0.01)
        groups.append(changes)

    committer = Committer(write)
    await asyncio.gather(*(committer.commit(row, {"state": "intent"}) for row in range(500)))
    committer.note(1, {"state": "accepted"})
    committer.note(1, {"task_id": "t"})
    await committer.aclose()
    assert [len(group) for group in groups] == [500, 1]
    assert groups[1] == {1: {"state": "accepted", "task_id": "t"}}
    with pytest.raises(JournalFailed, match="closed"):
        await committer.commit(1, {})


async def test_a_step_that_is_not_written_is_not_acknowledged() -> None:
    async def write(_: object) -> None:
        raise JournalFailed("the disk is full")

    committer = Committer(write)
    with pytest.raises(JournalFailed, match="disk is full"):
        await committer.commit(1, {"state": "intent"})
    await committer.aclose()


async def test_a_step_is_on_disk_when_commit_returns(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path)
    (row,) = await journal.take([entry(0, 1)])
    await journal.commit(row.id, state=State.ACCEPTED, task_id="t1")
    copies = tmp_path / "copy"
    copies.mkdir()
    for path in tmp_path.glob("journal.sqlite*"):
        shutil.copy(path, copies)
    await journal.aclose()
    with closing(sqlite3.connect(copies / "journal.sqlite")) as connection, connection:
        assert connection.execute("SELECT state, task_id FROM kontext_requests").fetchall() == [("accepted", "t1")]
    connection.close()


async def test_equal_requests_are_counted_beyond_the_ones_kept_in_memory(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path)
    rows = await journal.take([entry(0, 1), entry(1, 1)])
    for start in range(2, REMEMBERED + 300, 250):
        await journal.take([entry(start + place, start + place) for place in range(250)])
    rows += await journal.take([entry(0, 1)])
    assert [row.occurrence for row in rows] == [0, 1, 2]
    await journal.aclose()
    journal = await Journal.open(tmp_path)
    assert journal.generation == 2
    again = await journal.take([entry(place, 1) for place in range(4)])
    assert [(row.occurrence, row.id) for row in again[:3]] == [(row.occurrence, row.id) for row in rows]
    assert again[3].id > REMEMBERED
    await journal.aclose()


async def test_a_dry_journal_keeps_nothing(tmp_path: Path) -> None:
    journal = await Journal.open(tmp_path)
    await journal.take([entry(0, 1)])
    await journal.aclose()
    dry = await Journal.open(tmp_path, dry=True)
    assert [row.occurrence for row in await dry.take([entry(0, 1), entry(1, 1)])] == [0, 1]
    await dry.aclose()
    journal = await Journal.open(tmp_path)
    assert journal.generation == 2
    assert (await journal.standing()).states.total() == 1
    await journal.aclose()


async def test_a_run_whose_journal_was_deleted_is_refused_until_it_is_restored(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    await run(FOXES)
    copy = shutil.copy(folder.path / "journal.sqlite", folder.path.parent)
    (folder.path / "journal.sqlite").unlink()
    for _ in range(2):
        with pytest.raises(
            JournalUnusable, match="is missing: nothing was submitted; restore the journal from a backup"
        ):
            await run(FOXES)
    shutil.copy(copy, folder.path)
    assert (await run(FOXES)).skipped == emulator.ledger.accepted == 6


async def test_a_journal_that_is_deleted_during_a_run_ends_the_run(emulator: Emulator, folder: Folder) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=1, polls_per_second=2000))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        run = BulkRun(session, folder.path)

        async def lose_it() -> None:
            async for _ in run.outcomes(f"fox {number}" for number in range(300)):
                (folder.path / "journal.sqlite").unlink(missing_ok=True)

        with pytest.raises(JournalFailed, match="was deleted during the run"):
            await lose_it()
    assert emulator.ledger.accepted <= 20, "those of the group that was being written"
    assert run.report.remaining > 0


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE kontext_meta SET value = '9' WHERE name = 'version'", "by a newer version of kontext_async"),
        ("UPDATE kontext_meta SET value = 'x' WHERE name = 'version'", "by a newer version of kontext_async"),
        ("DELETE FROM kontext_runs", "is missing"),
    ],
)
async def test_a_journal_of_a_newer_version_or_of_another_run_is_refused(
    run: RunRequests, folder: Folder, emulator: Emulator, statement: str, words: str
) -> None:
    await run(FOXES)
    folder.change(statement)
    with pytest.raises(JournalUnusable, match=words):
        await run(FOXES)
    assert emulator.ledger.accepted == 6


@pytest.mark.parametrize("damage", ["head", "middle", "text"])
async def test_a_damaged_journal_is_refused(run: RunRequests, folder: Folder, emulator: Emulator, damage: str) -> None:
    await run([f"fox {number} {'x' * 500}" for number in range(60)])
    path = folder.path / "journal.sqlite"
    whole = path.read_bytes()
    half = len(whole) // 2
    damaged = {
        "head": b"\0" * 100 + whole[100:],
        "middle": whole[: half - 6000] + b"\xff" * 12000 + whole[half + 6000 :],
        "text": b"this is no database",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(JournalUnusable, match=r"damaged|cannot be used") as caught:
        await run(FOXES)
    assert "INSERT" not in str(caught.value)
    assert emulator.ledger.accepted == 60


async def test_a_read_only_directory_is_refused() -> None:
    async with KontextSession("key", base_url="http://127.0.0.1:9") as session:
        with pytest.raises(RunRefused, match=r"cannot be (written|created)"):
            await BulkRun(session, "/sys/kernel").execute(FOXES)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "must be a database URL"),
        ("postgresql://127.0.0.1:9/nothing", "cannot be used"),
        ("mysql+nonsense://h/x", "cannot be used"),
        ("sqlite:////sys/kernel/x.sqlite", "cannot be used"),
    ],
)
async def test_an_unusable_journal_url_is_refused(folder: Folder, url: str, words: str) -> None:
    async with KontextSession("key", base_url="http://127.0.0.1:9") as session:
        with pytest.raises(JournalUnusable, match=words):
            await BulkRun(session, folder.path, journal=url).execute(FOXES)


async def test_one_database_stores_several_runs(run: RunRequests, folder: Folder, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.sqlite"
    assert (await run(FOXES, journal=url)).completed == 6
    first, folder.path = folder.path, tmp_path / "second"
    assert (await run(FOXES, journal=url)).completed == 6
    folder.path = first
    assert (await run(FOXES, journal=url)).skipped == 6
    assert not (first / "journal.sqlite").exists()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Databases that grow no larger than 100 pages: SQLite's own "database or disk is full"."""

    def limit(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count = 100")
        cursor.close()

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


@pytest.mark.usefixtures("small_disk")
async def test_a_full_disk_stops_submitting_and_loses_no_task_id(emulator: Emulator, folder: Folder) -> None:
    requests = [f"fox {number} {'x' * 1000}" for number in range(2000)]
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=4, polls_per_second=2000))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        run = BulkRun(session, folder.path)
        with pytest.raises(JournalFailed, match="database or disk is full"):
            await run.execute(requests)
    assert emulator.ledger.accepted < 2000
    known = {row["task_id"] for row in folder.rows() if row["task_id"]}
    assert set(emulator.ledger.task_ids) - known <= set(run.report.unjournaled_task_ids)
    assert emulator.ledger.billed_twice == {}


def test_the_disk_reserve_has_real_bytes_and_leaves_no_file(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "journal.sqlite")
    reserve.fill()
    assert reserve.size == SIZE
    assert reserve.release()
    assert not reserve.release()
    assert list(tmp_path.iterdir()) == []

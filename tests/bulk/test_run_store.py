"""The store of a run: durable steps, stores and disks that cannot be used, and runs of version 1."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from kontext_async import KontextSession, Limits, StoreError, StoreSettings, StoreUnavailable, StoreUnusable
from kontext_async.bulk import BulkRun, RunRefused, read_requests
from kontext_async.bulk.input import DuplicateCounter, InputReader
from kontext_async.bulk.records import InputRequest
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulk_support import Folder, RunRequests

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(6)]
SIGNATURE = (
    "X-Goog-Algorithm=a&X-Goog-Credential=c&X-Goog-Date=d&X-Goog-Expires=60&X-Goog-SignedHeaders=h&X-Goog-Signature="
)
VERSION_1 = Path(__file__).parent.parent / "data" / "journal_v1"


async def read_keys(requests: list[Any]) -> list[str]:
    reader = InputReader(requests, 1)
    keys: list[str] = []
    while chunk := await reader.next():
        keys += [each.key for each in chunk if isinstance(each, InputRequest)]
    reader.close()
    return keys


async def test_equal_requests_have_keys_of_their_own_however_far_apart_they_are() -> None:
    keys = await read_keys(["fox", *(f"wolf {number}" for number in range(1000)), "fox", "fox"])
    first = keys[0].rpartition("-")[0]
    assert [keys[0], *keys[-2:]] == [f"{first}-0", f"{first}-1", f"{first}-2"]
    assert len(set(keys)) == 1003


def test_equal_values_are_counted_without_a_trace_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    counter = DuplicateCounter()
    assert counter.count([b"a", b"b", b"a"]) == [0, 0, 1]
    assert counter.count([b"a"]) == [2]
    assert counter.count([]) == []
    counter.close()
    assert list(tmp_path.iterdir()) == []


def test_many_values_are_counted_together_as_they_are_one_by_one() -> None:
    random = Random(1)
    values = [str(random.randrange(400)).encode() for _ in range(3000)]
    earlier: Counter[bytes] = Counter()
    expected = []
    for value in values:
        expected.append(earlier[value])
        earlier[value] += 1
    counter = DuplicateCounter()
    found = counter.count(values[:1]) + counter.count(iter(values[1:2000])) + counter.count(values[2000:])
    counter.close()
    assert found == expected


async def test_a_run_whose_store_was_deleted_is_refused_until_it_is_restored(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    await run(FOXES)
    copy = shutil.copy(folder.path / "journal.sqlite", folder.path.parent)
    (folder.path / "journal.sqlite").unlink()
    for _ in range(2):
        with pytest.raises(RunRefused, match="is not in it; nothing was submitted"):
            await run(FOXES)
    shutil.copy(copy, folder.path)
    assert (await run(FOXES)).skipped == emulator.ledger.accepted == 6


async def test_a_store_that_is_deleted_during_a_run_ends_the_run(emulator: Emulator, folder: Folder) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=1, polls_per_second=2000), store=StoreSettings(step=0.5))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        run = BulkRun(session, folder.path)

        async def lose_it() -> None:
            async for _ in run.outcomes(f"fox {number}" for number in range(300)):
                (folder.path / "journal.sqlite").unlink(missing_ok=True)

        with pytest.raises(StoreError, match="was deleted"):
            await lose_it()
    assert emulator.ledger.accepted <= 20, "those of the group that was being written"
    assert run.report.remaining > 0


@pytest.mark.parametrize(
    ("statement", "error", "words"),
    [
        ("UPDATE kontext_meta SET value = '9' WHERE name = 'version'", StoreUnusable, "newer"),
        ("DELETE FROM kontext_runs", RunRefused, "the store has no run"),
    ],
)
async def test_a_store_of_a_newer_version_or_without_the_run_is_refused(
    run: RunRequests, folder: Folder, emulator: Emulator, statement: str, error: type[Exception], words: str
) -> None:
    await run(FOXES)
    folder.change(statement)
    with pytest.raises(error, match=words):
        await run(FOXES)
    assert emulator.ledger.accepted == 6


@pytest.mark.parametrize("damage", ["head", "middle", "text"])
async def test_a_damaged_store_is_refused(run: RunRequests, folder: Folder, emulator: Emulator, damage: str) -> None:
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
    with pytest.raises(StoreUnusable) as caught:
        await run(FOXES)
    assert "INSERT" not in str(caught.value)
    assert emulator.ledger.accepted == 60
    assert path.read_bytes() == damaged[damage]


async def test_a_read_only_directory_is_refused() -> None:
    async with KontextSession("key", base_url="http://127.0.0.1:9") as session:
        with pytest.raises(RunRefused, match=r"cannot be (written|created)"):
            await BulkRun(session, "/sys/kernel").execute(FOXES)


async def test_one_store_has_several_runs(run: RunRequests, folder: Folder, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.sqlite"
    assert (await run(FOXES, store=url, run="one")).completed == 6
    first, folder.path = folder.path, tmp_path / "second"
    assert (await run(FOXES, store=url, run="two")).completed == 6
    folder.path = first
    assert (await run(FOXES, store=url)).skipped == 6
    assert not (first / "journal.sqlite").exists()
    with pytest.raises(RunRefused, match="belongs to"):
        await run(FOXES, store=url, run="two")


async def test_a_run_of_version_1_is_continued_and_nothing_is_paid_twice(
    run: RunRequests, folder: Folder, emulator: Emulator, tmp_path: Path
) -> None:
    shutil.copytree(VERSION_1, tmp_path, dirs_exist_ok=True)
    folder.path = tmp_path / "run-a"
    first = await run(read_requests(tmp_path / "prompts.jsonl"))
    report = await run(read_requests(tmp_path / "prompts.jsonl"))
    assert [(each.completed, each.skipped, each.total) for each in (first, report)] == [(3, 8, 19), (0, 11, 19)]
    for each in (first, report):
        assert each.failed == {"TaskFailed": 1, "RequestRejected": 1, "TaskNotFound": 4}
        assert each.uncertain_in_input == 2
    assert [entry.prompt for entry in emulator.ledger.entries] == ["throttled to the end", "never sent", "never sent"]
    assert report.total_spent == Decimal("0.56")
    states = Counter(folder.states())
    assert states == {"saved": 11, "uncertain": 2, "failed": 2, "expired": 2, "finished": 1, "accepted": 1}
    completions = {row["completion"] for row in folder.rows() if row["state"] == "saved"}
    assert completions <= {line["completion"] for line in folder.results()}


async def test_a_request_of_version_1_whose_image_url_is_signed_keeps_its_row(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    """Version 1 made the key of the whole fingerprint, with the signature in it."""
    signed = [{"prompt": "dusk", "input_images": f"https://h.example/a.png?{SIGNATURE}{place}"} for place in "01"]
    reader = InputReader(signed, 1)
    entries = [each for each in await reader.next() if isinstance(each, InputRequest)]
    reader.close()
    assert (await run(signed)).completed == 2
    for number, entry in enumerate(entries, 1):
        assert entry.old_key == f"{entry.sent_fingerprint[:32]}-0"
        folder.change("UPDATE kontext_requests SET key = ? WHERE id = ?", entry.old_key, number)
    assert (await run(signed)).skipped == 2
    assert (await run([*signed, signed[0]])).completed == 1
    assert emulator.ledger.accepted == 3


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
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=4, polls_per_second=2000), store=StoreSettings(step=1.0))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        run = BulkRun(session, folder.path)
        with pytest.raises(StoreUnavailable, match="full"):
            await run.execute(requests)
    assert emulator.ledger.accepted < 2000
    known = {row["task_id"] for row in folder.rows() if row["task_id"]}
    spooled = set(emulator.ledger.task_ids) - known
    assert len(spooled) <= 8
    assert emulator.ledger.billed_twice == {}


async def test_a_run_that_a_dead_process_left_in_the_log_of_its_store_is_resumed(
    run: RunRequests, folder: Folder, emulator: Emulator, tmp_path: Path
) -> None:
    """Everything is in the log beside the file then, the tables included."""
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        outcomes = BulkRun(session, folder.path).outcomes(FOXES)
        await anext(outcomes)
        unfinished = shutil.ignore_patterns("*.part")  # a download renames its own meanwhile
        shutil.copytree(folder.path, tmp_path / "copy", ignore=unfinished)
        await outcomes.aclose()
    with closing(sqlite3.connect(tmp_path / "copy" / "journal.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM kontext_requests").fetchone() == (6,)
    folder.path = tmp_path / "copy"
    report = await run(FOXES)
    assert report.total == 6
    assert report.failed == {}

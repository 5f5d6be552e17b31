"""The directory of a worker: which run of which store it belongs to, its numbers, and what a killed run left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from rows_support import JPEG, RowWriter

from kontext_async.bulk import RunLocked, RunRefused
from kontext_async.bulk.directory import RunDirectory, open_run_directory
from kontext_async.errors import ConfigurationError
from kontext_async.settings import StoreSettings
from kontext_async.store.memory import MemoryStore
from kontext_async.store.rows import Selection
from kontext_async.store.steps import State
from kontext_async.store.version_1 import folder_token

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.store.base import Store

pytestmark = pytest.mark.anyio

TORN = '{"completion": 3, "ind'


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def join(directory: RunDirectory, store: Store, name: str | None = "night") -> int:
    """Join a run as a worker does, and return its number."""
    run = await store.open_run(await directory.find_run(store, name), executes=True)
    assert run
    await directory.join(store, run)
    return run.id


def completions(directory: Path) -> list[tuple[int, str | None]]:
    """Return the number of completion of each line of the results, and the directory that it names."""
    lines = map(json.loads, (directory / "results.jsonl").read_text("utf-8").splitlines())
    return [(line["completion"], line.get("folder")) for line in lines]


async def test_two_runs_do_not_use_one_directory(tmp_path: Path) -> None:
    async with open_run_directory(tmp_path / "out"):
        with pytest.raises(RunLocked):
            async with open_run_directory(tmp_path / "out"):
                pass


async def test_a_directory_keeps_its_number_and_another_one_gets_another(store: MemoryStore, tmp_path: Path) -> None:
    numbers = []
    for name in ("a", "b", "a"):
        async with open_run_directory(tmp_path / name) as directory:
            await join(directory, store)
            numbers.append(directory.folder)
    assert numbers == [1, 2, 1]
    assert await store.folders() == {1: str(tmp_path / "a"), 2: str(tmp_path / "b")}


async def test_a_directory_that_was_moved_keeps_its_number(store: MemoryStore, tmp_path: Path) -> None:
    async with open_run_directory(tmp_path / "a") as directory:
        await join(directory, store)
    (tmp_path / "a").rename(tmp_path / "b")
    async with open_run_directory(tmp_path / "b") as directory:
        await join(directory, store)
        assert directory.folder == 1


async def test_a_directory_of_another_store_or_run_is_refused(store: MemoryStore, tmp_path: Path) -> None:
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
    async with open_run_directory(tmp_path) as directory:
        with pytest.raises(RunRefused, match="belongs to another store; nothing was submitted"):
            await directory.find_run(MemoryStore(), "night")
        with pytest.raises(RunRefused, match="belongs to the run 'night', not 'day'"):
            await directory.find_run(store, "day")
        with pytest.raises(
            RunRefused, match=r"belongs to the run 'night' of a store, and journal\.sqlite is not in it"
        ):
            directory.own_store(StoreSettings())
        assert await directory.find_run(store) == "night"


async def test_a_directory_with_results_whose_run_is_not_in_the_store_is_refused(
    store: MemoryStore, tmp_path: Path
) -> None:
    (tmp_path / "results.jsonl").touch()
    async with open_run_directory(tmp_path) as directory:
        with pytest.raises(RunRefused, match="the store has no run 'night'"):
            await directory.find_run(store, "night")
        with pytest.raises(RunRefused, match=r"journal\.sqlite is not in it"):
            directory.own_store(StoreSettings())
    assert await store.open_run("night", create=False) is None


async def test_a_directory_with_a_store_of_its_own_does_not_continue_in_another_one(
    store: MemoryStore, tmp_path: Path
) -> None:
    (tmp_path / "journal.sqlite").touch()
    async with open_run_directory(tmp_path) as directory:
        with pytest.raises(RunRefused, match="has a run with a store of its own"):
            await directory.find_run(store, "night")


async def test_a_run_in_a_shared_store_needs_a_name(store: MemoryStore, tmp_path: Path) -> None:
    async with open_run_directory(tmp_path) as directory:
        with pytest.raises(ConfigurationError, match=r"give the run a name: run=NAME \(--run NAME\)"):
            await directory.find_run(store)


async def test_a_run_of_version_1_is_found_by_the_path_of_its_directory(store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "results.jsonl").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    name = str(tmp_path / "real")
    await store.open_run(name)
    migrated = await store.folder(folder_token(name), name)
    async with open_run_directory(tmp_path / "link") as directory:
        await join(directory, store, None)
        assert directory.folder == migrated


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "7", "x" * 70_000, '{"run": 1, "store": "", "folder": ""}', "[" * 10_000]
)
async def test_a_run_file_that_no_run_wrote_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunRefused, match=r"run\.json is not of a run"):
        async with open_run_directory(tmp_path):
            pass
    assert (tmp_path / "run.json").read_text() == text


async def test_a_run_file_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "run.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunRefused, match="it is a symbolic link"):
        async with open_run_directory(tmp_path):
            pass


async def test_the_results_have_the_rows_of_the_directory_in_order_of_completion(
    store: MemoryStore, tmp_path: Path
) -> None:
    writer = await RowWriter.start(store, "night")
    rows = await writer.plan("fox", "wolf", "owl", "crow", "hare")
    async with open_run_directory(tmp_path / "a") as directory:
        await join(directory, store)
        await writer.save(rows[2], rows[0], folder=directory.folder)
        await writer.fail(rows[1], folder=directory.folder, completion=3)
        await writer.save(rows[3], folder=99, completion=7)
    async with open_run_directory(tmp_path / "a") as directory:
        await join(directory, store)
        assert completions(tmp_path / "a") == [(1, None), (2, None), (3, None)]
        assert directory.next_completion() == 4


@pytest.mark.parametrize("missing", [0, 1, 500])
async def test_a_resume_adds_the_missing_lines_and_none_twice(store: MemoryStore, tmp_path: Path, missing: int) -> None:
    writer = await RowWriter.start(store, "night")
    rows = await writer.plan("fox", "wolf", "owl")
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
        await writer.save(*rows, folder=directory.folder)
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
    whole = (tmp_path / "results.jsonl").read_text()
    for rest in (whole[: len(whole) - missing], whole + TORN, TORN, ""):
        (tmp_path / "results.jsonl").write_text(rest)
        async with open_run_directory(tmp_path) as directory:
            await join(directory, store)
        assert (tmp_path / "results.jsonl").read_text() == whole


async def test_a_line_that_was_written_before_an_earlier_one_is_not_the_end(store: MemoryStore, tmp_path: Path) -> None:
    writer = await RowWriter.start(store, "night")
    rows = await writer.plan("fox", "wolf", "owl")
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
        await writer.save(*rows, folder=directory.folder)
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
    first, _, third = (tmp_path / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text(third + first)
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
        assert completions(tmp_path) == [(3, None), (1, None), (2, None)]
        assert directory.next_completion() == 4


async def test_a_line_that_a_later_one_replaces_does_not_survive_a_killed_run(
    store: MemoryStore, tmp_path: Path
) -> None:
    writer = await RowWriter.start(store, "night")
    (row,) = await writer.plan("fox")
    async with open_run_directory(tmp_path) as directory:
        run = await join(directory, store)
        await writer.save(row, folder=directory.folder)
        (saved,) = await store.page(Selection(run=run))
        directory.results.add(saved, again=False)
        directory.results.add(evolve(saved, completion=2), again=True)
        await directory.results.aclose()
    store.database.rows[row.id] = evolve(saved, completion=2)
    assert completions(tmp_path) == [(1, None), (2, None)]
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
    assert completions(tmp_path) == [(2, None)]


async def test_the_results_of_a_newer_copy_of_the_store_are_replaced(store: MemoryStore, tmp_path: Path) -> None:
    writer = await RowWriter.start(store, "night")
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
        await writer.save(*await writer.plan("fox"), folder=directory.folder)
    line = {"completion": 9, "fingerprint": "0" * 64, "occurrence": 0}
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
        assert completions(tmp_path) == [(1, None)]
        assert directory.next_completion() == 10, "a number is not used for two results"


async def test_the_reports_of_all_workers_give_way_to_the_results_of_the_directory(
    store: MemoryStore, tmp_path: Path
) -> None:
    writer = await RowWriter.start(store, "night")
    rows = await writer.plan("fox", "wolf", "owl")
    for name, row in (("a", rows[0]), ("b", rows[1])):
        async with open_run_directory(tmp_path / name) as directory:
            await join(directory, store)
            await writer.save(row, folder=directory.folder)
    async with open_run_directory(tmp_path / "a") as directory:
        run = await join(directory, store)
        assert await directory.results.regenerate(store, run, directory.folder, await store.folders()) == 2
    assert completions(tmp_path / "a") == [(1, None), (1, str(tmp_path / "b"))]
    async with open_run_directory(tmp_path / "a") as directory:
        await join(directory, store)
    assert completions(tmp_path / "a") == [(1, None)]


async def test_only_images_of_the_own_directory_are_checked(store: MemoryStore, tmp_path: Path) -> None:
    writer = await RowWriter.start(store, "night")
    rows = await writer.plan("fox", "wolf")
    async with open_run_directory(tmp_path) as directory:
        run = await join(directory, store)
        await writer.save(rows[0], folder=directory.folder)
        await writer.save(rows[1], folder=99)
        own, other = await store.page(Selection(run=run, states=frozenset({State.SAVED})))
        assert directory.has_images(other)
        assert directory.paths_of(other) == ()
        assert not directory.has_images(own)
        (path,) = directory.paths_of(own)
        path.write_bytes(JPEG)
        assert directory.has_images(own)


async def test_partial_images_are_removed_from_the_folders_of_unfinished_rows(
    store: MemoryStore, tmp_path: Path
) -> None:
    writer = await RowWriter.start(store, "night")
    left = [".a.jpg.0123abcd.part", "pro/.a.jpg.0123abcd.part", "else/.a.jpg.0123abcd.part"]
    for name in left:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
        await writer.complete(*await writer.plan("fox"), folder=directory.folder, name="pro/{}.jpg")
        assert all((tmp_path / name).exists() for name in left), "before the first run, nothing is the run's"
    async with open_run_directory(tmp_path) as directory:
        await join(directory, store)
    assert [(tmp_path / name).exists() for name in left] == [False, False, True]

"""Files of SQLite: what is no store stays as it is, and what happens to a file while it is used."""

# ruff: noqa: S603, S608 # our own program and words

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import anyio
import pytest
from store_support import LEASE, new_row, new_step, open_run

from kontext_async import StoreSettings, StoreUnavailable, StoreUnusable
from kontext_async.store.rows import RowStep
from kontext_async.store.sql.schema import metadata
from kontext_async.store.sql.sqlite import SQLiteDatabase
from kontext_async.store.sql.store import SqlStore
from kontext_async.store.steps import Accepted, Forgotten, Intended, Verdict
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from kontext_async.store.base import Store

pytestmark = pytest.mark.anyio

QUICK = StoreSettings(connect=0.2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "paid.db"


@pytest.fixture
async def store(anyio_backend: str, path: Path) -> AsyncIterator[Store]:
    store = store_from_url(path, StoreSettings())
    await store.open()
    yield store
    await store.aclose()


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def garbage(path: Path) -> None:
    path.write_bytes(b"these are my notes, not a database\n" * 100)


def another_application(path: Path) -> None:
    execute(path, "CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('a')")


def a_foreign_table_of_our_name(path: Path) -> None:
    execute(path, "CREATE TABLE kontext_requests (id INTEGER PRIMARY KEY, text TEXT)")


def a_newer_store(path: Path) -> None:
    execute(
        path,
        "CREATE TABLE kontext_meta (name TEXT PRIMARY KEY, value TEXT)",
        "INSERT INTO kontext_meta VALUES ('version', '3')",
    )


def an_odd_version(path: Path) -> None:
    execute(
        path,
        "CREATE TABLE kontext_meta (name TEXT PRIMARY KEY, value BLOB)",
        "INSERT INTO kontext_meta VALUES ('version', x'ff00')",
    )


def a_cut_file(path: Path) -> None:
    execute(path, "CREATE TABLE kontext_meta (name TEXT PRIMARY KEY, value TEXT)", "CREATE TABLE b (c)")
    path.write_bytes(path.read_bytes()[:-4096])


NO_STORES = [garbage, another_application, a_foreign_table_of_our_name, a_newer_store, an_odd_version, a_cut_file]


@pytest.mark.parametrize("make", NO_STORES)
async def test_what_is_no_store_of_ours_stays_byte_for_byte(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(StoreUnusable) as caught:
        await store_from_url(path, StoreSettings()).open()
    assert str(path) in str(caught.value)
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name], "no log, no shared memory, no reserve"


ODD_VALUES = [
    ("state", "'lost'"),
    ("digest", "x'00'"),
    ("attempt", "-1"),
    ("images", "1000"),
    ("fields", "'[]'"),
    ("fields", "'{'"),
    ("error", "'5'"),
    ("files", "'{}'"),
    ("files", "'[[1, 2]]'"),
    ("files", "'[[\"a\"]]'"),
    ("cost", "'NaN'"),
    ("cost", "'-1'"),
    ("reserved", "'much'"),
    ("prompt", "CAST(x'ff' AS TEXT)"),
    ("seconds", "'long'"),
    ("accepted_at", "1e300"),
]


@pytest.mark.parametrize(("column", "value"), ODD_VALUES)
async def test_a_small_store_with_odd_values_is_refused_before_anything_is_written(
    path: Path, store: Store, column: str, value: str
) -> None:
    run = await open_run(store, "foxes")
    await store.plan(run.id, [new_row()])
    await store.aclose()
    execute(path, f"UPDATE kontext_requests SET {column} = {value}", "PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=r"values that this library does not write|not UTF-8"):
        await store_from_url(path, StoreSettings()).open()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("column", "value"), [each for each in ODD_VALUES if each[1] not in {"1000", "1e300", "-1", "x'00'"}]
)
async def test_odd_values_that_appear_while_a_store_is_used_are_an_error_of_ours(
    path: Path, store: Store, column: str, value: str
) -> None:
    run = await open_run(store, "foxes")
    [row] = await store.plan(run.id, [new_row()])
    execute(path, f"UPDATE kontext_requests SET {column} = {value}")
    with pytest.raises(StoreUnusable):
        await store.fetch([row.id])


async def test_a_new_file_is_created_and_found_again(path: Path) -> None:
    first, second = (store_from_url(path, StoreSettings()) for _ in range(2))
    await first.open()
    await second.open()
    assert (first.identity, first.salt) == (second.identity, second.salt)
    assert len(first.salt) == 32
    await first.aclose()
    await second.aclose()


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    store = store_from_url(path, StoreSettings())
    await store.open()
    assert await store.run_names() == {}
    await store.aclose()


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="there is no folder"):
        await store_from_url(tmp_path / "none" / "paid.db", StoreSettings()).open()


async def test_a_dangling_link_is_not_followed(tmp_path: Path, path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StoreUnusable):
        await store_from_url(path, StoreSettings()).open()
    assert not (tmp_path / "elsewhere.db").exists()


async def test_commits_are_on_disk_when_they_return(store: Store) -> None:
    assert isinstance(store, SqlStore)
    pragmas = await store.database.run(
        lambda transaction: [transaction.fetch(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous")]
    )
    assert pragmas == ["wal", 2]


async def test_a_file_that_is_locked_by_another_process_is_unavailable_and_can_be_used_afterwards(path: Path) -> None:
    store = store_from_url(path, QUICK)
    await store.open()
    run = await open_run(store, "foxes")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another process has it locked"):
            await store.plan(run.id, [new_row()])
        assert await store.find(run.id, ["fox"]) == {}, "readers do not wait for writers"
        other.execute("ROLLBACK")
    assert len(await store.plan(run.id, [new_row()])) == 1
    await store.aclose()


@pytest.mark.parametrize("replace", [False, True])
async def test_nothing_is_written_to_a_file_that_was_deleted_or_replaced(
    path: Path, store: Store, *, replace: bool
) -> None:
    run = await open_run(store, "foxes")
    path.unlink()
    if replace:
        path.touch()
    with pytest.raises(StoreUnusable, match="deleted or replaced"):
        await store.plan(run.id, [new_row()])


async def test_a_caller_that_is_cancelled_leaves_the_store_usable(store: Store) -> None:
    run = await open_run(store, "foxes")
    worker = await store.add_worker(secrets.token_bytes(16), LEASE)
    rows = await store.plan(run.id, [new_row(str(number)) for number in range(20)])
    for row in rows:
        task = asyncio.create_task(store.apply(worker, [RowStep(row=row.id, step=new_step(Intended, 1))]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    results = await store.apply(worker, [RowStep(row=row.id, step=new_step(Intended, 1)) for row in rows])
    assert {each.verdict for each in results} <= {Verdict.APPLIED, Verdict.REPEATED}
    taken = await store.fetch([row.id for row in rows])
    assert [taken[row.id].attempt for row in rows] == [1] * len(rows)


async def test_a_number_is_not_used_again_after_its_row_was_deleted(store: Store) -> None:
    run = await open_run(store, "foxes")
    worker = await store.add_worker(secrets.token_bytes(16), LEASE)
    [first] = await store.plan(run.id, [new_row("first")])
    await store.apply(worker, [RowStep(row=first.id, step=new_step(Forgotten, 0))])
    [second] = await store.plan(run.id, [new_row("second")])
    assert second.id > first.id
    [late] = await store.apply(worker, [RowStep(row=first.id, step=new_step(Accepted, 1, task_id="late"))])
    assert late.verdict is Verdict.LOST


async def test_a_worker_of_an_earlier_start_of_the_machine_is_dead(path: Path, store: Store) -> None:
    run = await open_run(store, "foxes")
    worker = await store.add_worker(secrets.token_bytes(16), 1e6)
    [row] = await store.plan(run.id, [new_row()], worker=worker)
    assert row.owner_alive
    execute(path, "UPDATE kontext_workers SET boot = 'the start before'")
    assert not (await store.fetch([row.id]))[row.id].owner_alive


async def test_a_store_that_was_closed_says_so(path: Path) -> None:
    store = store_from_url(path, StoreSettings())
    await store.open()
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="is closed"):
        await store.run_names()


async def test_the_reserve_is_released_once_and_restored(store: Store) -> None:
    assert store.release_reserve()
    assert not store.release_reserve()
    assert store.restore_reserve()
    assert store.release_reserve()


START = """
import asyncio, sys
from kontext_async import StoreSettings
from kontext_async.store.urls import store_from_url

async def main():
    store = store_from_url(sys.argv[1], StoreSettings())
    await store.open()
    run = await store.open_run("foxes", executes=True)
    await store.aclose()
    print(store.identity, run.execution)

asyncio.run(main())
"""


async def test_processes_that_start_together_on_a_new_file_use_one_store(path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", START, f"sqlite:///{path}"]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [start.communicate(timeout=50) for start in starts]
    assert [error for _, error in outputs] == [""] * 4
    lines = [output.split() for output, _ in outputs]
    assert len({identity for identity, _ in lines}) == 1
    assert sorted(execution for _, execution in lines) == ["1", "2", "3", "4"]


async def test_a_new_file_that_another_process_prepares_is_waited_for(path: Path) -> None:
    store = store_from_url(path, StoreSettings())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.open)
            await anyio.sleep(0.1)  # SQLite waits for a lock in real time
            other.execute("ROLLBACK")
    await store.aclose()


async def test_a_store_that_cannot_be_written_is_refused(path: Path, store: Store) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    await store.aclose()
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(StoreUnusable):
            await store_from_url(path, StoreSettings()).open()
    finally:
        path.parent.chmod(0o700)


async def test_the_tables_are_those_of_the_schema(path: Path, store: Store) -> None:
    with closing(sqlite3.connect(path)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert metadata.tables.keys() <= names


async def test_a_statement_that_takes_too_long_is_stopped(path: Path) -> None:
    database = SQLiteDatabase(path, QUICK)
    await database.open()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(StoreUnavailable, match="took too long"):
        await database.run(lambda transaction: transaction.fetch(endless))
    assert await database.run(lambda transaction: [*transaction.fetch("SELECT 1")[0]]) == [1]
    await database.aclose()

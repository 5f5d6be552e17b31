"""Journals of version 1, as the release before wrote them, become stores: see `tests/data`."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from kontext_async import StoreSettings, StoreUnavailable, StoreUnusable
from kontext_async.store.rows import Selection
from kontext_async.store.sql.version_1 import lock_key
from kontext_async.store.steps import State
from kontext_async.store.urls import store_from_url
from kontext_async.store.version_1 import RUN_NAME, folder_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.servers.postgres import PostgresDatabase
    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row

pytestmark = pytest.mark.anyio

DATA = Path(__file__).parents[2] / "data" / "journal_v1"
STATES = Counter(
    {
        State.SAVED: 8,
        State.PLANNED: 3,
        State.UNCERTAIN: 2,
        State.FAILED: 2,
        State.EXPIRED: 2,
        State.ACCEPTED: 1,
        State.COMPLETED: 1,
    }
)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The journal of a run in its own directory."""
    shutil.copytree(DATA / "run-a", tmp_path / "run-a")
    return tmp_path / "run-a" / "journal.sqlite"


@pytest.fixture
def old_records(journal: Path) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(f"file:{journal}?immutable=1", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM kontext_requests ORDER BY id").fetchall()


@pytest.fixture
async def store(anyio_backend: str, journal: Path, old_records: list[sqlite3.Row]) -> AsyncIterator[Store]:
    store = store_from_url(journal, StoreSettings())
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture
def old_database(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """The journal of two runs in PostgreSQL."""
    with psycopg.connect(postgres_database.url, autocommit=True) as connection:
        connection.execute((DATA / "postgresql.sql").read_bytes())
    return postgres_database


async def rows_of(store: Store, run: str) -> list[Row]:
    found = await store.open_run(run, create=False)
    assert found is not None
    return await store.page(Selection(run=found.id))


def amount(value: Decimal | str | None) -> Decimal:
    return Decimal(value or 0)


async def test_every_row_keeps_what_was_known_of_it(store: Store, old_records: list[sqlite3.Row]) -> None:
    rows = await rows_of(store, RUN_NAME)
    assert len(rows) == len(old_records) == 19
    for row, old in zip(rows, old_records, strict=True):
        is_open = old["state"] in {"planned", "intent"}
        assert row.key == f"{old['fingerprint'].hex()[:32]}-{old['occurrence']}"
        assert row.digest == old["fingerprint"]
        assert row.state == ("uncertain" if old["state"] == "intent" else old["state"])
        assert (row.attempt, row.uncertain_attempts) == (old["attempts"], old["doubtful"])
        assert (row.owner, row.account, row.reserved, row.reference) == (None, None, None, None)
        assert (row.model, row.images, row.prompt) == (old["model"], old["images"], old["prompt"])
        assert row.task_id == (None if is_open else old["task_id"])
        assert amount(row.cost) == (0 if is_open else amount(old["cost"]))
        assert (row.position, row.execution, row.completion) == (old["position"], old["generation"], old["completion"])
        assert (row.intended_at, row.completed_at) == (old["intended_at"], old["completed_at"])
        assert bool(row.error) == bool(old["error"])
        assert (row.folder == 1) == bool(old["files"] or old["completion"])
    assert Counter(row.state for row in rows) == STATES


async def test_the_sums_of_a_run_stay(store: Store, old_records: list[sqlite3.Row]) -> None:
    run = await store.open_run(RUN_NAME, create=False)
    assert run is not None
    assert run.execution == 3
    assert run.spent == sum(amount(old["cost"]) + amount(old["sunk"]) for old in old_records) > 0
    summary = await store.summary(run.id)
    assert summary.states == STATES
    assert summary.owed.total() == 7, "what was or may be billed at an unknown cost"


async def test_the_files_of_a_run_are_found_in_order_by_the_token_of_its_directory(store: Store, journal: Path) -> None:
    number = await store.folder(folder_token(RUN_NAME), "elsewhere")
    assert await store.folders() == {number: str(journal.parent)}
    rows = await store.page(Selection(folder=number, by_completion=True))
    assert [row.completion for row in rows] == sorted(row.completion or 0 for row in rows)
    assert len(rows) == 12
    for row in rows:
        if row.state is State.SAVED:
            [(name, size)] = row.files
            assert (journal.parent / name).stat().st_size == size


async def test_a_store_that_was_migrated_is_opened_as_it_is(store: Store, journal: Path) -> None:
    before = await rows_of(store, RUN_NAME)
    await store.aclose()
    again = store_from_url(journal, StoreSettings())
    await again.open()
    assert (again.identity, again.salt) == (store.identity, store.salt)
    assert await rows_of(again, RUN_NAME) == before
    assert (await again.open_run("another")) is not None
    await again.aclose()


async def test_both_runs_of_a_server_are_migrated(old_database: PostgresDatabase) -> None:
    stores = [store_from_url(old_database.url, StoreSettings()) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({store.identity for store in stores}) == 1
    names = await stores[0].run_names()
    assert list(names.values()) == ["/srv/images/run-a", "/srv/images/run-b"]
    assert Counter(row.state for row in await rows_of(stores[1], "/srv/images/run-a")) == STATES
    assert len(await rows_of(stores[2], "/srv/images/run-b")) == 4
    assert set((await stores[0].folders()).values()) == set(names.values())
    number = await stores[0].folder(folder_token("/srv/images/run-b"), "elsewhere")
    assert [row.completion for row in await stores[0].page(Selection(folder=number, by_completion=True))] == [1, 2]
    another = await stores[0].open_run("another")
    assert another is not None
    assert another.id > max(names)
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_a_run_that_an_older_release_uses_is_not_migrated(journal: Path) -> None:
    before = hashlib.sha256(journal.read_bytes()).digest()
    with (journal.parent / ".lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="in use by an older release"):
            await store_from_url(journal, StoreSettings()).open()
        assert hashlib.sha256(journal.read_bytes()).digest() == before or version_of(journal) == "1"
        held = store_from_url(journal, StoreSettings(), holds_directory_lock=True)
        await held.open()
        await held.aclose()
    assert version_of(journal) == "2"


async def test_a_lock_file_of_another_program_locks_nothing(journal: Path) -> None:
    (journal.parent / ".lock").write_text("this is of another program")
    store = store_from_url(journal, StoreSettings())
    await store.open()
    await store.aclose()


async def test_a_run_on_a_server_that_an_older_release_uses_is_not_migrated(old_database: PostgresDatabase) -> None:
    with psycopg.connect(old_database.url, autocommit=True) as old:
        old.execute("SELECT pg_advisory_lock(%s)", (lock_key("/srv/images/run-b"),))
        with pytest.raises(StoreUnavailable, match=r"in use by an older release.*run-b"):
            await store_from_url(old_database.url, StoreSettings()).open()
        [(version,)] = old.execute("SELECT value FROM kontext_meta WHERE name = 'version'").fetchall()
        assert version == "1"
    store = store_from_url(old_database.url, StoreSettings())
    await store.open()
    await store.aclose()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE kontext_requests SET state = 'lost' WHERE id = 3",
        "UPDATE kontext_requests SET fingerprint = x'00' WHERE id = 3",
        "UPDATE kontext_requests SET cost = 'NaN' WHERE id = 3",
        "UPDATE kontext_requests SET sunk = '-1' WHERE id = 3",
        "UPDATE kontext_requests SET files = '{' WHERE id = 3",
        "UPDATE kontext_requests SET task_id = NULL WHERE state = 'saved'",
        "ALTER TABLE kontext_requests DROP COLUMN doubtful",
    ],
)
async def test_a_damaged_journal_is_left_byte_for_byte(journal: Path, damage: str) -> None:
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        connection.execute(damage)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = {path: path.read_bytes() for path in journal.parent.iterdir()}
    with pytest.raises(StoreUnusable):
        await store_from_url(journal, StoreSettings()).open()
    assert {path: path.read_bytes() for path in journal.parent.iterdir()} == files


INTERRUPTED = """
import asyncio, os, signal, sys
from kontext_async import StoreSettings
from kontext_async.store.sql import migrations
from kontext_async.store.urls import store_from_url
from kontext_async.store.version_1 import RUN_NAME, folder_token

migrations._write_identity = lambda transaction: os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(store_from_url(sys.argv[1], StoreSettings()).open())
"""


async def test_a_migration_that_is_killed_leaves_version_1_and_is_repeated(journal: Path) -> None:
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", INTERRUPTED, str(journal)], timeout=50, check=False
    )
    assert killed.returncode == -9
    assert version_of(journal) == "1"
    store = store_from_url(journal, StoreSettings())
    await store.open()
    assert len(await rows_of(store, RUN_NAME)) == 19
    await store.aclose()


def version_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        [(version,)] = connection.execute("SELECT value FROM kontext_meta WHERE name = 'version'")
    return str(version)


async def test_the_run_of_a_database_elsewhere_is_locked_in_its_own_directory(journal: Path, tmp_path: Path) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        connection.execute("UPDATE kontext_runs SET name = ?", (str(directory),))
    descriptor = os.open(directory / ".lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(StoreUnavailable, match="in use by an older release"):
        await store_from_url(journal, StoreSettings()).open()
    os.close(descriptor)
    store = store_from_url(journal, StoreSettings())
    await store.open()
    assert await store.folders() == {1: str(directory)}
    await store.aclose()

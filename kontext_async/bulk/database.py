"""Opens the journal's database connection, with the pragmas and the checks that the database needs."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from sqlalchemy import insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from kontext_async.bulk.errors import JournalUnusable, RunLocked
from kontext_async.bulk.examination import BUSY_SECONDS, Unsuitable, examine
from kontext_async.bulk.schema import VERSION, meta, metadata, runs
from kontext_async.redaction import truncate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL

__all__ = [
    "ADVICE",
    "NAME",
    "begin_generation",
    "connect",
    "disconnect",
    "is_locked",
    "reason_of",
    "settle",
    "unusable",
    "url_of",
]

NAME = "journal.sqlite"

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
"""With `synchronous=FULL`, a commit in WAL mode is on disk when it returns; with NORMAL, a power failure could undo it,
and the ID of a paid task would be lost (https://sqlite.org/pragma.html#pragma_synchronous)."""

BUSY_MILLISECONDS = 10_000
"""The longest wait of a step for another process that has the file locked."""

ADVICE = (
    "nothing was submitted; restore the journal from a backup, or use a new directory, in which every request is "
    "submitted and billed again"
)
"""The advice to a user about a journal that is missing or unusable."""

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


def url_of(given: str | None, directory: Path) -> URL:
    """Return the journal's URL: the given one with an async driver, or that of a file in the directory.

    Raises:
        JournalUnusable: The given URL is not the URL of a database.
    """
    if given is None:
        return make_url("sqlite+aiosqlite://").set(database=str(directory / NAME))
    try:
        url = make_url(given)
    except SQLAlchemyError:
        raise JournalUnusable(
            "the journal's URL must be a database URL as in SQLAlchemy, such as postgresql://HOST/NAME"
        ) from None
    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername))


async def connect(url: URL) -> AsyncConnection:
    """Connect to a journal, and create its tables if they do not exist. Call `settle` when the run is recorded.

    Raises:
        JournalUnusable: The journal cannot be opened, is damaged, or is not a journal of this version.
    """
    with _unusable(url):
        options: dict[str, Any] = {}
        if url.drivername.startswith("sqlite"):
            options["connect_args"] = {"timeout": BUSY_SECONDS}
            if url.database and url.database != ":memory:":
                await anyio.to_thread.run_sync(examine, Path(url.database))
        engine = create_async_engine(url, poolclass=NullPool, **options)
        connection = await engine.connect()
        try:
            await _prepare(connection, url)
        except BaseException:
            await disconnect(connection)
            raise
    return connection


async def settle(connection: AsyncConnection) -> None:
    """Let later steps wait for other processes that lock the file; while it was opened, a lock was an error."""
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        await connection.rollback()


async def disconnect(connection: AsyncConnection) -> None:
    """Close a connection. Uncommitted changes are discarded."""
    await connection.close()
    await connection.engine.dispose()


async def begin_generation(connection: AsyncConnection, name: str, *, must_exist: bool = False) -> tuple[int, int]:
    """Start another execution of a run, or create the run, without a commit.

    Returns:
        The run's ID and the number of its executions, from 1; zeros if the run must exist and does not.

    Raises:
        RunLocked: Another process is using the run (on PostgreSQL; elsewhere the directory's lock is enough).
    """
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"kontext_async {name}".encode()).digest()[:8], "big", signed=True)
        if not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
            raise RunLocked(f"the journal of {name!r} in the database", None)
    known = (await connection.execute(select(runs.c.id, runs.c.generation).where(runs.c.name == name))).one_or_none()
    if known is None and must_exist:
        return 0, 0
    if known is None:
        made = await connection.execute(insert(runs).values(name=name, generation=1, created_at=time.time()))
        key_made = made.inserted_primary_key
        return int(key_made[0] if key_made else 1), 1
    await connection.execute(update(runs).where(runs.c.id == known.id).values(generation=known.generation + 1))
    return int(known.id), int(known.generation) + 1


async def _prepare(connection: AsyncConnection, url: URL) -> None:
    if connection.dialect.name == "sqlite":
        for pragma in PRAGMAS:
            await connection.exec_driver_sql(f"PRAGMA {pragma}")
        await connection.rollback()
    await connection.run_sync(metadata.create_all)
    version = await connection.scalar(select(meta.c.value).where(meta.c.name == "version"))
    if version is None:
        await connection.execute(insert(meta).values(name="version", value=str(VERSION)))
    elif not str(version).isdecimal() or int(version) > VERSION:  # SQLite keeps values of any type
        raise JournalUnusable(
            f"the journal {url.render_as_string()} was written by a newer version of kontext_async (schema "
            f"{truncate(version, 20)}; this version supports {VERSION}): update kontext_async; nothing was submitted"
        )
    await connection.commit()


@contextmanager
def _unusable(url: URL) -> Iterator[None]:
    """Translate the errors of a database or its driver into `JournalUnusable`."""
    shown = url.database if url.drivername.startswith("sqlite") else url.render_as_string()
    try:
        yield
    except Unsuitable as error:
        raise JournalUnusable(f"the journal {shown} cannot be used: {error}; {ADVICE}") from None
    except (SQLAlchemyError, OSError, ImportError, ValueError, sqlite3.Error) as error:
        raise unusable(str(shown), error) from error


def unusable(shown: str, error: BaseException) -> JournalUnusable:
    """Return the error for a journal that the database refuses to open."""
    if is_locked(error):
        return JournalUnusable(
            f"the journal {shown} is locked by another process: close the program that has it open, and run again; "
            "nothing was submitted"
        )
    return JournalUnusable(f"the journal {shown} cannot be used: {reason_of(error)}; {ADVICE}")


def is_locked(error: BaseException) -> bool:
    """Return True if another process has locked an SQLite file."""
    cause = getattr(error, "orig", None) or error
    return isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause)


def reason_of(error: BaseException) -> str:
    """Return the database's message, without the statement and its parameters."""
    return truncate(str(getattr(error, "orig", None) or error), 200)

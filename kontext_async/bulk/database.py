"""Opens the journal's database connection, with the pragmas and the checks that the database needs."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import anyio.to_thread
from sqlalchemy import insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from kontext_async.bulk.errors import JournalUnusable, RunLocked
from kontext_async.bulk.schema import VERSION, meta, metadata, runs
from kontext_async.redaction import truncate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import URL

__all__ = ["ADVICE", "NAME", "begin_generation", "connect", "disconnect", "reason_of", "url_of"]

NAME = "journal.sqlite"

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON")
"""With `synchronous=FULL`, a commit in WAL mode is on disk when it returns; with NORMAL, a power failure could undo it,
and the ID of a paid task would be lost (https://sqlite.org/pragma.html#pragma_synchronous)."""

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
    """Connect to a journal, and create its tables if they do not exist.

    Raises:
        JournalUnusable: The journal cannot be opened, is damaged, or is newer than this library.
    """
    with _unusable(url):
        if url.drivername.startswith("sqlite"):
            await anyio.to_thread.run_sync(_examine, url.database or "")
        engine = create_async_engine(url, poolclass=NullPool)
        connection = await engine.connect()
        try:
            await _prepare(connection, url)
        except BaseException:
            await disconnect(connection)
            raise
    return connection


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
    elif not version.isdecimal() or int(version) > VERSION:
        raise JournalUnusable(
            f"the journal {url.render_as_string()} was written by a newer version of kontext_async (schema "
            f"{truncate(version, 20)}; this version supports {VERSION}): update kontext_async; nothing was submitted"
        )
    await connection.commit()


def _examine(path: str) -> None:
    """Check a file before SQLAlchemy opens it. Blocks. A failed connection of the async driver would leave a thread."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalUnusable(f"the journal {path} is damaged: {truncate(str(found), 200)}; {ADVICE}")


@contextmanager
def _unusable(url: URL) -> Iterator[None]:
    """Translate the errors of a database or its driver into `JournalUnusable`."""
    try:
        yield
    except (SQLAlchemyError, OSError, ImportError, sqlite3.Error) as error:
        shown = url.database if url.drivername.startswith("sqlite") else url.render_as_string()
        raise JournalUnusable(f"the journal {shown} cannot be used: {reason_of(error)}; {ADVICE}") from error


def reason_of(error: BaseException) -> str:
    """Return the database's message, without the statement and its parameters."""
    return truncate(str(getattr(error, "orig", None) or error), 200)

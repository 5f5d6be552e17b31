"""The journal's connection: opened once, with the pragmas and the checks that its database needs."""

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

__all__ = ["NAME", "begin_generation", "connect", "disconnect", "reason_of", "url_of"]

NAME = "journal.sqlite"

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON")
"""With `synchronous=FULL`, a commit in WAL mode is on the disk when it returns; with NORMAL, a power failure could take
it back, and with it the id of a paid task (https://sqlite.org/pragma.html#pragma_synchronous)."""

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


def url_of(given: str | None, directory: Path) -> URL:
    """Where the journal is: the URL that was given, with an async driver, or a file in the directory.

    Raises:
        JournalUnusable: It is no URL of a database.
    """
    if given is None:
        return make_url("sqlite+aiosqlite://").set(database=str(directory / NAME))
    try:
        url = make_url(given)
    except SQLAlchemyError:
        raise JournalUnusable("the journal's URL must be one of SQLAlchemy's, such as postgresql://HOST/NAME") from None
    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername))


async def connect(url: URL) -> AsyncConnection:
    """A connection to a journal, with its tables in it.

    Raises:
        JournalUnusable: It cannot be opened, is damaged, or is newer than this library.
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
    """Close a connection. What was not committed is forgotten."""
    await connection.close()
    await connection.engine.dispose()


async def begin_generation(connection: AsyncConnection, name: str, *, must_exist: bool = False) -> tuple[int, int]:
    """Take up the run of a name, or make it; not committed yet.

    Returns:
        The run's id, and how often it was begun, from 1; zeros when there is none and there must be.

    Raises:
        RunLocked: Another process has it (on PostgreSQL; elsewhere the directory's lock must do).
    """
    if connection.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"kontext_async {name}".encode()).digest()[:8], "big", signed=True)
        if not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
            raise RunLocked(f"the database as {name!r}", None)
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
            f"the journal {url.render_as_string()} was written by a newer version of kontext_async "
            f"(schema {truncate(version, 20)}; this one knows {VERSION})"
        )
    await connection.commit()


def _examine(path: str) -> None:
    """Look at a file before anything relies on it. Blocks. A connection that cannot be made would leave a thread."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalUnusable(f"the journal {path} is damaged: {truncate(str(found), 200)}; put a copy in its place")


@contextmanager
def _unusable(url: URL) -> Iterator[None]:
    """What a database or its driver raises, as one error of the tree."""
    try:
        yield
    except (SQLAlchemyError, OSError, ImportError, sqlite3.Error) as error:
        shown = url.database if url.drivername.startswith("sqlite") else url.render_as_string()
        advice = "put a copy of it in its place, or use another directory; without it, paid tasks would be paid again"
        raise JournalUnusable(f"the journal {shown} cannot be used: {reason_of(error)}; {advice}") from error


def reason_of(error: BaseException) -> str:
    """What a database complains of, without the statement and its parameters."""
    return truncate(str(getattr(error, "orig", None) or error), 200)

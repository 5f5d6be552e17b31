"""PostgreSQL: a server for the workers of several machines, through psycopg 3 and SQLAlchemy's pool.

psycopg because libpq reads URLs, services, password files and several hosts as psql does. It sends no startup
parameters and keeps no prepared statements, and what a transaction needs is set with ``SET LOCAL``, so that PgBouncer
may give each transaction another connection of the server.

A transaction that does not end in time has its socket shut down: then the driver fails by itself, in the task that owns
the connection. Cancelling a statement of psycopg would ask a server that does not respond.
"""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

import asyncio
import math
import os
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from kontext_async.errors import StoreError, StoreUnavailable, StoreUnusable
from kontext_async.redaction import truncate
from kontext_async.store.sql.database import LONG_SECONDS, Database, Lane
from kontext_async.store.sql.failures import failure_of, is_disconnect, is_repeatable
from kontext_async.store.sql.migrations import Identity, prepare, read_identity, read_version
from kontext_async.store.sql.schema import metadata
from kontext_async.store.sql.transaction import POSTGRESQL, Transaction
from kontext_async.store.sql.version_1 import lock_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from kontext_async.settings import StoreSettings
    from kontext_async.store.sql.urls import PostgresAddress

__all__ = ["PostgresDatabase"]

T = TypeVar("T")

CONNECTIONS = 4
"""Three groups of steps and a query at the same time; the beat has a connection of its own."""

TIMES = 3
"""The most times that a transaction is executed that the server undid because of another one."""

SHORTEST_TIMEOUT = 2.0
"""Seconds. A shorter lease is for tests; a server that is busy still needs its time."""

LOCK_TABLES = "SELECT pg_advisory_xact_lock(:key)"
TABLES_KEY = lock_key("tables")


class PostgresDatabase(Database):
    """A database of a PostgreSQL server.

    Args:
        address: Where it is.
        settings: The settings of the store.
    """

    concurrency = CONNECTIONS - 1

    def __init__(self, address: PostgresAddress, settings: StoreSettings) -> None:
        super().__init__(address.name, settings)
        self._address = address
        self._engine = self._create_engine(CONNECTIONS)
        self._beat_engine = self._create_engine(1)

    def _create_engine(self, connections: int) -> AsyncEngine:
        return create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._connect_driver,
            isolation_level="AUTOCOMMIT",  # `_begin` says how a transaction begins
            poolclass=AsyncAdaptedQueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=self.settings.connect,
            use_native_hstore=False,
            hide_parameters=True,
        )

    async def _open(self) -> Identity:
        identity = await self._transact(Lane.READ, self.settings.connect, partial(_find_store, name=self.name))
        if identity is None:
            identity = await self._transact(Lane.WRITE, LONG_SECONDS, partial(_create_store, name=self.name))
        await self._transact(Lane.READ, self.settings.connect, partial(_check_rights, name=self.name))
        return identity

    async def _close(self) -> None:
        for engine in (self._engine, self._beat_engine):
            with suppress(Exception):
                await engine.dispose()

    async def _transact(self, lane: Lane, seconds: float, body: Callable[[Transaction], T]) -> T:
        engine = self._beat_engine if lane is Lane.BEAT else self._engine
        begin = self._begin(lane, seconds)
        times = 0
        while True:
            times += 1
            connection = await self._check_out(engine)
            attempt = _Attempt(begin, body)
            try:
                return await self._execute(connection, attempt, seconds)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 # whatever a driver raises
                failure = failure_of(error, self.name)
                is_safe = is_repeatable(error) or (not attempt.has_begun and is_disconnect(error))
            if times == TIMES or not is_safe:
                raise failure  # outside of `except`: the driver's error has the statement and its parameters

    async def _check_out(self, engine: AsyncEngine) -> AsyncConnection:
        failure: StoreError
        try:
            async with asyncio.timeout(self.settings.connect):
                return await engine.connect()
        except TimeoutError:
            failure = StoreUnavailable(
                f"the store {self.name} cannot be reached: no connection within {self.settings.connect:g} s; "
                "check the host and the port, and that no firewall drops the packets"
            )
        except Exception as error:  # noqa: BLE001 # as above
            failure = failure_of(error, self.name)
        raise failure

    async def _execute(self, connection: AsyncConnection, attempt: _Attempt[T], seconds: float) -> T:
        """Execute a transaction. If it fails, its connection is closed."""
        driver: Any = (await connection.get_raw_connection()).driver_connection
        shutdown = _Shutdown(driver)
        watch = asyncio.get_running_loop().call_later(seconds, shutdown.perform)
        try:
            result = await connection.run_sync(attempt.execute)
        except BaseException:
            await self._discard(connection, driver)
            if not shutdown.is_done:
                raise
        else:
            with suppress(Exception):
                await connection.close()
            return result
        finally:
            watch.cancel()
        raise StoreUnavailable(f"the store {self.name} cannot be used now: it did not respond within {seconds:g} s")

    async def _discard(self, connection: AsyncConnection, driver: Any) -> None:
        with suppress(Exception):
            await driver.close()
        with suppress(Exception):
            await connection.invalidate()
        with suppress(Exception):
            await connection.close()

    def _begin(self, lane: Lane, seconds: float) -> str:
        """Return the statements that begin a transaction. A worker that stops inside it stops others for a lease."""
        milliseconds = math.ceil(1000 * max(self.settings.lease, SHORTEST_TIMEOUT))
        longest = max(milliseconds, math.ceil(1000 * seconds)) if seconds > self.settings.connect else milliseconds
        mode = "READ ONLY" if lane is Lane.READ else "READ WRITE"
        return (
            f"BEGIN ISOLATION LEVEL READ COMMITTED {mode}; SET LOCAL lock_timeout = {milliseconds}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}; SET LOCAL statement_timeout = {longest}"
        )

    async def _connect_driver(self) -> psycopg.AsyncConnection[Any]:
        seconds = max(SHORTEST_TIMEOUT, self.settings.connect / max(self._address.hosts, 1))
        options: dict[str, Any] = {}
        if "connect_timeout" not in self._address.conninfo:
            options["connect_timeout"] = math.ceil(seconds)
        return await psycopg.AsyncConnection.connect(
            self._address.conninfo, autocommit=True, prepare_threshold=None, **options
        )


class _Attempt(Generic[T]):
    """One execution of a transaction."""

    def __init__(self, begin: str, body: Callable[[Transaction], T]) -> None:
        self._begin = begin
        self._body = body
        self.has_begun = False

    def execute(self, connection: Connection) -> T:
        connection.exec_driver_sql(self._begin)
        self.has_begun = True
        result = self._body(Transaction(connection, POSTGRESQL))
        connection.exec_driver_sql("COMMIT")
        return result


class _Shutdown:
    """Shuts the socket of a connection down."""

    def __init__(self, driver: psycopg.AsyncConnection[Any]) -> None:
        self._driver = driver
        self.is_done = False

    def perform(self) -> None:
        self.is_done = True
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._driver.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)


class _RunLocks:
    """The advisory locks that releases with version 1 take on runs, for the time of a migration."""

    def __init__(self, transaction: Transaction, name: str) -> None:
        self._transaction = transaction
        self._name = name

    def acquire(self, run: str) -> None:
        ((is_free,),) = self._transaction.fetch("SELECT pg_try_advisory_xact_lock(:key)", key=lock_key(run))
        if not is_free:
            raise StoreUnavailable(
                f"the store {self._name} is in use by an older release of kontext_async, for the run "
                f"{truncate(run, 200)}: stop that process first; nothing was submitted"
            )


def _find_store(transaction: Transaction, *, name: str) -> Identity | None:
    """Return the identity of the store; None if its tables are to be created or migrated."""
    _check_server(transaction, name)
    columns = _columns(transaction)
    if not metadata.tables.keys() <= columns.keys() or _has_version_1(columns):
        return None
    _check_columns(columns, name)
    return read_identity(transaction)


def _create_store(transaction: Transaction, *, name: str) -> Identity:
    transaction.fetch(LOCK_TABLES, key=TABLES_KEY)
    columns = _columns(transaction)
    if {"name", "value"} <= columns.get("kontext_meta", set()):
        read_version(transaction, name)  # a newer one is refused as such
    if not _has_version_1(columns):
        _check_columns(columns, name)
    return prepare(transaction, name, _RunLocks(transaction, name))


def _check_server(transaction: Transaction, name: str) -> None:
    """Check the settings of the server without which a step would not be durable, or a text not be what it was."""
    ((commit, encoding),) = transaction.fetch(
        "SELECT current_setting('synchronous_commit'), current_setting('server_encoding')"
    )
    if commit == "off":
        raise StoreUnusable(
            f"the store {name} has synchronous_commit = off: a crash of the server would lose the IDs of paid tasks; "
            "set it to on for this database or user (ALTER DATABASE … SET synchronous_commit = on)"
        )
    if encoding != "UTF8":
        raise StoreUnusable(
            f"the store {name} has the encoding {encoding}, which does not have every character: create a database "
            "with ENCODING 'UTF8'"
        )


def _has_version_1(columns: Mapping[str, set[str]]) -> bool:
    return {"fingerprint", "occurrence", "sunk", "doubtful"} <= columns.get("kontext_requests", set())


def _check_columns(columns: Mapping[str, set[str]], name: str) -> None:
    """Refuse tables with our names that have other columns."""
    for table in metadata.sorted_tables:
        found = columns.get(table.name)
        if found is not None and (missing := sorted({column.name for column in table.columns} - found)):
            raise StoreUnusable(
                f"the store {name} cannot be used: its table {table.name} is not of kontext_async, it has no column "
                f"{missing[0]}: use another database, or another schema (options=-csearch_path%3DNAME)"
            )


def _columns(transaction: Transaction) -> dict[str, set[str]]:
    records = transaction.fetch(
        "SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND a.attnum > 0 "
        "AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND starts_with(c.relname, 'kontext_')"
    )
    columns: dict[str, set[str]] = {}
    for table, column in records:
        columns.setdefault(table, set()).add(column)
    return columns


def _check_rights(transaction: Transaction, *, name: str) -> None:
    """Refuse a user who may not read or write the tables, before anything is paid for."""
    tables = ", ".join(f"('{table.name}')" for table in metadata.sorted_tables)
    rights = ", ".join(f"('{right}')" for right in ("SELECT", "INSERT", "UPDATE", "DELETE"))
    missing = transaction.fetch(
        f"SELECT t.name, p.name FROM (VALUES {tables}) AS t(name), (VALUES {rights}) AS p(name) "
        "WHERE NOT has_table_privilege(t.name, p.name) ORDER BY t.name, p.name LIMIT 1"
    )
    for table, right in missing:
        raise StoreUnusable(
            f"the store {name} cannot be used: this user has no right to {right} in the table {table}; give it SELECT, "
            "INSERT, UPDATE and DELETE in the tables of the store; nothing was submitted"
        )

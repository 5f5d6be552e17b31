"""SQLite: a file for the workers of one machine.

A whole transaction is one thread call: none of its statements waits for the event loop while it has the file locked,
and it costs less than a thread call for each statement. Writers of one process take turns; those of others wait in
``BEGIN IMMEDIATE``.

The clock is that of the machine since its start, which nobody sets back by hand, with the name of that start: a worker
of another start is dead.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import suppress
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from kontext_async.errors import StoreError, StoreUnavailable, StoreUnusable
from kontext_async.store.boot_clock import boot_id, boot_time
from kontext_async.store.sql.database import Database, Lane
from kontext_async.store.sql.examination import examine
from kontext_async.store.sql.failures import failure_of
from kontext_async.store.sql.migrations import Identity, prepare
from kontext_async.store.sql.mounts import network_file_system
from kontext_async.store.sql.transaction import SQLITE, Transaction
from kontext_async.store.sql.version_1 import DirectoryLocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from kontext_async.settings import StoreSettings

__all__ = ["SQLiteDatabase"]

T = TypeVar("T")

OLDEST = (3, 35, 0)
"""The first version with RETURNING."""

SYNCHRONOUS = "PRAGMA synchronous=FULL"
"""With `FULL`, a commit in WAL mode is on disk when it returns; with NORMAL, a power failure could undo it,
and the ID of a paid task would be lost (https://sqlite.org/pragma.html#pragma_synchronous)."""

TURN_SECONDS = 0.01
"""The wait between two attempts to change a file to a write-ahead log."""

EXACT = Context(prec=200)


class SQLiteDatabase(Database):
    """A file of SQLite.

    Args:
        path: The path of the file.
        settings: The settings of the store.
        holds_directory_lock: True if this process has the lock of version 1 on the directory of the file.
    """

    concurrency = 1

    def __init__(self, path: Path, settings: StoreSettings, *, holds_directory_lock: bool = False) -> None:
        super().__init__(str(path), settings)
        self.path = path
        self.folder = path.parent
        self._holds_directory_lock = holds_directory_lock
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=NullPool, hide_parameters=True)
        self._threads = anyio.CapacityLimiter(len(Lane))
        self._turns = {lane: asyncio.Lock() for lane in Lane}
        self._connections: dict[Lane, Connection] = {}
        self._file: tuple[int, int] | None = None
        self._boot = boot_id() if hasattr(time, "CLOCK_BOOTTIME") else ""

    async def _open(self) -> Identity:
        return await anyio.to_thread.run_sync(self._open_file, limiter=self._threads)

    async def _transact(self, lane: Lane, seconds: float, body: Callable[[Transaction], T]) -> T:
        async with self._turns[lane]:
            if lane not in self._connections:
                raise StoreUnavailable(f"the store {self.name} is closed")
            connection = self._connections[lane]
            driver: Any = connection.connection.dbapi_connection
            watch = asyncio.get_running_loop().call_later(seconds, driver.interrupt)
            try:
                return await anyio.to_thread.run_sync(
                    self._run,
                    connection,
                    body,
                    "BEGIN" if lane is Lane.READ else "BEGIN IMMEDIATE",
                    limiter=self._threads,
                )
            finally:
                watch.cancel()

    async def _close(self) -> None:
        connections = list(self._connections.values())
        self._connections.clear()
        with suppress(Exception):
            await anyio.to_thread.run_sync(self._close_all, connections)

    def _close_all(self, connections: list[Connection]) -> None:
        for connection in connections:
            with suppress(Exception):
                connection.close()
        self._engine.dispose()

    def _run(self, connection: Connection, body: Callable[[Transaction], T], begin: str) -> T:
        """Run a function in a transaction. It blocks."""
        try:
            self._check_file()
            connection.exec_driver_sql(begin)
            result = body(self._transaction(connection))
            connection.commit()
        except Exception as error:  # noqa: BLE001 # whatever a driver raises
            failure = failure_of(error, self.name)
        else:
            return result
        with suppress(Exception):
            connection.rollback()
        raise failure  # outside of `except`: the driver's error has the statement

    def _open_file(self) -> Identity:
        if sqlite3.sqlite_version_info < OLDEST:
            raise StoreUnusable(
                f"this Python has SQLite {sqlite3.sqlite_version}, and a store needs "
                f"{'.'.join(map(str, OLDEST))}: use a newer Python, or PostgreSQL"
            )
        try:
            self._check_place()
            examine(self.path)
            for lane in Lane:
                self._connections[lane] = self._engine.connect()
            found = self.path.stat()
            self._file = (found.st_dev, found.st_ino)
            return self._prepare()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            failure: StoreError = StoreUnusable(f"the store {self.name} cannot be used: {reason}")
        except Exception as error:  # noqa: BLE001 # whatever a driver raises
            failure = failure_of(error, self.name)
        raise failure

    def _prepare(self) -> Identity:
        connection = self._connections[Lane.WRITE]
        with DirectoryLocks(self.path, is_locked=self._holds_directory_lock) as locks:
            return self._run(connection, lambda transaction: prepare(transaction, self.name, locks), "BEGIN IMMEDIATE")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self.settings.connect, isolation_level=None, check_same_thread=False
        )
        try:
            _use_write_ahead_log(connection, self.settings.connect)
            connection.execute(SYNCHRONOUS)
            connection.create_function("kontext_add", 2, _add, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _transaction(self, connection: Connection) -> Transaction:
        now = boot_time() if hasattr(time, "CLOCK_BOOTTIME") else time.time()
        return Transaction(connection, SQLITE, {"now": now, "boot": self._boot}, str(self.folder))

    def _check_place(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            raise StoreUnusable(f"the store {self.name} cannot be used: there is no folder {folder}")
        if system := network_file_system(folder):
            raise StoreUnusable(
                f"the store {self.name} lies on a network file system ({system}), where the locks of SQLite do not "
                "keep workers of several machines apart: use a local disk, or PostgreSQL for several machines"
            )

    def _check_file(self) -> None:
        """Refuse to write to a file that is no longer at its path: nobody would find what is written there."""
        if self._file is None:
            return
        try:
            found = self.path.stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._file:
            raise StoreUnusable(
                f"the store {self.name} was deleted or replaced while it was used: nothing more is submitted; "
                "restore it from a backup before the next start, or requests would be billed again"
            )


def _use_write_ahead_log(connection: sqlite3.Connection, seconds: float) -> None:
    """Change a file to a write-ahead log, which it remembers. Wait for others that do the same.

    SQLite refuses at once, without the wait that a connection allows, where two that read want to write
    (https://sqlite.org/c3ref/busy_handler.html): as do workers that start together on a new file.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        else:
            return
        time.sleep(TURN_SECONDS)


def _add(left: str, right: str) -> str:
    return str(EXACT.add(Decimal(left), Decimal(right)))

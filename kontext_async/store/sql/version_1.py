"""The tables of version 1, as releases before the store wrote them, and the locks that these releases take.

Version 1 was the journal of `bulk` alone. Its rows have a fingerprint and an occurrence instead of a key, no account
and no owner: a directory belonged to one run at a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

from kontext_async.errors import StoreUnavailable
from kontext_async.store.version_1 import RUN_NAME

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DirectoryLocks", "lock_key", "metadata", "requests"]

metadata = MetaData()

Table("kontext_meta", metadata, Column("name", String(40), primary_key=True), Column("value", Text, nullable=False))

Table(
    "kontext_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(1024), unique=True, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
)

requests = Table(
    "kontext_requests",
    metadata,
    Column("run_id", Integer, primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("occurrence", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("doubtful", Integer, nullable=False),
    Column("sunk", String(40), nullable=False),
    Column("model", Text, nullable=False),
    Column("images", SmallInteger, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("fields", Text, nullable=False),
    Column("task_id", Text),
    Column("cost", String(40)),
    Column("seconds", Float),
    Column("result", Text),
    Column("files", Text),
    Column("error", Text),
    Column("intended_at", Float),
    Column("accepted_at", Float),
    Column("completed_at", Float),
    Column("completion", BigInteger),
)

LOCK_FILE = ".lock"
LOCK_TEXT = re.compile(rb"[0-9]{0,20}\s*")
TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})


def lock_key(run: str) -> int:
    """Return the key of the advisory lock that a release with version 1 takes for a run in PostgreSQL."""
    return int.from_bytes(hashlib.sha256(f"kontext_async {run}".encode()).digest()[:8], "big", signed=True)


class DirectoryLocks:
    """The locks that releases with version 1 take on directories of runs, for the time of a migration. They block.

    Args:
        path: The file of the store.
        is_locked: True if this process has the lock of the file's own directory already.
    """

    def __init__(self, path: Path, *, is_locked: bool) -> None:
        self._path = path
        self._is_locked = is_locked
        self._locks = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._locks.close()

    def acquire(self, run: str) -> None:
        """Acquire the lock of a run's directory, until the end of the block.

        Raises:
            StoreUnavailable: A process of a release with version 1 uses the run.
        """
        is_own = run == RUN_NAME
        directory = self._path.parent if is_own else Path(run)
        if is_own and self._is_locked:
            return
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            descriptor = os.open(directory / LOCK_FILE, flags)
        except OSError:  # no release with version 1 has used the directory, or nobody can use it
            return
        self._locks.callback(os.close, descriptor)
        if _is_lock(descriptor) and not _lock(descriptor):
            raise StoreUnavailable(
                f"the store {self._path} is in use by an older release of kontext_async, in {directory}: "
                "stop that process first; nothing was submitted"
            )


def _is_lock(descriptor: int) -> bool:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    with suppress(OSError):
        return LOCK_TEXT.fullmatch(os.pread(descriptor, 64, 0)) is not None
    return False


def _lock(descriptor: int) -> bool:
    """Lock a file; return False if another process has the lock."""
    try:
        import fcntl  # noqa: PLC0415 # not on Windows
    except ImportError:  # pragma: no cover # the suite runs where fcntl is
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in TAKEN
    return True

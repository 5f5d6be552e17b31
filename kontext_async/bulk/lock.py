"""Admits one run at a time to a directory: a file lock, which the system releases when the process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, Self

from kontext_async.bulk.errors import RunLocked, RunRefused
from kontext_async.bulk.paths import reason_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DirectoryLock"]

NAME = ".lock"
MARK = 1 << 30
"""The position of the locked byte: after the text, which other processes must be able to read on systems with mandatory
locks."""

TEXT = re.compile(rb"[0-9]{0,20}\s*")
"""The contents of a lock: the process ID of its owner, or nothing."""

OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)

TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
"""The errors that mean that another process has the lock; any other error means that there are no locks here."""

if sys.platform == "win32":  # pragma: no cover # the suite runs where fcntl is
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, MARK, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DirectoryLock:
    """The exclusive right to use a directory. Its methods block on disk access.

    Args:
        directory: The directory, which must exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> Self:
        """Acquire the lock.

        Raises:
            RunLocked: Another run is using the directory.
            RunRefused: The directory is not writable, its file system has no locks, or its ``.lock`` is not ours.
        """
        descriptor = self._open()
        try:
            _lock(descriptor)
        except OSError as error:
            pid = _pid_in(descriptor)
            os.close(descriptor)
            if error.errno in TAKEN:
                raise RunLocked(str(self._directory), pid) from None
            raise self._no_locks(error) from None
        with contextlib.suppress(OSError):  # the pid only informs people; the lock works without it
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return self

    def _open(self) -> int:
        path = self._directory / NAME
        try:
            descriptor = os.open(path, OPEN_FLAGS, 0o644)
        except OSError as error:
            raise RunRefused(
                f"the directory {self._directory} cannot be written ({NAME}: {reason_of(error)}); nothing was submitted"
            ) from None
        if not _is_ours(descriptor):
            os.close(descriptor)
            raise RunRefused(f"{path} is a file of another program: use another directory; nothing was submitted")
        return descriptor

    def _no_locks(self, error: OSError) -> RunRefused:
        name = errno.errorcode.get(error.errno or 0, "an error")
        return RunRefused(
            f"the file system of {self._directory} has no file locks ({name}: {error.strerror}), so that nothing would "
            "keep two runs from paying for the same requests; nothing was submitted. Use a directory on a local disk "
            "and copy it afterwards, or mount this file system with locks (NFS: its lock service; FUSE: flock)"
        )

    def release(self) -> None:
        """Release the lock. Calling it twice does no harm."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _is_ours(descriptor: int) -> bool:
    """Return True if an open file is a lock that a run wrote, or is empty."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        return TEXT.fullmatch(os.read(descriptor, 64)) is not None
    return False


def _pid_in(descriptor: int) -> int | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return int(os.read(descriptor, 20))
    except (OSError, ValueError):
        return None

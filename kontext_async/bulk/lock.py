"""Admits one run at a time to a directory: a file lock, which the system releases when the process ends."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Self

from kontext_async.bulk.errors import RunLocked, RunRefused

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DirectoryLock"]

NAME = ".lock"
MARK = 1 << 30
"""The position of the locked byte: after the text, which other processes must be able to read on systems with mandatory
locks."""

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
            RunRefused: The directory is not writable.
        """
        path = self._directory / NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            reason = error.strerror or error
            raise RunRefused(
                f"the directory {self._directory} cannot be written: {reason}; nothing was submitted"
            ) from None
        try:
            _lock(descriptor)
        except OSError:
            pid = _pid_in(descriptor)
            os.close(descriptor)
            raise RunLocked(str(self._directory), pid) from None
        with contextlib.suppress(OSError):  # the pid only informs people; the lock works without it
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Release the lock. Calling it twice does no harm."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _pid_in(descriptor: int) -> int | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return int(os.read(descriptor, 20))
    except (OSError, ValueError):
        return None

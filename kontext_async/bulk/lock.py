"""One run at a time in a directory: a lock on a file, which the system lets go of whatever becomes of the process."""

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
"""The byte that is locked: beyond the text, which others must be able to read where locks are mandatory."""

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
    """The right to work in a directory. Its methods block for as long as the disk takes.

    Args:
        directory: It must exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> Self:
        """Take it.

        Raises:
            RunLocked: Another run has it.
            RunRefused: The directory cannot be written.
        """
        path = self._directory / NAME
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            reason = error.strerror or error
            raise RunRefused(f"the directory {self._directory} cannot be written: {reason}") from None
        try:
            _lock(descriptor)
        except OSError:
            pid = _pid_in(descriptor)
            os.close(descriptor)
            raise RunLocked(str(self._directory), pid) from None
        with contextlib.suppress(OSError):  # the pid is for people; the lock is held without it
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        """Let go of it. Doing so twice does no harm."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _pid_in(descriptor: int) -> int | None:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return int(os.read(descriptor, 20))
    except (OSError, ValueError):
        return None

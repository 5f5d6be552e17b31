"""Disk space that is reserved for what must be written even if the disk is full: the IDs of paid tasks."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import IO, TYPE_CHECKING

from kontext_async.errors import StoreUnusable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DiskReserve", "write_durably"]


class DiskReserve:
    """Real bytes in a folder, released when the space is needed. Its methods block on disk access.

    They are a file without a name where the system has such files: it overwrites nothing, and ends with the process.

    Args:
        folder: The folder, which must exist.
        size: Bytes.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._file: IO[bytes] | None = None

    @property
    def size(self) -> int:
        """The reserved bytes."""
        return os.fstat(self._file.fileno()).st_size if self._file else 0

    def allocate(self) -> None:
        """Reserve the space, unless it is reserved already.

        Raises:
            StoreUnusable: The disk does not have enough free space, or the folder is not writable.
        """
        if self._file:
            return
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".reserve.", buffering=0)  # noqa: SIM115 # kept
            write_durably(self._file.fileno(), bytes(self._size))
        except OSError as error:
            self.release()
            raise StoreUnusable(
                f"the store needs {self._size >> 10} KiB of disk space in {self._folder}: "
                f"{error.strerror or type(error).__name__}; nothing was submitted"
            ) from None

    def release(self) -> bool:
        """Release the space. Return True if some was reserved."""
        file, self._file = self._file, None
        if file:
            with contextlib.suppress(OSError):
                file.close()
        return file is not None


def write_durably(descriptor: int, data: bytes) -> None:
    """Write bytes to an open file, and wait until they are on the disk.

    Raises:
        OSError: They are not, or only in part.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)

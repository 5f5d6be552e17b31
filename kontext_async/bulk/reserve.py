"""Disk space reserved for the journal: if the disk is full, the IDs of paid tasks are written there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import IO, TYPE_CHECKING

from kontext_async.bulk.errors import JournalUnusable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Reserve"]

SIZE = 2 * 1024 * 1024
"""Bytes, enough for the steps of thousands of tasks in flight."""


class Reserve:
    """Real bytes beside the journal, given up when the space is needed, or when the journal is closed.

    They are a file without a name where the system has such files: it overwrites nothing, and ends with the process.

    Args:
        journal: The journal's file; None if the journal is not a file.
    """

    def __init__(self, journal: Path | None) -> None:
        self._folder = journal.parent if journal else None
        self._file: IO[bytes] | None = None

    @property
    def size(self) -> int:
        """The reserved bytes."""
        return os.fstat(self._file.fileno()).st_size if self._file else 0

    def fill(self) -> None:
        """Reserve the space.

        Raises:
            JournalUnusable: The disk does not have enough free space.
        """
        if self._folder is None:
            return
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".reserve.")  # noqa: SIM115 # `release` closes it
            self._file.write(bytes(SIZE))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self.release()
            raise JournalUnusable(
                f"the journal needs {SIZE >> 20} MiB of disk space in {self._folder}: {error.strerror or error}; "
                "nothing was submitted"
            ) from None

    def release(self) -> bool:
        """Release the space. Return True if some was reserved."""
        file, self._file = self._file, None
        if file:
            with contextlib.suppress(OSError):
                file.close()
        return file is not None

"""Disk space reserved for the journal: if the disk is full, the IDs of paid tasks are written there."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from kontext_async.bulk.errors import JournalUnusable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Reserve"]

SIZE = 2 * 1024 * 1024
"""Bytes, enough for the steps of thousands of tasks in flight."""


class Reserve:
    """A file of real bytes beside the journal, deleted when the space is needed, or when the journal is closed.

    Args:
        journal: The journal's file; None if the journal is not a file.
    """

    def __init__(self, journal: Path | None) -> None:
        self._path = journal.with_name(f"{journal.name}.reserve") if journal else None
        self._held = False

    def fill(self) -> None:
        """Reserve the space.

        Raises:
            JournalUnusable: The disk does not have enough free space.
        """
        if self._path is None:
            return
        try:
            with self._path.open("wb") as file:
                self._held = True
                file.write(bytes(SIZE))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.release()
            raise JournalUnusable(
                f"the journal needs {SIZE >> 20} MiB of disk space in {self._path.parent}: {error.strerror or error}; "
                "nothing was submitted"
            ) from None

    def release(self) -> bool:
        """Release the space. Return True if some was reserved."""
        held, self._held = self._held, False
        if held and self._path:
            with contextlib.suppress(OSError):
                self._path.unlink()
        return held

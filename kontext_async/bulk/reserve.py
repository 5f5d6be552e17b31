"""Room on the disk that is kept free for the journal: when the disk is full, the ids of paid tasks go there."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from kontext_async.bulk.errors import JournalUnusable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Reserve"]

SIZE = 2 * 1024 * 1024
"""Bytes: room for the steps of thousands of tasks that are in flight."""


class Reserve:
    """A file of real bytes beside the journal, removed when it is needed, or when the journal is closed.

    Args:
        journal: The journal's file, None where it is no file.
    """

    def __init__(self, journal: Path | None) -> None:
        self._path = journal.with_name(f"{journal.name}.reserve") if journal else None
        self._held = False

    def fill(self) -> None:
        """Take the room.

        Raises:
            JournalUnusable: There is not so much left on the disk.
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
                f"the journal needs {SIZE >> 20} MiB of room in {self._path.parent}: {error.strerror or error}"
            ) from None

    def release(self) -> bool:
        """Give the room back; says whether there was any."""
        held, self._held = self._held, False
        if held and self._path:
            with contextlib.suppress(OSError):
                self._path.unlink()
        return held

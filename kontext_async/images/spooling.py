"""Keeps what can be read but once: a little of it in memory, all else in a temporary file."""

from __future__ import annotations

import tempfile
from typing import IO, TYPE_CHECKING

from kontext_async.images.contents import FileContent, MemoryContent

if TYPE_CHECKING:
    from kontext_async.images.contents import Content

__all__ = ["SPOOL_AT", "Spool", "TooLarge"]

SPOOL_AT = 256 * 1024
"""Bytes that are kept in memory: 32 requests at once then take 8 MiB for each of their images."""


class TooLarge(ValueError):
    """More came than an image may have."""


class Spool:
    """Takes the bytes of one image. `finish` or `close` must be called in the end; a disk may block.

    Args:
        limit: How many bytes are taken, at most.
    """

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._buffer = bytearray()
        self._file: IO[bytes] | None = None

    @property
    def room(self) -> int:
        """Bytes that are worth asking for: one more than may still come."""
        return self._limit - self.size + 1

    @property
    def on_disk(self) -> bool:
        """Whether it has outgrown the memory."""
        return self._file is not None

    def fits_memory(self, data: bytes) -> bool:
        """Whether taking `data` touches no disk."""
        return len(self._buffer) + len(data) <= SPOOL_AT

    def write(self, data: bytes) -> int:
        """Take more bytes.

        Raises:
            TypeError: They are no bytes.
            TooLarge: That is more than the limit.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"reading it must give bytes, not {type(data).__name__}")
        self.size += len(data)
        if self.size > self._limit:
            raise TooLarge
        if not self.fits_memory(data):
            self.to_disk()
        self._buffer += data
        return len(data)

    def finish(self) -> Content:
        """What was taken, to be read from now on."""
        if self._file is None:
            return MemoryContent(bytes(self._buffer))
        if self._buffer:
            self.to_disk()
        file, self._file = self._file, None
        return FileContent(file, self.size)

    def close(self) -> None:
        """Forget what was taken, unless `finish` gave it away."""
        self._buffer.clear()
        if self._file:
            self._file.close()
            self._file = None

    def to_disk(self) -> None:
        """Write to the disk what is still in memory."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="kontext_async-")  # noqa: SIM115 # it lives as long as the spool
        self._file.write(self._buffer)
        self._buffer.clear()

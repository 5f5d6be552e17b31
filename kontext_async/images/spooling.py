"""A buffer for a source that can be read only once: in memory while it is small, then in a temporary file."""

from __future__ import annotations

import tempfile
from typing import IO, TYPE_CHECKING

from kontext_async.images.contents import FileContent, MemoryContent

if TYPE_CHECKING:
    from kontext_async.images.contents import Content

__all__ = ["SPOOL_AT", "Spool", "TooLarge"]

NOT_BYTES = {
    str: "; open the file in binary mode: open(path, 'rb')",
    type(None): "; a file in non-blocking mode may have none yet",
}
"""Remarks on what reading returned instead of bytes."""

SPOOL_AT = 256 * 1024
"""Bytes of an image that are kept in memory. 32 requests with one image each then need 8 MiB."""


class TooLarge(ValueError):
    """The source has more bytes than allowed."""


class Spool:
    """Collects the bytes of one image. Call `finish` or `close` at the end. Writing to the disk may block.

    Args:
        limit: The most bytes to accept.
    """

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._buffer = bytearray()
        self._file: IO[bytes] | None = None

    @property
    def room(self) -> int:
        """The number of bytes worth reading: one more than is still allowed."""
        return self._limit - self.size + 1

    @property
    def on_disk(self) -> bool:
        """True if the bytes are in a temporary file."""
        return self._file is not None

    def fits_memory(self, data: bytes) -> bool:
        """Return True if writing `data` does not touch the disk."""
        return len(self._buffer) + len(data) <= SPOOL_AT

    def write(self, data: bytes) -> int:
        """Append bytes.

        Raises:
            TypeError: `data` is not bytes.
            TooLarge: The image is now larger than the limit.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            remark = NOT_BYTES.get(type(data), "")
            raise TypeError(f"reading it must return bytes, not {type(data).__name__}{remark}")
        self.size += len(data)
        if self.size > self._limit:
            raise TooLarge
        if not self.fits_memory(data):
            self.flush()
        self._buffer += data
        return len(data)

    def finish(self) -> Content:
        """Return the collected bytes as content to read. The caller closes it."""
        if self._file is None:
            return MemoryContent(bytes(self._buffer))
        if self._buffer:
            self.flush()
        file, self._file = self._file, None
        return FileContent(file, self.size)

    def close(self) -> None:
        """Discard the collected bytes, unless `finish` returned them."""
        self._buffer.clear()
        if self._file:
            self._file.close()
            self._file = None

    def flush(self) -> None:
        """Write the bytes in memory to the temporary file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="kontext_async-")  # noqa: SIM115 # closed by `close`, or by the content that `finish` returns
        self._file.write(self._buffer)
        self._buffer.clear()

"""The bytes of a loaded image while it is sent: in memory, in a text, or in a file. Reading may block."""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from typing import IO, TYPE_CHECKING, Any

from attrs import field, frozen

from kontext_async.images.data_uris import is_data_uri
from kontext_async.images.sources import refuse
from kontext_async.redaction import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kontext_async.images.data_uris import Base64Payload

__all__ = ["READ_AHEAD", "Content", "DataUriContent", "FileContent", "LoadedImage", "MemoryContent", "MonitoredFile"]

PIECE = 240 * 1024
"""Bytes that are read at once for the digest; divisible by three."""

READ_AHEAD = 3
"""Chunks of a file that are read at once while it is sent: 192 KiB of base64 for each body in flight."""


class SourceChanged(Exception):
    """A source changed after it was loaded. Internal: becomes an `InvalidRequest`."""


class Content(ABC):
    """The bytes of one image.

    Attributes:
        size: The number of bytes.
        on_disk: True if reading may block on a disk.
        immutable: True if the bytes cannot change while they are sent.
        ahead: The number of chunks that are read at once.
    """

    size: int
    on_disk = False
    immutable = True
    ahead = 1

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """Return `length` bytes at `offset`."""

    def verify_before_read(self) -> None:  # noqa: B027 # most content cannot change
        """Raise `SourceChanged` if the source visibly changed since it was loaded."""

    def verify_after_read(self) -> None:  # noqa: B027 # as above
        """Raise `SourceChanged` if the source visibly changed while it was read."""

    def close(self) -> None:  # noqa: B027 # most content has nothing to release
        """Release the source. May be called from any thread, during a read, and more than once."""

    def chunks(self, length: int) -> Iterator[bytes | memoryview]:
        """Yield all bytes from the start, in chunks of `length`."""
        for start in range(0, self.size, length):
            yield self.read_at(start, min(length, self.size - start))


class MemoryContent(Content):
    """Bytes in the user's memory, which are not copied.

    Their buffer cannot be resized meanwhile, but it can be overwritten, unless it is `bytes`.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self.size = self._view.nbytes
        self.immutable = isinstance(self._view.obj, bytes)

    def read_at(self, offset: int, length: int) -> memoryview:
        """See `Content.read_at`."""
        return self._view[offset : offset + length]

    def close(self) -> None:
        """See `Content.close`. The buffer can be resized again."""
        self._view.release()


class DataUriContent(Content):
    """The payload of a data URI, decoded as it is read."""

    def __init__(self, payload: Base64Payload) -> None:
        self._payload = payload
        self.size = payload.size

    def read_at(self, offset: int, length: int) -> bytes:
        """See `Content.read_at`."""
        return self._payload.read_at(offset, length)


class FileContent(Content):
    """An open temporary file that no longer changes. One thread reads at a time."""

    on_disk = True
    ahead = READ_AHEAD

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.size = size
        self._file = file
        self._reading = threading.Lock()
        self._closing = False

    def read_at(self, offset: int, length: int) -> bytes:
        """See `Content.read_at`."""
        try:
            with self._reading:
                self._file.seek(offset)
                data = _read_exactly(self._file, length)
        finally:
            if self._closing:
                self.close()
        if len(data) < length:
            raise SourceChanged("it became shorter while it was being sent")
        return data

    def close(self) -> None:
        """See `Content.close`."""
        self._closing = True
        if self._reading.acquire(blocking=False):  # otherwise the reader closes it: no wait for a disk
            try:
                self._file.close()
            finally:
                self._reading.release()


class MonitoredFile(FileContent):
    """A file that the user passed as a path. It is opened once, and compared with the file at the path."""

    immutable = False

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._path = path
        self._opened_as = os.fstat(file.fileno())
        super().__init__(file, self._opened_as.st_size)

    def verify_before_read(self) -> None:
        """See `Content.verify_before_read`."""
        try:
            now = self._path.stat()
        except FileNotFoundError:
            raise SourceChanged("it has vanished since it was checked") from None
        if _identify(now) != _identify(self._opened_as):
            raise SourceChanged("it has changed since it was checked")

    def verify_after_read(self) -> None:
        """See `Content.verify_after_read`."""
        if _identify(os.fstat(self._file.fileno())) != _identify(self._opened_as):
            raise SourceChanged("it changed while it was being sent")


def _read_exactly(file: IO[bytes], length: int) -> bytes:
    """Read `length` bytes, or fewer at the end. One read of a network file system may return fewer too."""
    data = file.read(length)
    while len(data) < length and (more := file.read(length - len(data))):
        data += more
    return data


def _identify(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@frozen(kw_only=True)
class LoadedImage:
    """An input image that is ready to be sent, as a URL or as bytes. Images with equal bytes are equal.

    Attributes:
        url: The URL from which the gateway downloads the image; None if the bytes are sent.
        digest: The SHA-256 of the bytes or, for a URL, of its text, in hexadecimal.
        content: The bytes; None if a URL is sent.
        name: The field name, for errors.
        source: The user's source, for errors.
    """

    url: str | None = field(default=None, repr=safe_repr)
    digest: str
    content: Content | None = field(default=None, eq=False, repr=False)
    name: str = field(default="input_images", eq=False)
    source: Any = field(default=None, eq=False, repr=False)

    @classmethod
    def of_url(cls, url: str, **about: Any) -> LoadedImage:
        """Return the image for a URL, which the gateway downloads itself."""
        return cls(url=url, digest=hashlib.sha256(url.encode()).hexdigest(), **about)

    @classmethod
    def of_bytes(cls, data: bytes | bytearray | memoryview, **about: Any) -> LoadedImage:
        """Return the image for bytes in memory."""
        return cls.of_content(MemoryContent(data), **about)

    @classmethod
    def of_content(cls, content: Content, **about: Any) -> LoadedImage:
        """Return the image for content, which is read once in full for its digest."""
        digest = hashlib.sha256()
        for chunk in content.chunks(PIECE):
            digest.update(chunk)
        return cls(digest=digest.hexdigest(), content=content, **about)

    @property
    def size(self) -> int:
        """The number of bytes to send, before base64; 0 for a URL."""
        return self.content.size if self.content else 0

    @property
    def on_disk(self) -> bool:
        """True if reading the bytes may block on a disk."""
        return self.content is not None and self.content.on_disk

    @property
    def is_repeatable(self) -> bool:
        """True if loading the source again gives the same bytes, or fails: not for a pipe, nor for a reader."""
        if self.url is not None or isinstance(self.content, MonitoredFile) or isinstance(self.source, bytes):
            return True
        return isinstance(self.source, str) and is_data_uri(self.source)

    def chunks(self, length: int) -> Iterator[bytes | memoryview]:
        """Yield the bytes in chunks of `length`. Each call starts again at the first byte.

        The bytes of a source that might change are compared with the digest at the end.

        Raises:
            InvalidRequest: The source changed or vanished since it was loaded, or is no longer readable.
        """
        if self.content is None:
            return
        try:
            yield from self._verified_chunks(self.content, length)
        except (SourceChanged, OSError, ValueError) as error:
            rule = str(error) if isinstance(error, SourceChanged) else f"it must be readable while it is sent: {error}"
            text = f"{rule}; the gateway did not receive the whole request, and nothing is paid"
            raise refuse(self.name, self.source, text) from error

    def _verified_chunks(self, content: Content, length: int) -> Iterator[bytes | memoryview]:
        if content.immutable and not content.on_disk:
            yield from content.chunks(length)
            return
        digest = hashlib.sha256()
        content.verify_before_read()
        for block in content.chunks(length * content.ahead):
            fixed = bytes(block)  # does not copy `bytes`
            if not content.immutable:
                digest.update(fixed)
            chunks = _split(fixed, length)
            del block, fixed  # so that chunks that wait to be sent are in memory once
            yield from chunks
        content.verify_after_read()
        if not content.immutable and digest.hexdigest() != self.digest:
            raise SourceChanged("it changed while it was being sent")

    def read(self) -> bytes:
        """Return all bytes."""
        return b"".join(self.chunks(PIECE))

    def close(self) -> None:
        """Release the source: its open or temporary file."""
        if self.content:
            self.content.close()


def _split(block: bytes, length: int) -> Iterator[bytes | memoryview]:
    """Yield a block in chunks, and keep no reference to the chunks that were yielded."""
    if len(block) <= length:
        yield block
        return
    view = memoryview(block)
    chunks = [view[start : start + length] for start in range(0, len(block), length)]
    chunks.reverse()
    del view, block
    while chunks:
        yield chunks.pop()

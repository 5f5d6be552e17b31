"""Where the bytes of an input image are while it is sent: in memory, in a text, or in a file. Reading may block."""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from typing import IO, TYPE_CHECKING, Any

from attrs import field, frozen

from kontext_async.base_errors import InvalidRequest
from kontext_async.redaction import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kontext_async.images.data_uris import Base64Payload

__all__ = ["READ_AHEAD", "Content", "DataUriContent", "FileContent", "LoadedImage", "MemoryContent", "MonitoredFile"]

PIECE = 240 * 1024
"""Bytes that are read at once where nothing but the digest is made of them; divisible by three."""

READ_AHEAD = 3
"""Chunks of a file that are read at once, while it is sent: 192 KiB of base64 for each body on the way."""


class SourceChanged(Exception):
    """A source is not what it was when it was checked. Internal: becomes an `InvalidRequest`."""


class Content(ABC):
    """The bytes of one image.

    Attributes:
        size: How many there are.
        on_disk: Whether reading them may block.
        settled: Whether they can change by no means while they are sent.
        ahead: How many chunks are read at once.
    """

    size: int
    on_disk = False
    settled = True
    ahead = 1

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """So many bytes at an offset."""

    def begin(self) -> None:  # noqa: B027 # most cannot change
        """Make sure that this is still what was checked, as far as that is seen from outside."""

    def end(self) -> None:  # noqa: B027 # as above
        """The same, after all of it was read."""

    def close(self) -> None:  # noqa: B027 # most hold nothing open
        """Give back what it holds. May be called from any thread, during a read, and more than once."""

    def chunks(self, length: int) -> Iterator[bytes | memoryview]:
        """All bytes from the start, in chunks of `length`."""
        for start in range(0, self.size, length):
            yield self.read_at(start, min(length, self.size - start))


class MemoryContent(Content):
    """Bytes that are in memory already, and are not copied.

    What holds them cannot be resized meanwhile; it can be overwritten unless they are `bytes`.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self.size = self._view.nbytes
        self.settled = isinstance(self._view.obj, bytes)

    def read_at(self, offset: int, length: int) -> memoryview:
        """See `Content.read_at`."""
        return self._view[offset : offset + length]

    def close(self) -> None:
        """See `Content.close`. What holds the bytes can be resized again."""
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
    """An open file, from which one thread reads at a time. A spooled one changes no more."""

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
                data = self._file.read(length)
        finally:
            if self._closing:
                self.close()
        if len(data) < length:
            raise SourceChanged("it became shorter while it was being sent")
        return data

    def close(self) -> None:
        """See `Content.close`."""
        self._closing = True
        if self._reading.acquire(blocking=False):  # or else the reader closes it, so that nobody waits for a disk
            try:
                self._file.close()
            finally:
                self._reading.release()


class MonitoredFile(FileContent):
    """A file of the user's, by its path: opened once, and compared with what the path leads to."""

    settled = False

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._path = path
        self._first = os.fstat(file.fileno())
        super().__init__(file, self._first.st_size)

    def begin(self) -> None:
        """See `Content.begin`."""
        try:
            now = self._path.stat()
        except FileNotFoundError:
            raise SourceChanged("it has vanished since it was checked") from None
        if _identity(now) != _identity(self._first):
            raise SourceChanged("it has changed since it was checked")

    def end(self) -> None:
        """See `Content.end`."""
        if _identity(os.fstat(self._file.fileno())) != _identity(self._first):
            raise SourceChanged("it changed while it was being sent")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@frozen(kw_only=True)
class LoadedImage:
    """An input image, ready to be sent: either a URL, or the bytes themselves. Equal are those with equal bytes.

    Attributes:
        url: Where the gateway shall fetch the image, None where the bytes are sent.
        digest: The SHA-256 of the bytes or, for a URL, of its text, in hexadecimal.
        content: Where the bytes are, None where a URL is sent.
        name: The request's field, for errors.
        source: What the user passed, for errors.
    """

    url: str | None = field(default=None, repr=safe_repr)
    digest: str
    content: Content | None = field(default=None, eq=False, repr=False)
    name: str = field(default="input_images", eq=False)
    source: Any = field(default=None, eq=False, repr=False)

    @classmethod
    def of_url(cls, url: str, **about: Any) -> LoadedImage:
        """An image that the gateway fetches itself."""
        return cls(url=url, digest=hashlib.sha256(url.encode()).hexdigest(), **about)

    @classmethod
    def of_bytes(cls, data: bytes | bytearray | memoryview, **about: Any) -> LoadedImage:
        """An image that is in memory."""
        return cls.of_content(MemoryContent(data), **about)

    @classmethod
    def of_content(cls, content: Content, **about: Any) -> LoadedImage:
        """An image of which nothing but the digest is missing: it is read through once."""
        digest = hashlib.sha256()
        for chunk in content.chunks(PIECE):
            digest.update(chunk)
        return cls(digest=digest.hexdigest(), content=content, **about)

    @property
    def size(self) -> int:
        """How many bytes are sent, before base64."""
        return self.content.size if self.content else 0

    @property
    def on_disk(self) -> bool:
        """Whether reading it may block."""
        return self.content is not None and self.content.on_disk

    def chunks(self, length: int) -> Iterator[bytes | memoryview]:
        """The bytes from the start, in chunks of `length`; they can be read again from the start.

        What might change meanwhile is compared with the digest: it ends well only if what was read is what was checked.

        Raises:
            InvalidRequest: The source has changed or vanished, or cannot be read any more.
        """
        if self.content is None:
            return
        try:
            yield from self._checked(self.content, length)
        except (SourceChanged, OSError, ValueError) as error:
            rule = str(error) if isinstance(error, SourceChanged) else f"it must be readable while it is sent: {error}"
            text = f"{rule}; the gateway did not get all of the request, and nothing is paid"
            raise InvalidRequest(self.name, self.source, text) from error

    def _checked(self, content: Content, length: int) -> Iterator[bytes | memoryview]:
        if content.settled and not content.on_disk:
            yield from content.chunks(length)
            return
        digest = hashlib.sha256()
        content.begin()
        for block in content.chunks(length * content.ahead):
            fixed = bytes(block)  # no copy is made of bytes
            if not content.settled:
                digest.update(fixed)
            chunks = _cut(fixed, length)
            del block, fixed  # what waits to be sent is kept once
            yield from chunks
        content.end()
        if not content.settled and digest.hexdigest() != self.digest:
            raise SourceChanged("it changed while it was being sent")

    def read(self) -> bytes:
        """All bytes at once."""
        return b"".join(self.chunks(PIECE))

    def close(self) -> None:
        """Give back what it holds: open files, temporary ones."""
        if self.content:
            self.content.close()


def _cut(block: bytes, length: int) -> Iterator[bytes | memoryview]:
    """A block in chunks; of the last one, nothing is kept here."""
    if len(block) <= length:
        yield block
        return
    view = memoryview(block)
    chunks = [view[start : start + length] for start in range(0, len(block), length)]
    chunks.reverse()
    del view, block
    while chunks:
        yield chunks.pop()

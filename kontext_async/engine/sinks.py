"""Sinks for the bytes of a download: memory, or a temporary file that is renamed at the end."""

from __future__ import annotations

import io
import os
import secrets
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio.to_thread

from kontext_async.engine.image_paths import refuse_special_file, temporary_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["FileSink", "MemorySink", "Sink"]

HEAD = 64
TAIL = 4096
FLUSH_AT = 128 * 1024
"""Bytes to collect before a thread writes them. More would save few visits to a thread, and take memory for each of the
concurrent downloads, on top of the buffers of asyncio and aiohttp."""


class Sink(ABC):
    """Takes the bytes of one image.

    Attributes:
        size: Bytes taken so far.
        head: The first bytes: at least 64, or all of them.
        tail: The last 4 KiB.
        total: The size of the image, if its server announced it.
        keeps_bytes: False if the bytes are passed on, and cannot be discarded or inspected.
    """

    keeps_bytes = True

    def __init__(self) -> None:
        self.size = 0
        self.total: int | None = None
        self.head = b""
        self.tail = b""

    async def write(self, chunk: bytes) -> None:
        """Append bytes."""
        if len(self.head) < HEAD:
            self.head += chunk[:HEAD]
        self.tail = chunk[-TAIL:] if len(chunk) >= TAIL else (self.tail + chunk)[-TAIL:]
        self.size += len(chunk)
        await self._store(chunk)

    async def restart(self) -> None:
        """Discard all bytes."""
        self.size = 0
        self.head = self.tail = b""
        await self._clear()

    @abstractmethod
    async def inspect(self, look: Callable[[bytes], T]) -> T:
        """Call `look` with all bytes, in a thread, and return what it returns."""

    @abstractmethod
    async def _store(self, chunk: bytes) -> None: ...

    @abstractmethod
    async def _clear(self) -> None: ...


class MemorySink(Sink):
    """Collects an image in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = io.BytesIO()

    @property
    def data(self) -> bytes:
        """The image: the buffer's own bytes, so that it is in memory once."""
        return self._buffer.getvalue()

    async def inspect(self, look: Callable[[bytes], T]) -> T:
        """See `Sink.inspect`."""
        return await anyio.to_thread.run_sync(look, self.data)

    async def _store(self, chunk: bytes) -> None:
        self._buffer.write(chunk)

    async def _clear(self) -> None:
        self._buffer = io.BytesIO()


class FileSink(Sink):
    """Writes an image into a temporary file, in threads. Creates `directory` if it is missing.

    `writers` bounds the threads that write at once. With `durable`, the file is flushed to disk before it takes its
    name. The user must call `commit` or `discard` at the end.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        durable: bool = False,
        writers: anyio.CapacityLimiter | None = None,
    ) -> None:
        super().__init__()
        self._path = directory / temporary_name(name, secrets.token_hex(4))
        self._durable = durable
        self._writers = writers
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._file: io.FileIO | None = None
        self._in_thread = threading.Lock()  # a cancelled caller's thread may still write: its file stays open
        self._discarded = False

    async def inspect(self, look: Callable[[bytes], T]) -> T:
        """See `Sink.inspect`."""
        return await anyio.to_thread.run_sync(self._inspect, look, limiter=self._writers)

    async def commit(self, target: Path) -> None:
        """Write the rest, and rename the file to `target`. A symbolic link there is replaced, not followed.

        Raises:
            OSError: The file cannot be written, or `target` is a device, a named pipe, a socket or a directory.
        """
        await anyio.to_thread.run_sync(self._commit, target, limiter=self._writers)

    async def discard(self) -> None:
        """Remove the temporary file, as far as the file system permits it."""
        await anyio.to_thread.run_sync(self._discard)

    async def _store(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        if self._waiting >= FLUSH_AT:
            await anyio.to_thread.run_sync(self._flush, limiter=self._writers)

    async def _clear(self) -> None:
        self._discard_chunks()
        if self._file:
            await anyio.to_thread.run_sync(self._truncate, self._file, limiter=self._writers)

    def _flush(self) -> None:
        with self._in_thread:
            self._write()

    def _write(self) -> None:
        if self._discarded:
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("x+b", buffering=0)
        for chunk in self._chunks:
            _write_all(self._file, chunk)
        self._discard_chunks()

    def _discard_chunks(self) -> None:
        self._chunks.clear()
        self._waiting = 0

    def _truncate(self, file: io.FileIO) -> None:
        with self._in_thread:
            file.seek(0)
            file.truncate()

    def _inspect(self, look: Callable[[bytes], T]) -> T:
        with self._in_thread:
            self._write()
            if self._file is None or self._discarded:
                return look(b"")
            self._file.seek(0)
            return look(self._file.readall())  # this leaves the position at the end

    def _commit(self, target: Path) -> None:
        with self._in_thread:
            refuse_special_file(target)
            self._write()
            if self._file:
                if self._durable:
                    os.fsync(self._file.fileno())
                self._file.close()
            os.replace(self._path, target)  # noqa: PTH105 # this name says that it overwrites

    def _discard(self) -> None:
        with self._in_thread:
            self._discarded = True
            if self._file:
                with suppress(OSError):  # closing may report an earlier failure to write
                    self._file.close()
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)


def _write_all(file: io.FileIO, data: bytes) -> None:
    """Write all of `data`: a raw file may take less than it is given."""
    written = file.write(data) or 0
    while written < len(data):
        written += file.write(memoryview(data)[written:]) or 0

"""Where a picture goes while it is fetched: into memory, or into a file beside its target, renamed at the end."""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, BinaryIO

import anyio.to_thread

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileSink", "MemorySink", "Sink"]

HEAD = 12
TAIL = 4096
FLUSH_AT = 256 * 1024
"""Bytes that are collected before a thread writes them: most pictures need one write."""


class Sink(ABC):
    """Takes the bytes of one picture.

    Attributes:
        size: Bytes taken so far.
        head: The first of them, at least 12 when there are so many.
        tail: The last 4 KiB of them.
    """

    def __init__(self) -> None:
        self.size = 0
        self.head = b""
        self.tail = b""

    async def write(self, chunk: bytes) -> None:
        """Take more bytes."""
        if len(self.head) < HEAD:
            self.head += chunk[:HEAD]
        self.tail = chunk[-TAIL:] if len(chunk) >= TAIL else (self.tail + chunk)[-TAIL:]
        self.size += len(chunk)
        await self._store(chunk)

    async def restart(self) -> None:
        """Forget what was taken."""
        self.size = 0
        self.head = self.tail = b""
        await self._clear()

    @abstractmethod
    async def _store(self, chunk: bytes) -> None: ...

    @abstractmethod
    async def _clear(self) -> None: ...


class MemorySink(Sink):
    """Collects a picture in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray()

    async def _store(self, chunk: bytes) -> None:
        self.data += chunk

    async def _clear(self) -> None:
        self.data.clear()


class FileSink(Sink):
    """Writes a picture into a temporary file, off the loop. `directory` is made when it is missing.

    `commit` or `discard` must be called in the end.
    """

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__()
        self._path = directory / f".{name[:80]}.{secrets.token_hex(4)}.part"
        self._buffer = bytearray()
        self._file: BinaryIO | None = None

    async def commit(self, target: Path) -> None:
        """Write what is left, and put the file in the place of `target`."""
        await anyio.to_thread.run_sync(self._commit, target)

    async def discard(self) -> None:
        """Remove the temporary file."""
        await anyio.to_thread.run_sync(self._discard)

    async def _store(self, chunk: bytes) -> None:
        self._buffer += chunk
        if len(self._buffer) >= FLUSH_AT:
            await anyio.to_thread.run_sync(self._flush)

    async def _clear(self) -> None:
        self._buffer.clear()
        if self._file:
            await anyio.to_thread.run_sync(self._truncate, self._file)

    def _flush(self) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        self._file.write(self._buffer)
        self._buffer.clear()

    def _truncate(self, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()

    def _commit(self, target: Path) -> None:
        self._flush()
        if self._file:
            self._file.close()
        os.replace(self._path, target)  # noqa: PTH105 # Path.replace is the same, and this says that it overwrites

    def _discard(self) -> None:
        if self._file:
            self._file.close()
            self._path.unlink(missing_ok=True)

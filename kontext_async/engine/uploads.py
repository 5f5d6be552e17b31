"""What creates carry: their input images while they are needed, and their bodies on the way.

A body is encoded while it is sent, a piece at a time. Disks are read in a thread, a few pieces ahead, and between two
pieces the loop gets its turn: a fast socket never makes aiohttp wait, and would hold it to the end of the body.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio.to_thread
from attrs import define, field

from kontext_async import images

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from typing import Any, Self

    from kontext_async.images import LoadedImage
    from kontext_async.protocol import CreateBody
    from kontext_async.settings import Limits

__all__ = ["Cargo", "Upload", "Uploads"]

LOADERS, READERS = 8, 4
"""Threads that open sources, and that read what is being sent: more take memory, and make no disk faster."""


@define(eq=False)
class Cargo:
    """The input images of one request, opened. They are closed when nobody carries them any more.

    Attributes:
        images: In the order of the request.
    """

    images: list[LoadedImage] = field(factory=list, init=False)
    _when_dropped: Callable[[], object] | None = None
    _carriers: int = field(default=1, init=False)

    def take(self, image: LoadedImage) -> None:
        """Add an image; one that comes too late, out of a thread, is closed again."""
        self.images.append(image)
        if not self._carriers:
            image.close()

    def load(self, source: Any, name: str, max_bytes: int) -> None:
        """Open a source, and add it. Blocks."""
        self.take(images.load(source, name, max_bytes))

    def carry(self) -> None:
        """One more needs them."""
        self._carriers += 1

    def drop(self, _: object = None) -> None:
        """One fewer needs them."""
        self._carriers -= 1
        if self._carriers:
            return
        for image in tuple(self.images):
            image.close()
        if self._when_dropped:
            self._when_dropped()


class Uploads:
    """Bounds how many requests that carry image bytes are on their way at once."""

    def __init__(self, limits: Limits) -> None:
        self._max_bytes = limits.max_image_bytes
        self._places = asyncio.Semaphore(limits.max_uploads)
        self._loaders = anyio.CapacityLimiter(LOADERS)
        self._readers = anyio.CapacityLimiter(READERS)
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def carrying(self, sources: Sequence[Any]) -> AsyncIterator[Cargo]:
        """A request's images, for as long as they are needed. URLs alone need no place.

        Raises:
            InvalidRequest: One of them cannot be used.
        """
        inline = any(not images.is_url(source) for source in sources)
        if inline:
            await self._places.acquire()
        cargo = Cargo(self._places.release if inline else None)
        try:
            for index, source in enumerate(sources):
                await self._load(cargo, source, f"input_images[{index}]")
            yield cargo
        finally:
            cargo.drop()

    async def _load(self, cargo: Cargo, source: Any, name: str) -> None:
        if isinstance(source, images.SingleUse):
            cargo.take(await images.load_reader(source, name, self._max_bytes))
        elif images.is_url(source):
            cargo.load(source, name, self._max_bytes)
        else:
            async with self._turn_of(source):
                await anyio.to_thread.run_sync(
                    cargo.load, source, name, self._max_bytes, abandon_on_cancel=True, limiter=self._loaders
                )

    def sending(self, body: CreateBody) -> Upload:
        """One sending of a body, from its start."""
        return Upload(body, self._readers)

    def _turn_of(self, source: Any) -> asyncio.Lock:
        """Files and images of Pillow's bear one reader at a time, and one may be part of many requests."""
        lock = self._turns.get(id(source))
        if lock is None:
            lock = self._turns[id(source)] = asyncio.Lock()
        return lock


class Upload:
    """One sending of a body: an async iterator, and what is known of it afterwards.

    Attributes:
        handed_over: Whether the last byte has been handed over.
        failure: Why the body could not be produced to its end, if it could not.
    """

    def __init__(self, body: CreateBody, readers: anyio.CapacityLimiter | None = None) -> None:
        self.handed_over = False
        self.failure: Exception | None = None
        self._readers = readers
        self._remaining = self._length = body.length
        self._parts = iter(body.parts)
        self._ready: Iterator[bytes] = iter(())
        self._on_disk: Iterator[bytes] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._remaining != self._length:
            await asyncio.sleep(0)
        try:
            piece = next(self._ready, None)
            if piece is None:
                piece = await self._more()
        except Exception as error:
            self.failure = error
            raise
        if piece is None:
            raise StopAsyncIteration
        self._remaining -= len(piece)
        self.handed_over = not self._remaining  # before it is given away: once it is, it may be on its way
        return piece

    async def _more(self) -> bytes | None:
        """The first piece of what comes next, which then is ready; None at the end."""
        while True:
            if self._on_disk is not None:
                self._ready = iter(await self._read(self._on_disk))
                if piece := next(self._ready, None):
                    return piece
            part = next(self._parts, None)
            if part is None:
                return None
            pieces = part.pieces()
            self._on_disk = pieces if part.on_disk else None
            if not part.on_disk:
                self._ready = pieces
                if piece := next(pieces, None):
                    return piece

    async def _read(self, pieces: Iterator[bytes]) -> list[bytes]:
        return await anyio.to_thread.run_sync(_first, pieces, abandon_on_cancel=True, limiter=self._readers)


def _first(pieces: Iterator[bytes]) -> list[bytes]:
    return list(islice(pieces, images.AHEAD))

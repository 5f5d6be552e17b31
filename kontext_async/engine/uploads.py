"""Input images while they are needed, and request bodies on their way.

A body is encoded while it is sent, a piece at a time. A thread reads pieces from disk, a few ahead, and the loop gets
its turn between two pieces: a fast socket never makes aiohttp wait, and would otherwise block the loop to the end of
the body.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio.to_thread
from attrs import define, field

from kontext_async import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Any, Self

    from kontext_async.images import LoadedImage
    from kontext_async.protocol import CreateBody
    from kontext_async.protocol.requests import ImagePart, TextPart
    from kontext_async.settings import Limits

__all__ = ["RequestImages", "Upload", "UploadLimiter"]

NOTHING: Iterator[bytes] = iter(())
"""An iterator at its end: all uploads share it until their first piece is ready."""

LOADERS, READERS = 8, 4
"""Threads that open sources, and threads that read for uploads. More take memory, and make no disk faster."""


@define(eq=False)
class RequestImages:
    """The opened input images of one request. They are closed when their last user releases them.

    Attributes:
        images: The images, in the order of the request.
    """

    images: list[LoadedImage] = field(factory=list, init=False)
    _on_close: Callable[[], object] | None = None
    _users: int = field(default=1, init=False)

    def add(self, image: LoadedImage) -> None:
        """Add an image. One that a thread opened too late is closed again."""
        self.images.append(image)
        if not self._users:
            image.close()

    def load(self, source: Any, name: str, max_bytes: int) -> None:
        """Open a source and add it. Blocks."""
        self.add(images.load(source, name, max_bytes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Add one user."""
        self._users += 1

    def release(self, _: object = None) -> None:
        """Remove one user; close the images after the last one."""
        self._users -= 1
        if self._users:
            return
        for image in tuple(self.images):
            image.close()
        if self._on_close:
            self._on_close()


class UploadLimiter:
    """Bounds the requests that carry image bytes, and opens their images."""

    def __init__(self, limits: Limits) -> None:
        self._max_bytes = limits.max_image_bytes
        self._places = asyncio.Semaphore(limits.max_uploads)
        self._loaders = anyio.CapacityLimiter(LOADERS)
        self._readers = anyio.CapacityLimiter(READERS)
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._no_images = RequestImages()

    async def open_images(self, sources: Sequence[Any]) -> RequestImages:
        """Open a request's images: a context that releases them. A request with URLs alone needs no place.

        Raises:
            InvalidRequest: A source is unusable.
        """
        if not sources:
            self._no_images.acquire()
            return self._no_images
        inline = any(not images.is_url(source) for source in sources)
        if inline:
            await self._places.acquire()
        opened = RequestImages(self._places.release if inline else None)
        try:
            for index, source in enumerate(sources):
                await self._load(opened, source, f"input_images[{index}]")
        except BaseException:
            opened.release()
            raise
        return opened

    async def _load(self, opened: RequestImages, source: Any, name: str) -> None:
        if isinstance(source, images.OneShotReader):
            opened.add(await images.load_reader(source, name, self._max_bytes))
        elif images.is_url(source):
            opened.load(source, name, self._max_bytes)
        else:
            async with self._lock_for(source):
                await anyio.to_thread.run_sync(
                    opened.load, source, name, self._max_bytes, abandon_on_cancel=True, limiter=self._loaders
                )

    def upload(self, body: CreateBody, on_start: Callable[[], object] | None = None) -> Upload:
        """Prepare to send a body once, from its start; `on_start` is called when its first piece is requested."""
        return Upload(body, self._readers, on_start)

    def _lock_for(self, source: Any) -> asyncio.Lock:
        """Return the lock of a source: files and Pillow images allow one reader, and may be part of many requests."""
        lock = self._locks.get(id(source))
        if lock is None:
            lock = self._locks[id(source)] = asyncio.Lock()
        return lock


class Upload:
    """One sending of a body: an async iterator of its pieces, and a record of how far it came.

    Attributes:
        length: The size of the body, in bytes.
        whole: The body, if it is sent as one piece: `hand_over` is then called instead of iterating.
        handed_over: True once the last byte has been handed over.
        failure: The error that kept the body from being produced to its end, if one did.
    """

    __slots__ = (
        *("_body", "_on_disk", "_on_start", "_parts", "_readers", "_ready", "_remaining"),
        *("failure", "handed_over", "length", "whole"),
    )

    def __init__(
        self,
        body: CreateBody,
        readers: anyio.CapacityLimiter | None = None,
        on_start: Callable[[], object] | None = None,
    ) -> None:
        self.length = body.length
        self.whole = body.whole
        self.handed_over = False
        self.failure: Exception | None = None
        self._readers = readers
        self._on_start = on_start
        self._remaining = body.length
        self._body = body
        self._parts: Iterator[TextPart | ImagePart] | None = None
        self._ready: Iterator[bytes] = NOTHING
        self._on_disk: Iterator[bytes] | None = None

    def hand_over(self) -> None:
        """Note that the connection is ready, and that the whole body is handed over now.

        Raises:
            KontextError: It must not be sent; nothing was sent.
        """
        self._start()
        self._remaining = 0
        self.handed_over = True  # set first: once the body is written, it may be on its way

    def _start(self) -> None:
        """Call `on_start`: the connection is ready, and the head is sent with the first piece."""
        if self._on_start:
            try:
                self._on_start()
            except Exception as error:
                self.failure = error
                raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._remaining == self.length:
            self._start()
        else:
            await asyncio.sleep(0)
        try:
            piece = next(self._ready, None)
            if piece is None:
                piece = await self._next_piece()
        except Exception as error:
            self.failure = error
            raise
        if piece is None:
            raise StopAsyncIteration
        self._remaining -= len(piece)
        self.handed_over = not self._remaining  # set first: once the piece is returned, it may be on its way
        return piece

    async def _next_piece(self) -> bytes | None:
        """Return the next piece and make those after it ready; None at the end."""
        if self._parts is None:
            self._parts = iter(self._body.parts)
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
        return await anyio.to_thread.run_sync(_read_ahead, pieces, abandon_on_cancel=True, limiter=self._readers)


def _read_ahead(pieces: Iterator[bytes]) -> list[bytes]:
    return list(islice(pieces, images.READ_AHEAD))

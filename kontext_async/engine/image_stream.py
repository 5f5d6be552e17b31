"""An image that is passed on while it is downloaded, without being stored.

The download runs in a task of the engine, ahead of the consumer by a bounded number of bytes: a slow consumer holds a
connection to the image's server only for an image that is larger.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

from kontext_async.engine.sinks import HEAD, Sink
from kontext_async.errors import DownloadFailed, KontextError, SessionClosed
from kontext_async.images import detect_any_format
from kontext_async.redaction import strip_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from kontext_async.engine.engine import Engine
    from kontext_async.models import GeneratedImage

    T = TypeVar("T")

__all__ = ["ImageStream", "PassingSink"]

READ_AHEAD = 1024 * 1024
"""The most bytes that wait for the consumer. Most images are smaller."""


class PassingSink(Sink):
    """Passes the bytes of an image on, once they are known to be one. What was passed on cannot be discarded.

    Args:
        image: The image, for the error.
        pass_on: Takes bytes.
    """

    keeps_bytes = False

    def __init__(self, image: GeneratedImage, pass_on: Callable[[bytes], Awaitable[None]]) -> None:
        super().__init__()
        self._image = image
        self._pass_on = pass_on
        self._kept = bytearray()
        self._has_passed = False

    async def flush(self) -> None:
        """Pass on what is kept, at the end of an image."""
        await self._pass_on_kept()

    async def inspect(self, look: Callable[[bytes], T]) -> T:
        """Call `look` with the last bytes: the others are gone."""
        return look(self.tail)

    async def _store(self, chunk: bytes) -> None:
        if self._has_passed:
            await self._pass_on(chunk)
            return
        self._kept += chunk
        if len(self.head) >= HEAD and detect_any_format(self.head):
            await self._pass_on_kept()

    async def _pass_on_kept(self) -> None:
        if self._kept:
            self._has_passed = True
            kept, self._kept = bytes(self._kept), bytearray()
            await self._pass_on(kept)

    async def _clear(self) -> None:
        self._kept.clear()
        if self._has_passed:
            reason = "the transfer broke off, and its start was passed on already"
            raise DownloadFailed(url=strip_query(self._image.url), reason=reason, task_id=self._image.task_id)


class ImageStream:
    """An image, in pieces, while it is downloaded. Made by `KontextSession.stream`; use it with ``async with``.

    The first bytes are there when the block begins. A failure after that ends the iteration with `DownloadFailed`; an
    interrupted transfer is resumed where the image's server allows it.

    Attributes:
        size: The size of the image in bytes, if its server announced it.
    """

    def __init__(
        self,
        image: GeneratedImage,
        receive: Callable[[GeneratedImage, Sink], Coroutine[Any, Any, None]],
        engine: Engine,
    ) -> None:
        self.size: int | None = None
        self._image = image
        self._receive = receive
        self._engine = engine
        self._sink = PassingSink(image, self._pass_on)
        self._waiting = bytearray()
        self._error: KontextError | None = None
        self._has_ended = False
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def media_type(self) -> str:
        """The media type of the image, from its first bytes."""
        return f"image/{detect_any_format(self._sink.head) or 'jpeg'}"

    async def __aenter__(self) -> Self:
        self._engine.ensure_running_for_image(self._image)
        self._task = self._engine.start_task(self._run(), self._on_end)
        try:
            while not self._has_ended and not self._waiting:
                await self._wait(self._changed)
        except BaseException:
            await self._stop()
            raise
        if self._error and not self._waiting:
            raise self._error
        self.size = self._sink.total
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            if self._waiting:
                chunk = bytes(self._waiting)
                self._waiting.clear()
                self._has_room.set()
                yield chunk
            elif self._has_ended:
                if self._error:
                    raise self._error.copy()
                return
            else:
                await self._wait(self._changed)

    async def _run(self) -> None:
        try:
            await self._receive(self._image, self._sink)
            await self._sink.flush()
        except KontextError as error:
            self._error = error

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._error = self._with_task(SessionClosed("the session was closed before the image was complete"))
        self._has_ended = True
        self._changed.set()

    def _with_task(self, error: KontextError) -> KontextError:
        """Name the task in an error: its image is paid for, and can be requested again."""
        return error.with_task(self._image.task_id, may_be_charged=True) if self._image.task_id else error

    async def _pass_on(self, chunk: bytes) -> None:
        self._waiting += chunk
        self._changed.set()
        while len(self._waiting) >= READ_AHEAD:
            await self._wait(self._has_room)

    async def _stop(self) -> None:
        if self._task:
            self._task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._task])

    @staticmethod
    async def _wait(event: asyncio.Event) -> None:
        event.clear()
        await event.wait()

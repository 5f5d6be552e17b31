"""Images on demand: painted off the event loop by a few threads, and kept within a bound of bytes."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from kontext_async.emulator.painting.painter import Brief, paint

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 4

T = TypeVar("T")


class ImageCache:
    """Paints each image at its first use, and keeps the latest ones.

    Args:
        max_bytes: The number of bytes of images to keep.
    """

    def __init__(self, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Brief, bytes] = OrderedDict()
        self._painting: dict[Brief, asyncio.Future[bytes]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def __repr__(self) -> str:
        return f"<ImageCache kept={len(self._kept)} bytes={self._bytes} painting={len(self._painting)}>"

    def run_in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run expensive work on one of the cache's few threads."""
        if self._threads is None:
            count = min(MAX_THREADS, os.cpu_count() or 1)
            self._threads = ThreadPoolExecutor(count, thread_name_prefix="kontext-emulator")
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def get_image(self, brief: Brief) -> bytes:
        """Return the bytes of an image. Concurrent callers wait for the same painting."""
        kept = self._kept.get(brief)
        if kept is not None:
            self._kept.move_to_end(brief)
            return kept
        painting = self._painting.get(brief)
        if painting is None:
            painting = self._painting[brief] = self.run_in_thread(partial(paint, brief))
            painting.add_done_callback(partial(self._keep, brief))
        return await asyncio.shield(painting)

    def _keep(self, brief: Brief, painting: asyncio.Future[bytes]) -> None:
        del self._painting[brief]
        if painting.cancelled() or painting.exception() is not None:
            return
        self._kept[brief] = painting.result()
        self._bytes += len(painting.result())
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._kept.popitem(last=False)[1])

    def close(self) -> None:
        """Release the threads. Work that has not started is dropped; the cache can be used again."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

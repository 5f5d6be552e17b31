"""Notices that the caller of a request has left: the client of a web server has disconnected."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import anyio

from kontext_async.engine.request_log import LOGGER
from kontext_async.errors import InvalidRequest

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CallerWatch"]


class CallerWatch:
    """Cancels the body of a ``with`` statement when an awaitable completes, which says that the caller has left.

    An awaitable that fails or is cancelled says nothing. A coroutine is cancelled at the end of the body; a future or a
    task is left as it is.

    Args:
        abandoned: The awaitable.

    Raises:
        InvalidRequest: It is none.
    """

    def __init__(self, abandoned: Awaitable[object]) -> None:
        if not isinstance(abandoned, Awaitable):
            rule = "it must be an awaitable that completes when the caller has left, such as event.wait()"
            raise InvalidRequest("abandoned", abandoned, rule)
        self._abandoned = abandoned
        self._future: asyncio.Future[object] | None = None
        self._scope = anyio.CancelScope()

    @property
    def has_left(self) -> bool:
        """True if the caller has left."""
        future = self._future or self._abandoned
        return isinstance(future, asyncio.Future) and _is_completed(future)

    def discard(self) -> None:
        """Close a coroutine that is not awaited, because the call is invalid."""
        if inspect.iscoroutine(self._abandoned):
            self._abandoned.close()

    def __enter__(self) -> None:
        self._scope.__enter__()
        self._future = asyncio.ensure_future(self._abandoned)
        self._future.add_done_callback(self._on_done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Return True if the body was cancelled because the caller has left."""
        if self._future:
            self._future.remove_done_callback(self._on_done)
            if self._future is not self._abandoned:
                self._future.cancel()
        return bool(self._scope.__exit__(kind, error, traceback))

    def _on_done(self, future: asyncio.Future[object]) -> None:
        if _is_completed(future):
            self._scope.cancel()
        elif not future.cancelled() and LOGGER.hasHandlers():
            LOGGER.warning("abandoned= failed, and the call continues: %s", type(future.exception()).__name__)


def _is_completed(future: asyncio.Future[object]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None

"""Outcomes on their way to an iterator: a bounded window of open requests, and a queue of finished ones."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OutcomeQueue"]

OutcomeT = TypeVar("OutcomeT")


class OutcomeQueue(Generic[OutcomeT]):
    """Holds outcomes until they are taken, and bounds the requests between being read and being taken.

    The producer calls `reserve` before it reads a request, `put` once for each request read, or `release` if it has no
    outcome, and `end` at the end. The bound holds for any length of the input and any pace of the consumer.

    Args:
        window: The most requests that are read and whose outcomes are not taken yet; a function if it may change.
    """

    def __init__(self, window: int | Callable[[], int]) -> None:
        self._window = window
        self._open = 0
        self._room = asyncio.Event()
        self._ready: deque[OutcomeT] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    async def reserve(self) -> None:
        """Wait until there is room for one more request. One task at a time may call it."""
        while self._open >= (self._window() if callable(self._window) else self._window):
            self._room.clear()
            await self._room.wait()
        self._open += 1

    def check_room(self) -> None:
        """Let `reserve` look at the window again, because it may have grown."""
        self._room.set()

    def release(self) -> None:
        """Give up the place of a request that has no outcome."""
        self._open -= 1
        self._room.set()

    def put(self, outcome: OutcomeT) -> None:
        """Add the outcome of one request."""
        self._ready.append(outcome)
        self._changed.set()

    def end(self, error: Exception | None = None) -> None:
        """End the queue: after the outcomes that are ready, `get` raises `error`, or returns None. First call wins."""
        if not self._ended:
            self._ended, self._error = True, error
        self._changed.set()

    async def get(self) -> OutcomeT | None:
        """Return the next outcome, in order of completion; None after the last one.

        Raises:
            Exception: The error that `end` was called with, after the last outcome.
        """
        while not self._ready:
            if self._error:
                raise self._error
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        self.release()
        return self._ready.popleft()

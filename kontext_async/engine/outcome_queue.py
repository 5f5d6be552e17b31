"""Outcomes on their way to an iterator: a bounded window of open requests, and a queue of finished ones."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

__all__ = ["OutcomeQueue"]

OutcomeT = TypeVar("OutcomeT")


class OutcomeQueue(Generic[OutcomeT]):
    """Holds outcomes until they are taken, and bounds the requests between being read and being taken.

    The producer calls `reserve` before it reads a request, `put` once for each request read, and `end` at the end.
    The bound holds for any length of the input and any pace of the consumer.

    Args:
        window: The most requests that are read and whose outcomes are not taken yet.
    """

    def __init__(self, window: int) -> None:
        self._window = asyncio.Semaphore(window)
        self._ready: deque[OutcomeT] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    async def reserve(self) -> None:
        """Wait until there is room for one more request."""
        await self._window.acquire()

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
        self._window.release()
        return self._ready.popleft()

"""The clock as a port: the event loop's here, and in `kontext_async.testing` one that tests advance by hand."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Clock", "LoopClock", "Timer", "cancel_at", "sleep_until"]


class Timer(Protocol):
    """A scheduled callback."""

    def cancel(self) -> None:
        """Cancel the callback."""
        ...


class Clock(Protocol):
    """The engine's source of time."""

    def time(self) -> float:
        """Return monotonic seconds, from an arbitrary start."""
        ...

    def utcnow(self) -> datetime:
        """Return the date and time as an aware UTC datetime."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` at `when`, on the scale of `time`."""
        ...


class LoopClock:
    """The clock of the event loop that runs when the time is first asked for.

    Attributes:
        time: See `Clock.time`. It is the loop's own from the first call on, because a request asks a dozen times.
    """

    def __init__(self) -> None:
        self.time: Callable[[], float] = self._first_time

    def _first_time(self) -> float:
        self.time = asyncio.get_running_loop().time
        return self.time()

    def utcnow(self) -> datetime:
        """See `Clock.utcnow`."""
        return datetime.now(UTC)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_at`."""
        return asyncio.get_running_loop().call_at(when, callback)


async def sleep_until(clock: Clock, when: float) -> None:
    """Sleep until `when`, on the scale of `Clock.time`."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(when, partial(_wake, woken))
    try:
        await woken
    finally:
        timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@contextmanager
def cancel_at(clock: Clock, when: float | None) -> Iterator[anyio.CancelScope]:
    """Cancel the body at `when`; execution then continues after the ``with`` block. None never cancels."""
    with anyio.CancelScope() as scope:
        timer = None if when is None else clock.call_at(when, scope.cancel)
        try:
            yield scope
        finally:
            if timer:
                timer.cancel()

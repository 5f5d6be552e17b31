"""The clock as a port: the loop's own here, one that tests turn by hand in `kontext_async.testing`."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Clock", "LoopClock", "Timer", "cancelled_at", "sleep_until"]


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None:
        """It shall not happen."""
        ...


class Clock(Protocol):
    """What the engine knows of time."""

    def time(self) -> float:
        """Seconds that only go forward, from no particular moment."""
        ...

    def utcnow(self) -> datetime:
        """The date and time, as an aware UTC datetime."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` at `when`, in the seconds of `time`."""
        ...


class LoopClock:
    """The running event loop's clock."""

    def time(self) -> float:
        """See `Clock.time`."""
        return asyncio.get_running_loop().time()

    def utcnow(self) -> datetime:
        """See `Clock.utcnow`."""
        return datetime.now(UTC)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """See `Clock.call_at`."""
        return asyncio.get_running_loop().call_at(when, callback)


async def sleep_until(clock: Clock, when: float) -> None:
    """Sleep until `when`, in the clock's seconds."""
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
def cancelled_at(clock: Clock, when: float | None) -> Iterator[anyio.CancelScope]:
    """Cancel what is inside at `when`; the scope's ``cancelled_caught`` says afterwards whether that happened."""
    with anyio.CancelScope() as scope:
        timer = None if when is None else clock.call_at(when, scope.cancel)
        try:
            yield scope
        finally:
            if timer:
                timer.cancel()

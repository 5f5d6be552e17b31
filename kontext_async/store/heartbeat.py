"""The beat of a worker: it extends the lease at the store, and knows how long ago that was done.

The time of a beat is when its statement was sent, on a clock that also counts while the process was stopped: a worker
that was stopped for longer than half a lease sends nothing before its next beat.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from kontext_async.errors import StoreError
from kontext_async.store.availability import Availability, Part
from kontext_async.store.calls import call_store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kontext_async.settings import StoreSettings

__all__ = ["Heartbeat"]

RETRY = 0.5
"""Seconds between a failed beat and the next one, at most."""


class Heartbeat:
    """Beats until it is closed. Create it in a running event loop.

    Args:
        beat: Extends the lease at the store.
        settings: The lease, and the time between two beats.
        registered_at: When the worker was registered, on the clock of `time`.
        time: The source of the time: `kontext_async.store.boot_clock.boot_time`.
        availability: Receives failures that last for more than half a lease.
        on_beat: Called after each successful beat.
    """

    def __init__(
        self,
        beat: Callable[[], Awaitable[None]],
        settings: StoreSettings,
        *,
        registered_at: float,
        time: Callable[[], float],
        availability: Availability,
        on_beat: Callable[[], None],
    ) -> None:
        self._beat = beat
        self._settings = settings
        self._last = registered_at
        self._time = time
        self._availability = availability
        self._on_beat = on_beat
        self._nudge = asyncio.Event()
        self._beaten = asyncio.Event()
        self._owner = asyncio.get_running_loop().create_task(self._run(), name="kontext_async beat")

    def is_fresh(self) -> bool:
        """Return True if the last successful beat was sent at most half a lease ago."""
        return self._time() - self._last <= self._settings.lease / 2

    async def wait_until_fresh(self, timeout: float) -> bool:  # noqa: ASYNC109 # the beat continues
        """Beat at once if that is due; return False if no beat succeeds within `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self.is_fresh():
                    self._beaten.clear()
                    self._nudge.set()
                    await self._beaten.wait()
        return self.is_fresh()

    async def aclose(self) -> None:
        """Stop beating."""
        self._owner.cancel()
        await asyncio.wait([self._owner])

    async def _run(self) -> None:
        pause = self._settings.beat
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._nudge.wait()
            self._nudge.clear()
            pause = self._settings.beat
            if not await self._beat_once():
                pause = min(RETRY, pause)
                self._nudge.clear()  # an impatient caller does not make it beat more often

    async def _beat_once(self) -> bool:
        sent_at = self._time()
        limit = min(self._settings.connect, self._settings.lease / 3)
        try:
            await call_store(self._beat(), limit)
        except StoreError as error:
            if not self.is_fresh():
                self._availability.failed(Part.BEAT, error)
            return False
        self._last = sent_at
        self._beaten.set()
        self._availability.recovered(Part.BEAT)
        self._on_beat()
        return True

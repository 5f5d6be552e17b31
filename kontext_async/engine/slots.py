"""The slots under which tasks are in flight: a semaphore whose size `decisions.concurrency` decides."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kontext_async.decisions.concurrency import AdaptiveLimit
    from kontext_async.engine.clock import Clock, Timer
    from kontext_async.errors import KontextError

__all__ = ["ConcurrencySlots", "Slot"]


class Slot:
    """One slot for a create request: released once, or passed to the accepted task, which holds it until it ends."""

    __slots__ = ("_sent_at", "_slots")

    def __init__(self, slots: ConcurrencySlots, now: float) -> None:
        self._slots: ConcurrencySlots | None = slots
        self._sent_at = now

    def accepted(self) -> ConcurrencySlots | None:
        """Pass the slot to the task that the gateway accepted.

        Returns:
            The slots, whose `release_task` the end of the task calls; None if the slot was released before.
        """
        slots, self._slots = self._slots, None
        if slots:
            slots.adaptive_limit.record_accepted(self._sent_at, slots.now())
            slots.admit()  # the limit may have grown
        return slots

    def refused(self, retry_after: float | None, random: float) -> float:
        """Release the slot because the gateway throttled its request, and admit no other request for a while.

        Args:
            retry_after: The ``Retry-After`` of the response, in seconds; None if it has none.
            random: A number from 0 to 1.

        Returns:
            The seconds of the pause.
        """
        if self._slots is None:
            return 0.0
        limit, now = self._slots.adaptive_limit, self._slots.now()
        pause = limit.record_throttled(self._sent_at, now, retry_after, random)
        self.release()
        return pause

    def release(self) -> None:
        """Release the slot. Calling it again does nothing."""
        if self._slots:
            slots, self._slots = self._slots, None
            slots.adaptive_limit.release(accepted=False)
            slots.admit()


class ConcurrencySlots:
    """Assigns slots in the order of the requests for them; requests that the gateway throttled come first."""

    def __init__(self, adaptive_limit: AdaptiveLimit, clock: Clock) -> None:
        self.adaptive_limit = adaptive_limit
        self._clock = clock
        self._priority: deque[asyncio.Future[Slot | KontextError]] = deque()
        self._waiting: deque[asyncio.Future[Slot | KontextError]] = deque()
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._end_error: KontextError | None = None

    @property
    def queued(self) -> int:
        """The number of requests that wait for a slot."""
        return sum(not future.done() for queue in (self._priority, self._waiting) for future in queue)

    @property
    def has_room(self) -> bool:
        """True if a slot is free, and no request waits for it."""
        return self._next_queue() is None and self.adaptive_limit.can_acquire(self.now())

    @property
    def has_demand(self) -> bool:
        """True if requests wait for a slot, or for the response that says whether they are accepted."""
        limit = self.adaptive_limit
        return limit.in_flight > limit.accepted_in_flight or self._next_queue() is not None

    def now(self) -> float:
        """Return the present time of the clock."""
        return self._clock.time()

    async def acquire(self, *, priority: bool = False) -> Slot:
        """Wait for a free slot, and for the end of a pause, and take the slot.

        Args:
            priority: True if the gateway throttled this request before: it comes before the others.

        Raises:
            KontextError: The error that the session ended with.
        """
        if self._end_error:
            raise self._end_error.copy()
        if self._next_queue() is None and self.adaptive_limit.can_acquire(now := self.now()):
            self.adaptive_limit.acquire(now)
            return Slot(self, now)
        future: asyncio.Future[Slot | KontextError] = asyncio.get_running_loop().create_future()
        (self._priority if priority else self._waiting).append(future)
        self.admit()
        try:
            slot = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and isinstance(slot := future.result(), Slot):
                slot.release()
            raise
        if isinstance(slot, Slot):
            return slot
        raise slot

    def release_task(self) -> None:
        """Release the slot of a task that ended, or is no longer polled."""
        self.adaptive_limit.release(accepted=True)
        self.admit()

    def admit(self) -> None:
        """Assign slots to waiting requests, as many as the limit allows now."""
        if self._next_queue() is None:
            return
        now = self.now()
        while (queue := self._next_queue()) and self.adaptive_limit.can_acquire(now):
            future = queue.popleft()
            self.adaptive_limit.acquire(now)
            future.set_result(Slot(self, now))
        if queue and (chance := self.adaptive_limit.next_chance(now)) < math.inf:
            self._admit_at(chance)

    def set_ceiling(self, count: int) -> None:
        """Change the most slots. Slots that are in use stay in use, even if there are more of them than `count`."""
        self.adaptive_limit.ceiling = count
        self.admit()

    def close(self, error: KontextError) -> None:
        """Fail every waiting request, and every later one."""
        self._end_error = error
        while queue := self._next_queue():
            queue.popleft().set_result(error.copy())
        if self._timer:
            self._timer.cancel()

    def _next_queue(self) -> deque[asyncio.Future[Slot | KontextError]] | None:
        """Return the queue whose turn it is, without requests that were cancelled; None if none waits."""
        if not self._priority and not self._waiting:
            return None
        for queue in (self._priority, self._waiting):
            while queue and queue[0].done():
                queue.popleft()
            if queue:
                return queue
        return None

    def _admit_at(self, when: float) -> None:
        if self._timer and when == self._timer_at:
            return
        if self._timer:
            self._timer.cancel()
        self._timer = self._clock.call_at(when, self._on_timer)
        self._timer_at = when

    def _on_timer(self) -> None:
        self._timer = None
        self.admit()

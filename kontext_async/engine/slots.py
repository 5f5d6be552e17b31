"""The slots under which tasks are in flight: a semaphore whose size `decisions.concurrency` decides.

`decisions.fair_queue` decides whose request is next, and `decisions.admission` whether one more may wait.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field, frozen

from kontext_async.decisions.admission import Pace, is_full, promise, share_of_pace, wait_in_queue
from kontext_async.decisions.durations import SlotDurations
from kontext_async.decisions.fair_queue import FairQueue
from kontext_async.decisions.shares import UNBOUNDED
from kontext_async.errors import KontextError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from random import Random

    from kontext_async.decisions.concurrency import AdaptiveLimit
    from kontext_async.decisions.shares import Queueing, ShareState, Ticket
    from kontext_async.engine.clock import Clock, Timer
    from kontext_async.settings import Limits

__all__ = ["ConcurrencySlots", "Slot", "Waiting"]

Kind: TypeAlias = tuple[str, int]
"""The model and the number of input images, which set how long a request takes."""

Granted: TypeAlias = "asyncio.Future[Slot | KontextError]"


@frozen(eq=False)
class Waiter:
    """A request that waits for a slot.

    Attributes:
        kind: Its kind.
        share: Its share.
        granted: The slot, or the error that ends the wait.
    """

    kind: Kind
    share: ShareState[Waiter]
    granted: Granted = field(factory=lambda: asyncio.get_running_loop().create_future())


class Slot:
    """One slot for a create request: released once, or passed to the accepted task, which keeps it until it ends.

    Attributes:
        share: The share that is charged for it.
        paid_until: The time until which the share is charged.
    """

    __slots__ = ("_kind", "_sent_at", "_slots", "paid_until", "share")

    def __init__(
        self, slots: ConcurrencySlots, share: ShareState[Waiter], kind: Kind, now: float, paid_until: float
    ) -> None:
        self._slots: ConcurrencySlots | None = slots
        self._kind = kind
        self._sent_at = now
        self.share = share
        self.paid_until = paid_until

    def accepted(self, now: float) -> ConcurrencySlots | None:
        """Pass the slot to the task that the gateway accepted.

        Args:
            now: The present time.

        Returns:
            The slots, whose `release_task` the end of the task calls; None if the slot was released before.
        """
        slots, self._slots = self._slots, None
        if slots:
            slots.adaptive_limit.record_accepted(self._sent_at, now)
            slots.durations.observe_accepted(self._kind, now - self._sent_at)
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
            slots.release(self.share, self.paid_until, accepted=False)


@define(eq=False)
class Waiting:
    """The state that the slots of all pools of models share.

    Attributes:
        queue: The requests that wait, and their shares.
        durations: The seconds for which requests occupy a slot.
        on_release: Callbacks for the release of a slot.
    """

    queue: FairQueue[Waiter] = field(factory=FairQueue)
    durations: SlotDurations = field(factory=SlotDurations)
    on_release: set[Callable[[], object]] = field(factory=set)


class ConcurrencySlots:
    """Assigns slots fairly among the shares; requests that the gateway throttled come first.

    Attributes:
        adaptive_limit: The number of slots.
        durations: The seconds for which requests occupy a slot.
        queue: The requests that wait, and their shares.
        on_release: Callbacks for the release of a slot.

    Args:
        adaptive_limit: The number of slots.
        clock: The source of the time.
        limits: The limits on the queue.
        random: The source of random numbers.
        waiting: What it shares with the slots of other pools; None for slots that stand alone.
        pool: The pool of models.
    """

    def __init__(
        self,
        adaptive_limit: AdaptiveLimit,
        clock: Clock,
        limits: Limits,
        random: Random,
        *,
        waiting: Waiting | None = None,
        pool: Hashable = None,
    ) -> None:
        waiting = Waiting() if waiting is None else waiting
        self.adaptive_limit = adaptive_limit
        self.durations = waiting.durations
        self.queue = waiting.queue
        self.on_release = waiting.on_release
        self._pool = pool
        self._clock = clock
        self._limits = limits
        self._random = random
        self._throttled: deque[Waiter] = deque()
        self._promised = -math.inf
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._end_error: KontextError | None = None

    @property
    def queued(self) -> int:
        """The number of requests that wait for a slot."""
        return self.queue.count(self._pool) + sum(not waiter.granted.done() for waiter in self._throttled)

    @property
    def has_room(self) -> bool:
        """True if a slot is free, and no request waits for it."""
        return not self._has_waiters() and self.adaptive_limit.can_acquire(self.now())

    @property
    def has_demand(self) -> bool:
        """True if requests wait for a slot, or for the response that says whether they are accepted."""
        limit = self.adaptive_limit
        return limit.in_flight > limit.accepted_in_flight or self._has_waiters()

    @property
    def is_queue_full(self) -> bool:
        """True if no further request may wait."""
        return is_full(self.queue.counted, self._limits.max_queued)

    @property
    def expected_wait(self) -> float:
        """The seconds for which a request waits that joins the queue now, as far as durations are known."""
        return 0.0 if self.has_room else wait_in_queue(self.queued, self._pace(self.now()))

    def now(self) -> float:
        """Return the present time of the clock."""
        return self._clock.time()

    def check_room(self, queueing: Queueing) -> None:
        """Raise if a request would have to wait, and may not.

        Raises:
            Overloaded: The queue is full.
            KontextError: No request is admitted any longer.
        """
        if self._end_error:
            raise self._end_error.copy()
        if not queueing.is_patient and self._has_waiters():
            now = self.now()
            self._check_limits(self.queue.share(queueing.share, now), now)

    async def acquire(self, queueing: Queueing = UNBOUNDED, kind: Kind = ("", 0), *, priority: bool = False) -> Slot:
        """Wait for a free slot, and for the end of a pause, and take the slot.

        Args:
            queueing: The terms on which the request waits.
            kind: The kind of the request.
            priority: True if the gateway throttled this request before: it comes before the others.

        Raises:
            Overloaded: The queue is full, or no slot became free in time.
            KontextError: The error that the session ended with.
        """
        if self._end_error:
            raise self._end_error.copy()
        now = self.now()
        share = self.queue.share(queueing.share, now)
        if not self._has_waiters() and self.adaptive_limit.can_acquire(now):
            return self._assign(share, kind, now)
        waiter = Waiter(kind, share)
        if priority:
            return await self._wait_first(waiter)
        if not queueing.is_patient:
            self._check_limits(share, now)
        ticket = self.queue.push(share, self._pool, waiter, counts=not queueing.is_patient)
        timer: Timer | None = None
        if queueing.until is not None:
            timer = self._clock.call_at(queueing.until, partial(self._expire, ticket, queueing.until - now))
        self.admit()
        try:
            return await self._wait(waiter)
        finally:
            if timer:
                timer.cancel()
            self.queue.remove(ticket, self.now())

    async def _wait_first(self, waiter: Waiter) -> Slot:
        """Wait for a slot before all requests in the queue."""
        shares = self.queue.shares
        shares.add_throttled(waiter.share)
        self._throttled.append(waiter)
        self.admit()
        try:
            return await self._wait(waiter)
        finally:
            shares.remove_throttled(waiter.share, self.now())

    async def _wait(self, waiter: Waiter) -> Slot:
        try:
            slot = await waiter.granted
        except asyncio.CancelledError:
            granted = waiter.granted
            if granted.done() and not granted.cancelled() and isinstance(slot := granted.result(), Slot):
                slot.release()
            raise
        if isinstance(slot, Slot):
            return slot
        raise slot

    def release_task(self, share: ShareState[Waiter], paid_until: float) -> None:
        """Release the slot of a task that ended, or is no longer polled."""
        self.release(share, paid_until, accepted=True)

    def release(self, share: ShareState[Waiter], paid_until: float, *, accepted: bool) -> None:
        """Release a slot, and charge its share for the seconds for which it was occupied."""
        now = self.now()
        self.adaptive_limit.release(accepted=accepted)
        self.queue.release(share, now - paid_until, now)
        self.admit()
        for callback in self.on_release:
            callback()

    def admit(self) -> None:
        """Assign slots to waiting requests, as many as the limit allows now."""
        if not self._has_waiters():
            return
        now = self.now()
        while self.adaptive_limit.can_acquire(now) and (waiter := self._next(now)):
            waiter.granted.set_result(self._assign(waiter.share, waiter.kind, now))
        if self._has_waiters() and (chance := self.adaptive_limit.next_chance(now)) < math.inf:
            self._admit_at(chance)

    def set_ceiling(self, count: int) -> None:
        """Change the most slots. Slots that are in use stay in use, even if there are more of them than `count`."""
        self.adaptive_limit.ceiling = count
        self.admit()

    def close(self, error: KontextError) -> None:
        """Fail every waiting request, and every later one."""
        self._end_error = error
        now = self.now()
        while waiter := self._next(now):
            waiter.granted.set_result(error.copy())
            self.queue.shares.drop_if_idle(waiter.share, now)
        if self._timer:
            self._timer.cancel()

    def _has_waiters(self) -> bool:
        """Return True if a request waits. Throttled ones that were cancelled are removed."""
        while self._throttled and self._throttled[0].granted.done():
            self._throttled.popleft()
        return bool(self._throttled or self.queue.count(self._pool))

    def _next(self, now: float) -> Waiter | None:
        """Remove the request whose turn it is, and return it; None if none waits."""
        while self._throttled:
            waiter = self._throttled.popleft()
            if not waiter.granted.done():
                return waiter
        while ticket := self.queue.pop(self._is_own):
            if not ticket.value.granted.done():
                return ticket.value
            self.queue.shares.drop_if_idle(ticket.share, now)  # it was cancelled in this turn of the loop
        return None

    def _is_own(self, pool: Hashable) -> bool:
        return pool == self._pool

    def _assign(self, share: ShareState[Waiter], kind: Kind, now: float) -> Slot:
        seconds = self.durations.expected(kind)
        self.adaptive_limit.acquire(now)
        self.queue.charge(share, seconds)
        return Slot(self, share, kind, now, now + seconds)

    def _pace(self, now: float) -> Pace:
        limit = self.adaptive_limit
        return Pace(slots=limit.expected_limit, seconds=self.durations.mean, pause=max(0.0, limit.paused_until - now))

    def _check_limits(self, share: ShareState[Waiter], now: float) -> None:
        queue, limits = self.queue, self._limits
        if is_full(share.counted, limits.max_queued_per_share):
            seconds = self._promise_to(share, share.counted - (limits.max_queued_per_share or 0) + 1, now)
            raise Overloaded(f"{share.counted} requests of this share wait already", retry_after=seconds)
        if self.is_queue_full:
            too_many = queue.counted - (limits.max_queued or 0) + 1
            pace, random = self._pace(now), self._random.random()
            self._promised, seconds = promise(self._promised, too_many, pace, now, random)
            raise Overloaded(f"{queue.counted} requests wait already", retry_after=seconds)

    def _expire(self, ticket: Ticket[Waiter], waited: float) -> None:
        """End the wait of a request whose time in the queue is over."""
        if ticket.value.granted.done():
            return
        now = self.now()
        share = ticket.share
        gap = share_of_pace(self._pace(now), share, self.queue.shares.active_weight).gap
        seconds = self._promise_to(share, max(1, share.queued - int(waited / gap)), now)
        self.queue.remove(ticket, now)
        text = f"no slot became free within {waited:.1f} s"
        ticket.value.granted.set_result(Overloaded(text, retry_after=seconds))

    def _promise_to(self, share: ShareState[Waiter], too_many: int, now: float) -> float:
        pace = share_of_pace(self._pace(now), share, self.queue.shares.active_weight)
        share.promised, seconds = promise(share.promised, too_many, pace, now, self._random.random())
        return seconds

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

"""The semaphore under which tasks are in flight. How many slots there are is `decisions.pacing`'s to say."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kontext_async.decisions.pacing import Pacer
    from kontext_async.engine.clock import Clock, Timer
    from kontext_async.errors import KontextError

__all__ = ["Slot", "Slots"]


class Slot:
    """One place in flight, for a create: given back once, or handed over to its task, which holds it to its end."""

    __slots__ = ("_sent_at", "_slots")

    def __init__(self, slots: Slots, now: float) -> None:
        self._slots: Slots | None = slots
        self._sent_at = now

    def accepted(self) -> Slots | None:
        """The create that this slot was taken for was accepted; from now on its task holds the place.

        Returns:
            Whose `finished` gives the place back; None when it was given back already.
        """
        slots, self._slots = self._slots, None
        if slots:
            slots.pacer.accepted(self._sent_at)
            slots.admit()  # there may be more slots now
        return slots

    def refused(self, now: float, pause: float) -> None:
        """The create was refused for now; nothing more goes out for `pause` seconds. The slot is given back."""
        if self._slots:
            self._slots.pacer.refused(self._sent_at, now, pause)
        self.give_back()

    def give_back(self) -> None:
        """The slot is free for another."""
        if self._slots:
            slots, self._slots = self._slots, None
            slots.pacer.give_back(accepted=False)
            slots.admit()


class Slots:
    """Hands out slots in the order in which they were asked for; those that were refused come first."""

    def __init__(self, pacer: Pacer, clock: Clock) -> None:
        self.pacer = pacer
        self._clock = clock
        self._returning: deque[asyncio.Future[Slot | KontextError]] = deque()
        self._waiting: deque[asyncio.Future[Slot | KontextError]] = deque()
        self._timer: Timer | None = None
        self._closed: KontextError | None = None

    @property
    def queued(self) -> int:
        """How many wait for a slot."""
        return sum(not future.done() for queue in (self._returning, self._waiting) for future in queue)

    async def acquire(self, *, returning: bool = False) -> Slot:
        """A slot, as soon as one is free and nothing holds creates back.

        Args:
            returning: Whether this request was refused before, and so goes first.

        Raises:
            KontextError: What the session was closed with.
        """
        if self._closed:
            raise self._closed.copy()
        future: asyncio.Future[Slot | KontextError] = asyncio.get_running_loop().create_future()
        (self._returning if returning else self._waiting).append(future)
        self.admit()
        try:
            slot = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and isinstance(slot := future.result(), Slot):
                slot.give_back()
            raise
        if isinstance(slot, Slot):
            return slot
        raise slot

    def finished(self) -> None:
        """A task that held a place is finished, or no longer followed."""
        self.pacer.give_back(accepted=True)
        self.admit()

    def admit(self) -> None:
        """Let in as many as there is room for now."""
        now = self._clock.time()
        while (queue := self._next_queue()) and self.pacer.admits(now):
            future = queue.popleft()
            self.pacer.take()
            future.set_result(Slot(self, now))
        if queue and now < self.pacer.paused_until:
            self._wake_at(self.pacer.paused_until)

    def close(self, error: KontextError) -> None:
        """Fail everybody who waits, and whoever asks from now on."""
        self._closed = error
        while queue := self._next_queue():
            queue.popleft().set_result(error.copy())
        if self._timer:
            self._timer.cancel()

    def _next_queue(self) -> deque[asyncio.Future[Slot | KontextError]] | None:
        """The queue whose turn it is, those who gave up left out; None when nobody waits."""
        for queue in (self._returning, self._waiting):
            while queue and queue[0].done():
                queue.popleft()
            if queue:
                return queue
        return None

    def _wake_at(self, when: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._clock.call_at(when, self.admit)

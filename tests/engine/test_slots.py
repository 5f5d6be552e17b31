"""The slots by themselves, with a clock that is advanced by hand."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import pytest
from session_support import turn_loop

from kontext_async import Limits, SessionClosed
from kontext_async.decisions.concurrency import FIRST_ROUND, AdaptiveLimit
from kontext_async.decisions.shares import Queueing, ShareOptions
from kontext_async.engine.slots import ConcurrencySlots, Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.decisions.shares import ShareState
    from kontext_async.engine.slots import Waiter
    from kontext_async.testing import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def new_slots(clock: ManualClock) -> Callable[[int], ConcurrencySlots]:
    """Return slots under a ceiling."""

    def create(ceiling: int) -> ConcurrencySlots:
        return ConcurrencySlots(AdaptiveLimit(ceiling), clock, Limits(), Random(1))

    return create


@pytest.fixture
def one(new_slots: Callable[[int], ConcurrencySlots]) -> ConcurrencySlots:
    """A single slot."""
    return new_slots(1)


async def queue_up(slots: ConcurrencySlots, *, priority: bool = False) -> asyncio.Task[Slot]:
    """Start to wait for a slot."""
    task = asyncio.create_task(slots.acquire(priority=priority))
    await turn_loop(3)
    return task


def end_task(slots: ConcurrencySlots, slot: Slot) -> None:
    """Release the slot of an accepted task, as its record does."""
    slots.release_task(slot.share, slot.paid_until)


class Traffic:
    """Requests of two shares that are sent, refused, accepted, ended and cancelled at random."""

    def __init__(self, slots: ConcurrencySlots, random: Random) -> None:
        self.slots = slots
        self.random = random
        self._waiting: list[asyncio.Task[Slot]] = []
        self._sent: list[Slot] = []
        self._running: list[Slot] = []

    def step(self) -> None:
        """Let something happen, if there is a request to which it can happen."""
        happen = self.random.choice((self._send, self._refuse, self._refuse, self._accept, self._end, self._cancel))
        with suppress(IndexError):
            happen()

    def collect(self) -> None:
        """Note which requests have got a slot, and which were cancelled."""
        self._sent += [task.result() for task in self._waiting if task.done() and not task.cancelled()]
        self._waiting = [task for task in self._waiting if not task.done()]

    def states(self) -> set[ShareState[Waiter]]:
        """Return the states of the shares that have slots."""
        return {slot.share for slot in (*self._sent, *self._running)}

    def is_over(self) -> bool:
        """Return True if nothing waits and no slot is in use."""
        return not (self._waiting or self._sent or self._running)

    def end_all(self) -> None:
        """Release all slots."""
        while self._sent:
            self._sent.pop().release()
        while self._running:
            self._end()

    def _start(self, name: str | None, *, priority: bool = False) -> None:
        queueing = Queueing(ShareOptions(name))
        self._waiting.append(asyncio.create_task(self.slots.acquire(queueing, priority=priority)))

    def _send(self) -> None:
        self._start(self.random.choice("ab"))

    def _refuse(self) -> None:
        slot = self._sent.pop()
        slot.refused(self.random.choice((None, 1.0)), self.random.random())
        self._start(slot.share.key[0], priority=True)

    def _accept(self) -> None:
        slot = self._sent.pop(0)
        slot.accepted(self.slots.now())
        self._running.append(slot)

    def _end(self) -> None:
        end_task(self.slots, self._running.pop())

    def _cancel(self) -> None:
        self.random.choice(self._waiting).cancel()


async def test_there_is_demand_until_every_request_is_accepted(one: ConcurrencySlots) -> None:
    assert not one.has_demand
    first = await one.acquire()
    assert one.has_demand, "its response is awaited"
    first.accepted(one.now())
    assert not one.has_demand
    waiting = await queue_up(one)
    assert one.has_demand, "it waits for a slot"
    end_task(one, first)
    (await waiting).release()
    assert not one.has_demand


class TestAcquire:
    async def test_free_slots_are_assigned_at_once(self, new_slots: Callable[[int], ConcurrencySlots]) -> None:
        slots = new_slots(2)
        await slots.acquire()
        await slots.acquire()
        assert slots.adaptive_limit.in_flight == 2
        assert slots.queued == 0

    async def test_a_request_waits_until_a_slot_is_released(self, one: ConcurrencySlots) -> None:
        first = await one.acquire()
        waiting = await queue_up(one)
        assert not waiting.done()
        assert one.queued == 1
        first.release()
        await waiting
        assert one.queued == 0
        assert one.adaptive_limit.in_flight == 1

    async def test_slots_are_assigned_in_the_order_of_the_requests(self, one: ConcurrencySlots) -> None:
        slot = await one.acquire()
        waiting = [await queue_up(one) for _ in range(4)]
        for expected in waiting:
            slot.release()
            await turn_loop(3)
            assert [task for task in waiting if task.done()][-1] is expected
            slot = expected.result()
        assert one.queued == 0

    async def test_throttled_requests_come_before_the_others(self, one: ConcurrencySlots) -> None:
        slot = await one.acquire()
        waiting = [await queue_up(one, priority=priority) for priority in (False, True, False, True)]
        order: list[int] = []
        for _ in waiting:
            slot.release()
            await turn_loop(3)
            (number,) = [n for n, task in enumerate(waiting) if task.done() and n not in order]
            order.append(number)
            slot = waiting[number].result()
        assert order == [1, 3, 0, 2]

    async def test_an_accepted_request_admits_more_if_the_limit_grows(
        self, new_slots: Callable[[int], ConcurrencySlots]
    ) -> None:
        slots = new_slots(100)
        first = [await slots.acquire() for _ in range(FIRST_ROUND)]
        waiting = [await queue_up(slots) for _ in range(10)]
        for slot in first:
            assert not any(task.done() for task in waiting)
            assert slot.accepted(slots.now()) is slots
        await turn_loop(3)
        assert [task.done() for task in waiting] == [True] * 8 + [False] * 2


class TestShares:
    async def test_refused_requests_that_wait_with_no_other_are_one_share(
        self, new_slots: Callable[[int], ConcurrencySlots], clock: ManualClock
    ) -> None:
        slots = new_slots(2)
        for slot in [await slots.acquire(), await slots.acquire()]:
            slot.refused(1.0, 0.0)
        waiting = [await queue_up(slots, priority=True) for _ in range(2)]
        assert len(slots.queue.shares) == 1
        clock.advance(1.0)
        first = await waiting[0]
        first.accepted(slots.now())
        second = await waiting[1]
        assert first.share is second.share
        end_task(slots, first)
        second.release()
        assert len(slots.queue.shares) == 0
        assert slots.queue.shares.active_weight == 0

    @pytest.mark.parametrize("end", ["cancelled", "closed"])
    async def test_a_refused_request_that_no_longer_waits_leaves_its_share(
        self, end: str, one: ConcurrencySlots
    ) -> None:
        (await one.acquire()).refused(60.0, 0.0)
        waiting = await queue_up(one, priority=True)
        if end == "closed":
            one.close(SessionClosed("closed"))
        else:
            waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert len(one.queue.shares) == 0

    @pytest.mark.parametrize("seed", range(30))
    async def test_a_share_has_one_state_whatever_happens_to_its_requests(
        self, seed: int, new_slots: Callable[[int], ConcurrencySlots], clock: ManualClock
    ) -> None:
        traffic = Traffic(new_slots(3), Random(seed))
        for _ in range(200):
            traffic.step()
            clock.advance(traffic.random.choice((0.0, 0.5)))
            await turn_loop(traffic.random.randrange(4))
            traffic.collect()
            states = traffic.states()
            assert len({state.key for state in states}) == len(states)
        while not traffic.is_over():
            traffic.end_all()
            clock.advance(10.0)
            await turn_loop(3)
            traffic.collect()
        assert len(traffic.slots.queue.shares) == 0
        assert traffic.slots.queue.shares.active_weight == 0
        assert traffic.slots.adaptive_limit.in_flight == 0


class TestProbe:
    @pytest.fixture
    async def full(self, new_slots: Callable[[int], ConcurrencySlots], clock: ManualClock) -> ConcurrencySlots:
        """Slots that found their limit, and are all in use."""
        slots = new_slots(100)
        accepted = [await slots.acquire() for _ in range(3)]
        for slot in accepted:
            slot.accepted(slots.now())
        fourth = await slots.acquire()
        fourth.refused(0.0, 0.5)
        clock.advance(1.0)
        (await slots.acquire()).refused(0.0, 0.5)
        clock.advance(2.0)
        while slots.adaptive_limit.in_flight > int(slots.adaptive_limit.limit):
            end_task(slots, accepted.pop())
        return slots

    async def test_one_request_goes_beyond_the_limit_when_the_timer_fires(
        self, full: ConcurrencySlots, clock: ManualClock
    ) -> None:
        waiting = [await queue_up(full) for _ in range(2)]
        assert not any(task.done() for task in waiting)
        assert clock.next_at == full.adaptive_limit.next_chance(clock.time())
        clock.advance(10.0)
        await turn_loop(3)
        assert [task.done() for task in waiting] == [True, False]
        assert clock.next_at is None, "the next one follows its response"

    async def test_slots_without_waiters_set_no_timer(self, full: ConcurrencySlots, clock: ManualClock) -> None:
        assert full.queued == 0
        assert clock.next_at is None

    async def test_one_timer_serves_all_waiters(self, full: ConcurrencySlots, clock: ManualClock) -> None:
        waiting = [await queue_up(full) for _ in range(20)]
        chance = clock.next_at
        full.close(SessionClosed("closed"))
        assert chance is not None
        assert clock.next_at is None
        await asyncio.gather(*waiting, return_exceptions=True)


class TestSetCeiling:
    async def test_a_higher_ceiling_admits_waiting_requests_at_once(self, one: ConcurrencySlots) -> None:
        await one.acquire()
        waiting = [await queue_up(one, priority=priority) for priority in (False, False, True, False)]
        one.set_ceiling(3)
        await turn_loop(3)
        assert [task.done() for task in waiting] == [True, False, True, False]
        assert one.adaptive_limit.in_flight == 3

    async def test_a_lower_ceiling_admits_the_next_request_when_fewer_are_in_flight(
        self, new_slots: Callable[[int], ConcurrencySlots]
    ) -> None:
        slots = new_slots(4)
        held = [await slots.acquire() for _ in range(4)]
        slots.set_ceiling(2)
        assert slots.adaptive_limit.in_flight == 4
        waiting = await queue_up(slots)
        for slot in held[:2]:
            slot.release()
            await turn_loop(3)
            assert not waiting.done()
        held[2].release()
        await waiting
        assert slots.adaptive_limit.in_flight == 2

    async def test_a_higher_ceiling_does_not_end_a_pause(self, one: ConcurrencySlots, clock: ManualClock) -> None:
        (await one.acquire()).refused(5.0, 0.0)
        waiting = [await queue_up(one) for _ in range(2)]
        one.set_ceiling(4)
        clock.advance(4.9)
        await turn_loop(3)
        assert not any(task.done() for task in waiting)
        clock.advance(0.1)
        await waiting[0]

    async def test_a_closed_session_admits_nobody_under_a_higher_ceiling(self, one: ConcurrencySlots) -> None:
        await one.acquire()
        waiting = await queue_up(one)
        one.close(SessionClosed("closed"))
        one.set_ceiling(5)
        with pytest.raises(SessionClosed):
            await waiting
        assert one.adaptive_limit.in_flight == 1


class TestCancellation:
    async def test_a_cancelled_waiter_leaves_the_queue(self, one: ConcurrencySlots) -> None:
        slot = await one.acquire()
        first, second = await queue_up(one), await queue_up(one)
        first.cancel()
        await asyncio.wait([first])
        assert one.queued == 1
        slot.release()
        await second
        assert one.adaptive_limit.in_flight == 1

    async def test_a_waiter_that_is_cancelled_as_it_gets_a_slot_releases_it(self, one: ConcurrencySlots) -> None:
        slot = await one.acquire()
        first, second = await queue_up(one), await queue_up(one)
        slot.release()  # assigns the slot to `first`, which has not run yet
        assert one.queued == 1
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        await second
        assert one.adaptive_limit.in_flight == 1
        second.result().release()
        assert one.adaptive_limit.in_flight == 0

    async def test_a_waiter_that_is_cancelled_as_the_session_closes_is_cancelled(self, one: ConcurrencySlots) -> None:
        await one.acquire()
        waiting = await queue_up(one)
        one.close(SessionClosed("closed"))
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert one.adaptive_limit.in_flight == 1


class TestRelease:
    async def test_a_slot_is_released_once(self, new_slots: Callable[[int], ConcurrencySlots]) -> None:
        slots = new_slots(2)
        slot = await slots.acquire()
        await slots.acquire()
        slot.release()
        slot.release()
        slot.refused(0.0, 5.0)
        assert slot.accepted(slots.now()) is None
        assert slots.adaptive_limit.in_flight == 1
        assert slots.adaptive_limit.accepted_in_flight == 0
        assert slots.adaptive_limit.paused_until == float("-inf")

    async def test_an_accepted_task_holds_the_slot_until_it_ends(self, one: ConcurrencySlots) -> None:
        slot = await one.acquire()
        assert slot.accepted(one.now()) is one
        slot.release()
        waiting = await queue_up(one)
        assert not waiting.done()
        assert one.adaptive_limit.accepted_in_flight == 1
        end_task(one, slot)
        await waiting
        assert one.adaptive_limit.accepted_in_flight == 0


class TestPause:
    async def test_a_throttled_request_pauses_all_until_the_timer(
        self, new_slots: Callable[[int], ConcurrencySlots], clock: ManualClock
    ) -> None:
        slots = new_slots(2)
        (await slots.acquire()).refused(5.0, 0.0)
        assert slots.adaptive_limit.in_flight == 0
        waiting = await queue_up(slots)
        assert clock.next_at == 5.0
        clock.advance(4.9)
        await turn_loop(3)
        assert not waiting.done()
        assert slots.queued == 1
        clock.advance(0.1)
        await waiting
        assert clock.next_at is None

    async def test_the_longest_of_two_pauses_counts(
        self, new_slots: Callable[[int], ConcurrencySlots], clock: ManualClock
    ) -> None:
        slots = new_slots(2)
        long, short = await slots.acquire(), await slots.acquire()
        long.refused(10.0, 0.0)
        short.refused(1.0, 0.0)
        waiting = await queue_up(slots)
        clock.advance(9.0)
        await turn_loop(3)
        assert not waiting.done()
        clock.advance(1.0)
        await waiting

    async def test_a_pause_that_grows_moves_the_timer(
        self, new_slots: Callable[[int], ConcurrencySlots], clock: ManualClock
    ) -> None:
        slots = new_slots(2)
        first, second = await slots.acquire(), await slots.acquire()
        first.refused(5.0, 0.0)
        waiting = await queue_up(slots)
        clock.advance(2.0)
        second.refused(5.0, 0.0)
        assert clock.next_at == 7.0
        clock.advance(3.0)
        await turn_loop(3)
        assert not waiting.done()
        clock.advance(2.0)
        await waiting

    async def test_a_pause_without_waiters_sets_no_timer(self, one: ConcurrencySlots, clock: ManualClock) -> None:
        (await one.acquire()).refused(5.0, 0.0)
        assert clock.next_at is None
        clock.advance(5.0)
        await one.acquire()

    async def test_waiters_after_a_pause_keep_to_the_limit(self, one: ConcurrencySlots, clock: ManualClock) -> None:
        (await one.acquire()).refused(5.0, 0.0)
        waiting = [await queue_up(one) for _ in range(3)]
        clock.advance(5.0)
        await turn_loop(3)
        assert [task.done() for task in waiting] == [True, False, False]


class TestClose:
    async def test_closing_fails_every_waiter_with_an_error_of_its_own(self, one: ConcurrencySlots) -> None:
        await one.acquire()
        waiting = [await queue_up(one, priority=priority) for priority in (False, True, False)]
        error = SessionClosed("the session is closed")
        one.close(error)
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(each) for each in failed] == [str(error)] * 3
        assert all(isinstance(each, SessionClosed) for each in failed)
        assert len({id(each) for each in (*failed, error)}) == 4
        assert one.queued == 0

    async def test_closing_fails_every_later_request(self, one: ConcurrencySlots) -> None:
        error = SessionClosed("the session is closed")
        one.close(error)
        for priority in (False, True):
            with pytest.raises(SessionClosed) as caught:
                await one.acquire(priority=priority)
            assert caught.value is not error
        assert one.adaptive_limit.in_flight == 0

    async def test_closing_cancels_the_timer(self, one: ConcurrencySlots, clock: ManualClock) -> None:
        (await one.acquire()).refused(5.0, 0.0)
        waiting = await queue_up(one)
        one.close(SessionClosed("closed"))
        assert clock.next_at is None
        with pytest.raises(SessionClosed):
            await waiting

    async def test_slots_may_be_released_after_the_close(self, one: ConcurrencySlots) -> None:
        slot = await one.acquire()
        one.close(SessionClosed("closed"))
        slot.release()
        assert one.adaptive_limit.in_flight == 0

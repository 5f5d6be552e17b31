"""The queue before the slots: whose request is next."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from kontext_async.decisions.fair_queue import LOWER_PART, STALE_ENTRIES, FairQueue
from kontext_async.decisions.shares import ShareOptions

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from kontext_async.decisions.shares import ShareState, Ticket

POOL = "pro"


class Office:
    """A queue, and the slots before which it stands; one unit of time for each turn."""

    def __init__(self, slots: int) -> None:
        self.queue: FairQueue[str] = FairQueue()
        self.slots = slots
        self.now = 0.0
        self.running: list[tuple[float, int, ShareState[str], str, float]] = []
        self.started: list[tuple[float, str]] = []
        self.durations: dict[str, float] = defaultdict(lambda: 1.0)
        self.expected: dict[str, float] = defaultdict(lambda: 1.0)
        self.serial = 0

    def add(self, name: str, count: int = 1, *, weight: float = 1.0, priority: int = 0) -> None:
        options = ShareOptions(name, weight, priority)
        for _ in range(count):
            self.queue.push(self.queue.share(options, self.now), POOL, name)
        self.admit()

    def admit(self) -> None:
        while len(self.running) < self.slots and (ticket := self.queue.pop()):
            name = ticket.value
            expected = self.expected[name]
            self.queue.charge(ticket.share, expected)
            self.started.append((self.now, name))
            self.serial += 1
            end = self.now + self.durations[name]
            heapq.heappush(self.running, (end, self.serial, ticket.share, name, self.now + expected))

    def run(self, until: float = float("inf"), refill: Iterable[str] = ()) -> None:
        """Run until all have ended, or until a time; each of `refill` has a further request as soon as one starts."""
        while self.running and self.running[0][0] <= until:
            self.now, _, share, _, paid_until = heapq.heappop(self.running)
            self.queue.release(share, self.now - paid_until, self.now)
            for each in refill:
                if not self.queue.share(ShareOptions(each), self.now).queued:
                    self.queue.push(self.queue.share(ShareOptions(each), self.now), POOL, each)
            self.admit()

    def starts(self, name: str) -> list[float]:
        return [at for at, each in self.started if each == name]

    def seconds(self, name: str) -> float:
        return len(self.starts(name)) * self.durations[name]


class TestAmongShares:
    def test_within_a_share_the_first_one_is_first(self) -> None:
        queue: FairQueue[int] = FairQueue()
        share = queue.share(ShareOptions("a"), 0.0)
        for number in range(5):
            queue.push(share, POOL, number)
        popped = [ticket.value for _ in range(5) if (ticket := queue.pop())]
        assert popped == [0, 1, 2, 3, 4]
        assert queue.pop() is None

    def test_one_request_does_not_wait_for_the_500_of_another_share(self) -> None:
        office = Office(slots=24)
        office.add("greedy", 500)
        for number in range(20):
            office.add(f"user {number}")
        office.run()
        assert max(office.starts(f"user {number}")[0] for number in range(20)) == 1.0
        assert office.now == pytest.approx(-(-520 // 24)), "no slot was idle for it"

    def test_the_share_with_the_fewest_in_flight_is_next(self) -> None:
        office = Office(slots=6)
        office.add("a", 20)
        office.add("b", 20)
        office.run(until=3.0)
        in_flight = Counter(name for _, _, _, name, _ in office.running)
        assert in_flight == {"a": 3, "b": 3}

    def test_a_weight_of_three_has_three_times_the_slots(self) -> None:
        office = Office(slots=8)
        office.add("heavy", 200, weight=3.0)
        office.add("light", 200)
        office.run(until=10.0)
        assert Counter(name for _, _, _, name, _ in office.running) == {"heavy": 6, "light": 2}

    def test_a_new_weight_counts_for_requests_that_wait_already(self) -> None:
        office = Office(slots=4)
        office.add("a", 100)
        office.add("b", 100)
        office.queue.share(ShareOptions("a", 3.0), 0.0)
        office.run(until=6.0)
        assert Counter(name for _, _, _, name, _ in office.running) == {"a": 3, "b": 1}

    @pytest.mark.parametrize("known", [True, False])
    def test_one_slot_is_divided_by_time_and_not_by_requests(self, *, known: bool) -> None:
        office = Office(slots=1)
        office.durations.update(long=60.0, short=1.0)
        if known:
            office.expected.update(long=60.0, short=1.0)
        office.add("long", 30)
        office.add("short", 1500)
        office.run(until=1200.0)
        assert office.seconds("short") == pytest.approx(office.seconds("long"), abs=61)

    def test_a_share_that_comes_late_gains_nothing_from_its_idle_time(self) -> None:
        office = Office(slots=1)
        office.add("early", 1000)
        office.run(until=500.0)
        office.add("late", 100)
        begun = len(office.started)
        office.run(until=600.0)
        assert Counter(name for _, name in office.started[begun : begun + 40])["early"] == 20

    def test_a_share_that_leaves_and_comes_again_keeps_its_debt(self) -> None:
        office = Office(slots=1)
        office.durations["long"] = office.expected["long"] = 30.0
        office.add("long")
        office.add("short", 100)
        office.run(until=30.0)
        office.add("long")
        office.run(until=58.0)
        assert office.starts("long") == [0.0]
        office.run(until=90.0)
        assert len(office.starts("long")) == 2

    def test_a_debt_is_forgiven_after_a_minute(self) -> None:
        queue: FairQueue[str] = FairQueue()
        share = queue.share(ShareOptions("a"), 0.0)
        queue.charge(share, 100.0)
        queue.release(share, 0.0, 10.0)
        assert queue.share(ShareOptions("a"), 69.0).used == 100.0
        assert queue.share(ShareOptions("a"), 70.1).used == queue.shares.floor

    def test_a_correction_returns_what_was_charged_too_much(self) -> None:
        queue: FairQueue[str] = FairQueue()
        share = queue.share(ShareOptions("a", 2.0), 0.0)
        queue.charge(share, 10.0)
        assert share.used == 5.0
        queue.release(share, -8.0, 2.0)
        assert share.used == 1.0


class TestPools:
    def test_a_share_whose_first_request_has_no_room_is_skipped(self) -> None:
        queue: FairQueue[str] = FairQueue()
        queue.push(queue.share(ShareOptions("a"), 0.0), "max", "a on max")
        queue.push(queue.share(ShareOptions("b"), 0.0), "pro", "b on pro")
        full = {"max"}
        popped = queue.pop(lambda pool: pool not in full)
        assert popped is not None
        assert popped.value == "b on pro"
        assert queue.pop(lambda pool: pool not in full) is None
        assert queue.queued == 1
        full.clear()
        popped = queue.pop(lambda pool: pool not in full)
        assert popped is not None
        assert popped.value == "a on max"

    def test_a_full_pool_does_not_block_the_other_requests_of_a_share(self) -> None:
        queue: FairQueue[str] = FairQueue()
        share = queue.share(ShareOptions("a"), 0.0)
        queue.push(share, "max", "first")
        queue.push(share, "pro", "second")
        popped = queue.pop(lambda pool: pool == "pro")
        assert popped is not None
        assert popped.value == "second"

    def test_the_order_over_all_pools_is_that_of_one(self) -> None:
        queue: FairQueue[int] = FairQueue()
        share = queue.share(ShareOptions("a"), 0.0)
        for number in range(6):
            queue.push(share, number % 3, number)
        assert [ticket.value for _ in range(6) if (ticket := queue.pop())] == list(range(6))


class TestPriority:
    def test_a_higher_class_comes_first_and_the_lower_one_gets_a_tenth(self) -> None:
        office = Office(slots=4)
        office.add("web", 4000)
        office.add("bulk", 4000, priority=-1)
        office.run(until=500.0)
        assert office.seconds("bulk") / 2000 == pytest.approx(LOWER_PART, abs=0.01)

    def test_the_tenth_is_one_of_time(self) -> None:
        office = Office(slots=2)
        office.durations["bulk"] = office.expected["bulk"] = 10.0
        office.add("web", 4000)
        office.add("bulk", 400, priority=-1)
        office.run(until=1000.0)
        assert office.seconds("bulk") / 2000 == pytest.approx(LOWER_PART, abs=0.02)

    def test_a_lower_class_with_one_request_at_a_time_gets_no_more_than_that(self) -> None:
        office = Office(slots=1)
        office.add("web", 2000, priority=1)
        office.add("bulk")
        office.run(until=1000.0, refill=["bulk"])
        assert office.seconds("bulk") / 1000 == pytest.approx(LOWER_PART, abs=0.01)

    def test_of_three_classes_the_lowest_gets_a_tenth_of_a_tenth(self) -> None:
        office = Office(slots=1)
        for name, priority in (("high", 2), ("middle", 1), ("low", 0)):
            office.add(name, 10_000, priority=priority)
        office.run(until=5000.0)
        assert office.seconds("middle") / 5000 == pytest.approx(0.09, abs=0.005)
        assert office.seconds("low") / 5000 == pytest.approx(0.01, abs=0.005)

    def test_a_lower_class_has_all_slots_while_no_higher_one_waits(self) -> None:
        office = Office(slots=3)
        office.add("bulk", 30, priority=-5)
        office.run()
        assert office.now == 10.0

    def test_an_idle_lower_class_saves_nothing_up(self) -> None:
        office = Office(slots=1)
        office.add("web", 2000)
        office.run(until=1000.0)
        office.add("bulk", 500, priority=-1)
        office.run(until=1100.0)
        assert office.seconds("bulk") == pytest.approx(11, abs=2)


class TestRemove:
    def test_a_removed_request_is_not_next_and_does_not_count(self) -> None:
        queue: FairQueue[int] = FairQueue()
        share = queue.share(ShareOptions("a"), 0.0)
        tickets = [queue.push(share, POOL, number) for number in range(4)]
        queue.remove(tickets[0], 0.0)
        queue.remove(tickets[2], 0.0)
        queue.remove(tickets[2], 0.0)
        assert queue.queued == share.queued == queue.counted == 2
        assert [ticket.value for _ in range(4) if (ticket := queue.pop())] == [1, 3]

    def test_requests_of_patient_senders_do_not_count(self) -> None:
        queue: FairQueue[int] = FairQueue()
        share = queue.share(ShareOptions("a"), 0.0)
        queue.push(share, POOL, 1, counts=False)
        queue.push(share, POOL, 2)
        assert (queue.queued, queue.counted, share.counted) == (2, 1, 1)
        queue.pop()
        assert (queue.queued, queue.counted, share.counted) == (1, 1, 1)

    def test_the_last_request_that_leaves_drops_its_share(self) -> None:
        queue: FairQueue[int] = FairQueue()
        ticket = queue.push(queue.share(ShareOptions("a"), 0.0), POOL, 1)
        assert len(queue.shares) == 1
        queue.remove(ticket, 0.0)
        assert len(queue.shares) == 0
        assert queue.shares.active_weight == 0.0


def test_entries_of_a_heap_stay_few_however_often_positions_change() -> None:
    queue: FairQueue[int] = FairQueue()
    shares = [queue.share(ShareOptions(str(number)), 0.0) for number in range(10)]
    for share in shares:
        queue.push(share, POOL, 0)
    for number in range(5000):
        queue.charge(shares[number % 10], 1.0)
    (lane,) = queue._lanes.values()
    assert len(lane._heap) <= 2 * 10 + STALE_ENTRIES + 1


Operation = tuple[str, int, int]


@given(
    st.lists(st.tuples(st.sampled_from(["push", "remove", "pop", "release", "weigh"]), st.integers(0, 4)), max_size=80),
    st.randoms(),
)
def test_the_next_request_is_always_that_of_the_definition(
    operations: list[tuple[str, int]], chance: random.Random
) -> None:
    """Every pop is compared with a search over all requests that wait."""
    queue: FairQueue[int] = FairQueue()
    waiting: dict[int, Ticket[int]] = {}
    running: list[ShareState[int]] = []
    weights: dict[int, float] = defaultdict(lambda: 1.0)
    for number, (operation, which) in enumerate(operations):
        options = ShareOptions(str(which), weights[which])
        if operation == "push":
            waiting[number] = queue.push(queue.share(options, 0.0), which % 2, number)
        elif operation == "weigh":
            weights[which] = float(chance.randint(1, 3))
            queue.share(ShareOptions(str(which), weights[which]), 0.0)
        elif operation == "remove" and waiting:
            queue.remove(waiting.pop(chance.choice(sorted(waiting))), 0.0)
        elif operation == "release" and running:
            queue.release(running.pop(chance.randrange(len(running))), chance.uniform(-1, 5), 0.0)
        elif operation == "pop":
            full = {which}
            allowed = [ticket for ticket in waiting.values() if ticket.pool not in full]
            expected = min(allowed, key=lambda each: (each.share.load, each.share.used, each.number), default=None)
            ticket = queue.pop(lambda pool, full=full: pool not in full)  # type: ignore[misc]
            assert ticket is expected
            if ticket:
                del waiting[ticket.value]
                queue.charge(ticket.share, chance.uniform(0, 10))
                running.append(ticket.share)
        assert queue.queued == len(waiting)

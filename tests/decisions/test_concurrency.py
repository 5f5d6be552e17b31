"""The limit by itself: each rule, and its ceiling."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from kontext_async.decisions.concurrency import (
    DECREASE,
    FIRST_PROBE_SECONDS,
    FIRST_ROUND,
    JITTER,
    MAX_SECONDS,
    STEADY_DECREASE,
    AdaptiveLimit,
)

PAUSE_OVER = 1.0
"""A time by which the pauses of `throttle` are over, when the first throttled requests were sent at 0."""

MIDDLE = 0.5
"""The random number that lengthens and shortens nothing."""


def submit(limiter: AdaptiveLimit, now: float) -> int:
    """Acquire every slot that is free, and return their number."""
    before = limiter.in_flight
    while limiter.can_acquire(now):
        limiter.acquire(now)
    return limiter.in_flight - before


def accept(limiter: AdaptiveLimit, count: int, sent_at: float) -> None:
    for _ in range(count):
        limiter.record_accepted(sent_at, sent_at)


def throttle(
    limiter: AdaptiveLimit, sent_at: float, now: float, retry_after: float | None = 0.0, random: float = MIDDLE
) -> float:
    pause = limiter.record_throttled(sent_at, now, retry_after, random)
    limiter.release(accepted=False)
    return pause


def end_tasks(limiter: AdaptiveLimit, count: int) -> None:
    for _ in range(count):
        limiter.release(accepted=True)


def fill(limiter: AdaptiveLimit, slots: int, now: float = 0.0) -> None:
    """Submit as an account with so many slots allows; each round is accepted up to that, and then throttled."""
    while sent := submit(limiter, now):
        accepted = min(sent, slots - limiter.accepted_in_flight)
        accept(limiter, accepted, now)
        for _ in range(sent - accepted):
            throttle(limiter, now, now)


def new_limiter(slots: int, ceiling: int = 10_000) -> AdaptiveLimit:
    """Return a limit that found the slots of an account at the time 0, and has as many tasks in flight."""
    limiter = AdaptiveLimit(ceiling)
    fill(limiter, slots)
    assert limiter.accepted_in_flight == limiter.in_flight == slots
    return limiter


def end_surplus(limiter: AdaptiveLimit) -> None:
    """End the tasks beyond the limit."""
    end_tasks(limiter, limiter.in_flight - int(limiter.limit))


def throttle_probe(limiter: AdaptiveLimit) -> float:
    """Send the next probe, which is throttled, and return the time at which that happens."""
    now = limiter.next_chance(PAUSE_OVER)
    submit(limiter, now)
    throttle(limiter, now, now)
    return now


class TestGrowth:
    def test_a_few_create_requests_go_out_at_first(self) -> None:
        assert submit(AdaptiveLimit(24), 0.0) == FIRST_ROUND == 4

    def test_a_lower_ceiling_bounds_the_first_round(self) -> None:
        limiter = AdaptiveLimit(3)
        assert submit(limiter, 0.0) == 3
        limiter.release(accepted=False)
        assert submit(limiter, 0.0) == 1

    def test_each_round_that_is_accepted_is_followed_by_one_twice_as_large(self) -> None:
        limiter = AdaptiveLimit(1000)
        rounds = []
        for now in range(5):
            rounds.append(submit(limiter, now))
            accept(limiter, rounds[-1], now)
        assert rounds == [4, 8, 16, 32, 64]

    def test_one_slow_response_does_not_delay_the_next_round(self) -> None:
        limiter = AdaptiveLimit(1000)
        assert submit(limiter, 0.0) == 4
        accept(limiter, 2, 0.0)
        assert submit(limiter, 0.0) == 0
        accept(limiter, 1, 0.0)
        assert submit(limiter, 0.0) == 8

    def test_requests_that_come_one_by_one_need_not_wait_for_the_end_of_a_task(self) -> None:
        limiter = AdaptiveLimit(1000)
        for now in range(100):
            assert limiter.can_acquire(now)
            limiter.acquire(now)
            accept(limiter, 1, now)

    def test_the_limit_grows_only_while_all_of_it_is_used(self) -> None:
        limiter = AdaptiveLimit(100)
        for _ in range(20):
            limiter.acquire(0.0)
            limiter.record_accepted(0.0, 0.0)
            limiter.release(accepted=True)
        assert limiter.limit == FIRST_ROUND

    def test_an_account_with_few_slots_is_found_within_few_rounds(self) -> None:
        limiter = AdaptiveLimit(1000)
        fill(limiter, 24)
        assert limiter.accepted_in_flight == 24
        assert limiter.limit == round(DECREASE * 24)


class TestDecrease:
    def test_a_decrease_leaves_most_of_the_accepted_tasks(self) -> None:
        assert new_limiter(20).limit == round(DECREASE * 20)

    def test_a_session_that_nobody_takes_slots_from_decreases_less(self) -> None:
        limiter = new_limiter(20)
        end_surplus(limiter)
        fill(limiter, 20, now=limiter.next_chance(PAUSE_OVER))
        assert limiter.limit == limiter.accepted_in_flight == 20
        now = limiter.paused_until
        end_tasks(limiter, 1)
        limiter.acquire(now)
        throttle(limiter, now, now)
        assert limiter.limit == round(STEADY_DECREASE * 19)

    def test_the_same_congestion_leads_to_one_decrease(self) -> None:
        limiter = AdaptiveLimit(1000)
        accept(limiter, submit(limiter, 0.0), 0.0)
        accept(limiter, submit(limiter, 1.0), 1.0)
        for _ in range(submit(limiter, 2.0)):
            throttle(limiter, 2.0, 2.5)
        assert limiter.limit == round(DECREASE * 12)

    def test_requests_in_flight_at_a_decrease_raise_the_limit_when_they_are_accepted(self) -> None:
        limiter = AdaptiveLimit(1000)
        accept(limiter, submit(limiter, 0.0), 0.0)
        assert submit(limiter, 1.0) == 8
        throttle(limiter, 1.0, 1.5)
        throttle(limiter, 1.0, 1.5)
        assert limiter.limit == round(DECREASE * 4)
        accept(limiter, 6, 1.0)
        assert limiter.limit == 10

    def test_after_a_burst_that_is_throttled_at_first_a_probe_comes_soon(self) -> None:
        limiter = AdaptiveLimit(100)
        assert submit(limiter, 0.0) == 4
        for _ in range(2):
            throttle(limiter, 0.0, 0.5)
        accept(limiter, 2, 0.0)
        assert limiter.limit == 2
        assert limiter.can_acquire(limiter.next_chance(PAUSE_OVER))

    def test_the_limit_never_falls_below_one(self) -> None:
        limiter = AdaptiveLimit(5)
        now = 0.0
        for _ in range(20):
            now = max(now, limiter.paused_until)
            for _ in range(submit(limiter, now)):
                throttle(limiter, now, now + 0.5)
            now += 0.5
        assert limiter.limit == 1
        assert submit(limiter, limiter.paused_until) == 1

    @pytest.mark.parametrize(
        ("accepted", "throttled"),
        [(1, 1), (26, 1), (27, 2), (80, 2), (81, 3), (242, 3), (243, 4), (729, 5), (1500, 5)],
    )
    def test_a_decrease_at_a_higher_level_needs_more_throttled_requests(self, accepted: int, throttled: int) -> None:
        limiter = new_limiter(2000)
        before = limiter.limit
        end_tasks(limiter, 2000 - accepted)
        for place in range(1, throttled + 1):
            limiter.acquire(1.0)
            throttle(limiter, 1.0, 2.0)
            assert (limiter.limit == before) is (place < throttled)
        assert limiter.limit == max(1, round(DECREASE * accepted))

    def test_a_large_round_of_growth_ends_with_several_throttled_requests(self) -> None:
        limiter = AdaptiveLimit(1000)
        accept(limiter, submit(limiter, 0.0), 0.0)
        accept(limiter, submit(limiter, 1.0), 1.0)
        assert submit(limiter, 2.0) == 16
        limits = []
        for _ in range(3):
            throttle(limiter, 2.0, 2.5)
            limits.append(limiter.limit)
        assert limits == [28, 28, round(DECREASE * 12)]

    def test_an_accepted_request_at_the_level_of_a_throttled_one_prevents_a_decrease(self) -> None:
        limiter = new_limiter(130)
        end_tasks(limiter, 30)
        for now in range(1, 50):
            limiter.acquire(now)
            limiter.acquire(now)
            throttle(limiter, now, now + 0.5)
            accept(limiter, 1, now)
            end_tasks(limiter, 1)
        assert limiter.limit == round(DECREASE * 130)

    def test_an_accepted_request_far_below_a_throttled_one_does_not_prevent_a_decrease(self) -> None:
        limiter = new_limiter(130)
        end_tasks(limiter, 30)
        for _ in range(2):
            limiter.acquire(1.0)
            throttle(limiter, 1.0, 1.5)
        end_tasks(limiter, 20)
        limiter.acquire(2.0)
        accept(limiter, 1, 2.0)
        assert limiter.limit == round(DECREASE * 130)
        limiter.acquire(3.0)
        throttle(limiter, 3.0, 3.5)
        assert limiter.limit == round(DECREASE * 81)


class TestProbes:
    def test_one_request_goes_beyond_the_limit_when_the_time_has_come(self) -> None:
        limiter = new_limiter(20)
        end_surplus(limiter)
        chance = limiter.next_chance(PAUSE_OVER)
        assert chance == FIRST_PROBE_SECONDS
        assert submit(limiter, chance - 0.01) == 0
        assert submit(limiter, chance) == 1
        assert limiter.in_flight == int(limiter.limit) == 17

    def test_one_request_goes_beyond_the_limit_after_some_accepted_ones(self) -> None:
        limiter = new_limiter(20)
        end_surplus(limiter)
        replaced = 0
        while not limiter.can_acquire(0.5):
            end_tasks(limiter, 1)
            limiter.acquire(0.5)
            accept(limiter, 1, 0.5)
            replaced += 1
        assert replaced < 16, "less than a round"

    def test_a_throttled_probe_leaves_the_level(self) -> None:
        limiter = new_limiter(20)
        end_surplus(limiter)
        throttle_probe(limiter)
        assert limiter.limit == limiter.accepted_in_flight == 16

    def test_an_accepted_probe_leads_back_to_the_level_that_growth_reached(self) -> None:
        limiter = new_limiter(200)
        end_surplus(limiter)
        assert limiter.in_flight == 160
        fill(limiter, 1000, now=limiter.next_chance(PAUSE_OVER))
        assert limiter.accepted_in_flight == 200

    def test_a_slot_that_others_took_is_not_taken_back_at_once(self) -> None:
        limiter = new_limiter(20)
        end_surplus(limiter)
        end_tasks(limiter, 1)
        limiter.acquire(PAUSE_OVER)
        throttle(limiter, PAUSE_OVER, PAUSE_OVER)
        assert limiter.limit == round(DECREASE * 15)
        end_surplus(limiter)
        fill(limiter, 1000, now=limiter.next_chance(2 * PAUSE_OVER))
        assert limiter.accepted_in_flight == 13, "one slot for each probe"

    def test_a_probe_that_is_accepted_at_the_level_of_a_throttled_request_begins_growth(self) -> None:
        limiter = new_limiter(20)
        end_surplus(limiter)
        now = throttle_probe(limiter)
        fill(limiter, 1000, now=limiter.next_chance(now + PAUSE_OVER))
        assert limiter.accepted_in_flight == 1000

    def test_probes_that_are_throttled_become_rarer_up_to_a_bound(self) -> None:
        limiter = new_limiter(20)
        end_surplus(limiter)
        chances = [0.0]
        for _ in range(20):
            chances.append(limiter.next_chance(max(chances[-1], limiter.paused_until)))
            submit(limiter, chances[-1])
            throttle(limiter, chances[-1], chances[-1])
        waits = [after - before for before, after in pairwise(chances)]
        assert waits == sorted(waits)
        assert waits[0] == FIRST_PROBE_SECONDS
        assert waits[-1] == pytest.approx(MAX_SECONDS)

    @pytest.mark.parametrize(("random", "factor"), [(0.0, 1 - JITTER), (0.5, 1.0), (1.0, 1 + JITTER)])
    def test_sessions_that_were_throttled_together_do_not_probe_together(self, random: float, factor: float) -> None:
        limiter = AdaptiveLimit(100)
        accept(limiter, submit(limiter, 0.0), 0.0)
        for _ in range(submit(limiter, 0.0)):
            throttle(limiter, 0.0, 0.0, random=random)
        end_surplus(limiter)
        assert limiter.next_chance(limiter.paused_until) == pytest.approx(factor * FIRST_PROBE_SECONDS)

    def test_no_probe_goes_beyond_the_ceiling(self) -> None:
        limiter = new_limiter(20)
        limiter.ceiling = 16
        end_surplus(limiter)
        assert limiter.next_chance(PAUSE_OVER) == math.inf
        assert submit(limiter, 1e6) == 0

    def test_there_is_nothing_to_probe_while_slots_are_free_or_the_limit_grows(self) -> None:
        growing = AdaptiveLimit(100)
        submit(growing, 0.0)
        assert growing.next_chance(0.0) == math.inf
        found = new_limiter(20)
        end_tasks(found, 10)
        assert found.next_chance(PAUSE_OVER) == math.inf


class TestPause:
    def test_no_slot_is_available_before_the_end_of_a_pause(self) -> None:
        limiter = AdaptiveLimit(10)
        limiter.acquire(0.0)
        pause = throttle(limiter, 0.0, 1.0, retry_after=5.0)
        assert 5.0 <= pause <= 5.1
        assert limiter.next_chance(1.0) == limiter.paused_until == 1.0 + pause
        assert not limiter.can_acquire(5.9)
        assert limiter.can_acquire(1.0 + pause)

    def test_a_shorter_pause_does_not_end_a_longer_one(self) -> None:
        limiter = AdaptiveLimit(10)
        limiter.acquire(0.0)
        limiter.acquire(0.0)
        throttle(limiter, 0.0, 1.0, retry_after=5.0, random=0.0)
        throttle(limiter, 0.0, 1.0, retry_after=1.0, random=0.0)
        assert limiter.paused_until == 6.0

    @pytest.mark.parametrize("retry_after", [None, 0.0])
    def test_pauses_double_while_nothing_is_accepted_but_stay_short(self, retry_after: float | None) -> None:
        limiter = AdaptiveLimit(100)
        now = 0.0
        pauses = []
        for _ in range(8):
            limiter.acquire(now)
            pauses.append(throttle(limiter, now, now + 0.1, retry_after, random=1.0))
            now = limiter.paused_until
        assert pauses == sorted(pauses)
        assert pauses[-1] == (2.0 if retry_after is None else 1.0)
        limiter.acquire(now)
        accept(limiter, 1, now)
        limiter.acquire(now)
        assert throttle(limiter, now + 1, now + 1, retry_after, random=1.0) == pauses[0]

    def test_the_requests_of_one_burst_count_as_one(self) -> None:
        limiter = AdaptiveLimit(100)
        pauses = {throttle(limiter, 0.0, 0.1, None) for _ in range(submit(limiter, 0.0))}
        assert len(pauses) == 1

    def test_one_request_at_a_time_goes_out_while_others_have_all_slots_and_then_growth_begins(self) -> None:
        limiter = AdaptiveLimit(100)
        fill(limiter, 0)
        now = limiter.paused_until
        for _ in range(5):
            assert submit(limiter, now) == 1
            throttle(limiter, now, now)
            now = limiter.paused_until
        fill(limiter, 50, now)
        assert limiter.accepted_in_flight == 50


class TestIdle:
    def test_after_a_time_with_nothing_in_flight_growth_leads_to_what_was_found(self) -> None:
        limiter = new_limiter(40)
        end_tasks(limiter, 40)
        rounds = []
        for now in range(1, 10):
            rounds.append(submit(limiter, now))
            accept(limiter, rounds[-1], now)
        assert rounds[:6] == [4, 8, 16, 12, 0, 0], "40 in all"

    def test_what_was_never_throttled_is_not_forgotten(self) -> None:
        limiter = AdaptiveLimit(20)
        fill(limiter, 1000)
        end_tasks(limiter, 20)
        assert submit(limiter, 1.0) == 20


class TestCeiling:
    def test_a_lower_ceiling_holds_at_once_and_a_higher_one_again(self) -> None:
        limiter = AdaptiveLimit(24)
        fill(limiter, 1000)
        for ceiling in (20, 7, 24):
            limiter.ceiling = ceiling
            assert limiter.limit == ceiling

    def test_a_higher_ceiling_is_reached_by_growth(self) -> None:
        limiter = AdaptiveLimit(20)
        fill(limiter, 1000)
        limiter.ceiling = 1000
        assert submit(limiter, 1.0) <= 24
        accept(limiter, limiter.in_flight - limiter.accepted_in_flight, 1.0)
        fill(limiter, 1000, 2.0)
        assert limiter.accepted_in_flight == 1000

    def test_requests_that_were_accepted_under_a_lower_ceiling_do_not_stop_growth(self) -> None:
        limiter = AdaptiveLimit(100)
        accept(limiter, submit(limiter, 0.0), 0.0)
        assert submit(limiter, 1.0) == 8
        limiter.ceiling = 1
        accept(limiter, 8, 1.0)
        limiter.ceiling = 100
        assert submit(limiter, 2.0) > 0

    def test_a_higher_ceiling_keeps_the_limit_that_a_decrease_left(self) -> None:
        limiter = new_limiter(20, ceiling=100)
        for ceiling in (500, 2, 1000):
            limiter.ceiling = ceiling
            assert limiter.limit == min(ceiling, round(DECREASE * 20))

    def test_a_decrease_above_a_lower_ceiling_starts_from_the_accepted_tasks(self) -> None:
        limiter = AdaptiveLimit(100)
        fill(limiter, 80)
        limiter.ceiling = 10
        assert limiter.limit == 10
        limiter.ceiling = 100
        assert limiter.limit == round(DECREASE * 80)

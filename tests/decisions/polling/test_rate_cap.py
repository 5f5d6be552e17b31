from __future__ import annotations

import math

import pytest
from hypothesis import example, given, strategies as st

from kontext_async.decisions.polling.rate_cap import RateCap

rates = st.floats(0.1, 500)


def acquire_all(cap: RateCap, now: float, most: int = 2000) -> int:
    """Acquire what is allowed now, and return how many polls that are."""
    acquired = 0
    while cap.ready_at() <= now and acquired < most:
        cap.acquire(now)
        acquired += 1
    return acquired


@given(rates, st.lists(st.floats(0, 0.5), max_size=50))
def test_the_rate_is_kept_in_any_second(rate: float, gaps: list[float]) -> None:
    cap, now = RateCap(rate), 0.0
    acquired: list[float] = []
    for gap in gaps:
        now += gap
        acquired += [now] * acquire_all(cap, now)
    for place, begin in enumerate(acquired):
        within = sum(1 for at in acquired[place:] if at < begin + 1 - 1e-6)
        assert within <= math.ceil(rate)


@pytest.mark.parametrize("rate", [0.5, 2.5, 30.0, 999.9])
def test_the_rate_is_used_in_full(rate: float) -> None:
    cap, now, acquired = RateCap(rate), 0.0, 0
    while now < 100:
        now = max(now, cap.ready_at())
        cap.acquire(now)
        acquired += 1
    assert acquired == pytest.approx(100 * rate, abs=rate + 2)


def test_a_loop_that_wakes_a_little_late_loses_little_of_its_rate() -> None:
    cap, now, acquired = RateCap(100.0), 0.0, 0
    while now < 10:
        now = max(now, cap.ready_at()) + 0.02
        acquired += acquire_all(cap, now)
    assert acquired >= 0.97 * 1000


def test_half_of_the_polls_go_out_together_and_the_others_are_spaced() -> None:
    cap = RateCap(10.0)
    assert acquire_all(cap, 5.0) == 5
    assert cap.ready_at() == pytest.approx(5.1)
    assert acquire_all(cap, 5.1) == 1
    assert cap.ready_at() == pytest.approx(5.2, abs=0.05)


def test_an_urgent_poll_waits_for_a_moment_while_more_are_due_than_allowed() -> None:
    cap, now = RateCap(30.0), 0.0
    for _ in range(300):
        cap.acquire(now := max(now, cap.ready_at()))
    for _ in range(60):
        assert cap.ready_at() <= now + 4 / 30
        cap.acquire(now := max(now, cap.ready_at()))


def test_an_idle_time_is_not_saved_up() -> None:
    cap = RateCap(10.0)
    assert acquire_all(cap, 0.0) == acquire_all(cap, 100.0) == 5


@given(rates, st.lists(st.floats(0, 3.0), max_size=50))
def test_no_poll_is_later_than_with_even_spaces(rate: float, gaps: list[float]) -> None:
    cap, due, even, previous = RateCap(rate), 0.0, float("-inf"), 0.0
    for gap in gaps:
        due += gap / rate
        even = max(due, even + 1 / rate)
        previous = max(due, previous, cap.ready_at())
        cap.acquire(previous)
        assert previous <= even + 1e-6


@given(rates, st.lists(st.floats(0, 0.5), max_size=50))
@example(20.0, [0.0, 0.25])
def test_the_allowance_is_the_number_of_polls_that_are_ready(rate: float, gaps: list[float]) -> None:
    cap, now = RateCap(rate), 0.0
    for gap in gaps:
        now += gap
        allowance = cap.allowance(now, 2000)
        assert acquire_all(cap, now) == allowance

from __future__ import annotations

from hypothesis import given, strategies as st

from kontext_async.decisions.polling.rate_cap import TOLERANCE, RateCap


@given(st.floats(0.1, 500), st.lists(st.floats(0, 0.5), max_size=150))
def test_the_rate_is_kept_in_any_second(rate: float, gaps: list[float]) -> None:
    cap, now = RateCap(rate), 0.0
    acquired: list[float] = []
    for gap in gaps:
        now += gap
        while cap.ready_at() <= now and len(acquired) < 2000:
            cap.acquire(now)
            acquired.append(now)
    for place, begin in enumerate(acquired):
        within = sum(1 for at in acquired[place:] if at < begin + 1)
        assert within <= rate * (1 + TOLERANCE) + 1 + 1e-6


def test_a_loop_that_wakes_on_time_has_the_whole_rate() -> None:
    cap, now, acquired = RateCap(30.0), 0.0, 0
    while now < 10:
        now = max(now, cap.ready_at())
        cap.acquire(now)
        acquired += 1
    assert 300 <= acquired <= 303


def test_a_loop_that_wakes_a_little_late_does_not_lose_its_rate() -> None:
    cap, now, acquired = RateCap(100.0), 0.0, 0
    while now < 10:
        now = max(now, cap.ready_at()) + 0.02
        while cap.ready_at() <= now:
            cap.acquire(now)
            acquired += 1
    assert acquired >= 0.97 * 1000


def test_an_idle_time_is_not_saved_up() -> None:
    cap = RateCap(10.0)
    cap.acquire(0.0)
    acquired = 0
    while cap.ready_at() <= 100.0:
        cap.acquire(100.0)
        acquired += 1
    assert acquired == 1


@given(st.floats(0.1, 500), st.lists(st.floats(0, 0.5), max_size=50))
def test_the_allowance_is_the_number_of_polls_that_are_ready(rate: float, gaps: list[float]) -> None:
    cap, now = RateCap(rate), 0.0
    for gap in gaps:
        now += gap
        allowance = cap.allowance(now)
        acquired = 0
        while cap.ready_at() <= now:
            cap.acquire(now)
            acquired += 1
        assert abs(acquired - allowance) <= 1, "rounding may differ by one"

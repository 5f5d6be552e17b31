from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from polling_support import DONE

from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.timing import EARLY, JITTER, IntervalTiming
from kontext_async.settings import Polling

randoms = st.floats(0, 1)
pollings = st.builds(
    lambda initial_delay, low, factor, interval: Polling(
        initial_delay=initial_delay, min_interval=low, max_interval=low * factor, interval=interval
    ),
    st.floats(0, 100),
    st.floats(0.01, 10),
    st.floats(1, 100),
    st.floats(0.001, 1000),
)


@given(pollings, st.floats(0, 1e6), st.floats(0, 1e3), randoms)
def test_the_first_poll_is_due_after_the_initial_delay(
    polling: Polling, since: float, late: float, random: float
) -> None:
    now = since + late
    due = IntervalTiming(polling).first_poll(PollEntry("t", since), now, random)
    assert due >= now
    assert due == now or since + polling.initial_delay * (1 - JITTER) <= due + 1e-6
    assert due <= max(now, since + polling.initial_delay * (1 + JITTER) + 1e-6)


@given(pollings, st.floats(0, 1e6), st.floats(0, 1e3), randoms)
def test_the_next_poll_is_due_after_the_interval_and_sooner_while_the_task_is_young(
    polling: Polling, now: float, age: float, random: float
) -> None:
    due = IntervalTiming(polling).next_poll(PollEntry("t", now - age), None, now, random)
    interval = min(polling.max_interval, max(polling.min_interval, polling.interval))
    if age < interval / EARLY:
        interval = min(interval, max(polling.min_interval, EARLY * max(interval, age)))
    assert now + interval * (1 - JITTER) - 1e-6 <= due <= now + interval * (1 + JITTER) + 1e-6
    assert due > now


def test_jitter_spreads_tasks_that_were_created_together() -> None:
    timing = IntervalTiming(Polling(initial_delay=10.0))
    dues = [timing.first_poll(PollEntry("t", 0.0), 0.0, random / 10) for random in range(11)]
    assert [dues[0], dues[5], dues[10]] == pytest.approx([9.0, 10.0, 11.0])
    assert len(set(dues)) == 11


def test_a_fixed_interval_learns_nothing_from_an_end() -> None:
    timing = IntervalTiming(Polling())
    before = timing.next_poll(PollEntry("t", 0.0), None, 5.0, 0.5)
    timing.observe_end(PollEntry("t", 0.0), DONE, 100.0)
    assert timing.next_poll(PollEntry("t", 0.0), None, 5.0, 0.5) == before

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st
from polling_support import DONE, Job, ages_around, train, trained_timing

from kontext_async.decisions.polling.adaptive import (
    COARSEST,
    MAX_KINDS,
    MIN_ENDS,
    MIN_ENDS_PER_KIND,
    AdaptiveTiming,
    nearest_on_grid,
)
from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.timing import IntervalTiming
from kontext_async.settings import Polling

if TYPE_CHECKING:
    from collections.abc import Hashable

randoms = st.floats(0, 1)
ages = st.one_of(st.floats(0, 100), st.floats(-1e6, 1e12), st.sampled_from([0.0, 1e-300, 1e-9, 1e300]))
pollings = st.builds(
    lambda low, factor, poll_cost: Polling(min_interval=low, max_interval=low * factor, poll_cost=poll_cost),
    st.floats(0.005, 5),
    st.floats(1, 100),
    st.floats(1e-3, 100),
)


def first_poll(timing: AdaptiveTiming[Any], task: PollEntry | None = None) -> float:
    return timing.first_poll(task or PollEntry("t", 0.0), 0.0, 0.5)


@given(pollings, randoms, st.integers(0, 7))
def test_the_interval_applies_until_enough_ends_are_known(polling: Polling, random: float, ends: int) -> None:
    timing, fixed = AdaptiveTiming[PollEntry](polling), IntervalTiming(polling)
    for age in ages_around(10, 7)[:ends]:
        train(timing, age)
    task = PollEntry("t", 3.0)
    assert timing.first_poll(task, 3.5, random) == fixed.first_poll(task, 3.5, random)
    task.due = 7.0
    assert timing.next_poll(task, None, 7.2, random) == fixed.next_poll(task, None, 7.2, random)
    assert timing.expected_delay(task, 9.0) == fixed.expected_delay(task, 9.0) == 2.0


@settings(max_examples=50)
@given(pollings, st.lists(st.tuples(ages, ages, st.booleans(), st.floats(0, 1)), max_size=30), ages, ages, randoms)
def test_gaps_stay_within_their_bounds(
    polling: Polling, history: list[tuple[float, float, bool, float]], since: float, polled_at: float, random: float
) -> None:
    timing = AdaptiveTiming[PollEntry](polling)
    for age in ages_around(10, MIN_ENDS):
        train(timing, age)
    for accepted, at, ended, progress in history:
        task = PollEntry("t", accepted)
        timing.first_poll(task, accepted, random)
        task.due = at
        if ended:
            timing.observe_end(task, DONE, at)
        else:
            timing.next_poll(task, progress, at, random)
    for task in (PollEntry("t", since), PollEntry("t", polled_at)):
        small = 1e-9 + 1e-12 * abs(polled_at)
        due = timing.first_poll(task, polled_at, random)
        assert polled_at <= due <= polled_at + polling.max_interval + small
        task.due = polled_at
        due = timing.next_poll(task, None, polled_at, random)
        assert polled_at + polling.min_interval - small <= due <= polled_at + polling.max_interval + small
        assert timing.expected_delay(task, polled_at + 1) >= 0


@given(st.floats(0, 1e6), st.floats(1e-3, 1e4))
def test_a_due_time_is_moved_by_an_eighth_of_its_gap_at_most(polled_at: float, gap: float) -> None:
    due = polled_at + gap
    moved = abs(nearest_on_grid(due, gap) - due)
    assert moved <= min(gap / 8, COARSEST / 2) + 1e-9


def test_tasks_that_are_due_at_about_the_same_time_are_polled_together() -> None:
    dues = [100 + part / 1000 for part in range(1000)]
    assert len({nearest_on_grid(due, 0.3) for due in dues}) == 17
    assert len({nearest_on_grid(due, 0.6) for due in dues}) == len({nearest_on_grid(due, 60.0) for due in dues}) == 9


def test_tasks_that_all_last_the_same_time_are_polled_at_their_end() -> None:
    assert 9.5 < first_poll(trained_timing(*[10.0] * 50)) < 10.8


def test_recorded_durations_give_a_schedule_before_a_task_has_ended() -> None:
    timing = AdaptiveTiming[PollEntry](Polling(initial_delay=1.0, interval=1.0))
    for _ in range(MIN_ENDS):
        timing.learn((), 10.0)
    assert 5.0 < first_poll(timing) < 10.0
    task = PollEntry("t", 0.0)
    timing.first_poll(task, 0.0, 0.5)
    task.unfinished_at = task.due = 9.0
    assert timing.next_poll(task, None, 9.0, 0.5) < 10.5


@pytest.mark.parametrize("actual", [3.0, 30.0])
def test_recorded_durations_that_no_longer_hold_are_soon_outweighed(actual: float) -> None:
    timing = AdaptiveTiming[PollEntry](Polling(max_interval=60.0))
    for _ in range(16):
        timing.learn((), 10.0)
    for _ in range(60):
        train(timing, actual)
    task = PollEntry("t", 0.0)
    polls = [timing.first_poll(task, 0.0, 0.5)]
    while polls[-1] < actual:
        task.due = polls[-1]
        polls.append(timing.next_poll(task, None, polls[-1], 0.5))
    assert polls[-1] < 1.15 * actual
    assert len(polls) < 10


def test_gaps_beyond_all_observed_ages_grow_slowly() -> None:
    timing = trained_timing(*ages_around(10, 60), poll_cost=0.1)
    task = PollEntry("t", 0.0)
    timing.first_poll(task, 0.0, 0.5)
    for age in (40.0, 60.0, 90.0):
        task.unfinished_at = task.due = age
        assert timing.next_poll(task, None, age, 0.5) - age < 1.1 * math.sqrt(2 * 0.1 * age)


def test_a_late_response_does_not_lead_to_an_immediate_poll() -> None:
    timing = trained_timing(*ages_around(10, 50))
    task = PollEntry("t", 0.0)
    timing.first_poll(task, 0.0, 0.5)
    task.due = 10.0
    assert timing.next_poll(task, None, 13.0, 0.5) == pytest.approx(13.25)


class TestKinds:
    """Requests of several kinds, which may take different times."""

    def make_timing(self) -> AdaptiveTiming[Job]:
        return AdaptiveTiming(Polling(), lambda job: job.kind_name)

    def make_job(self, kind: Hashable | None, since: float = 0.0) -> Job:
        return Job("t", since, kind_name=kind)

    def test_kinds_share_one_model_until_each_has_enough_ends(self) -> None:
        timing = self.make_timing()
        for age in ages_around(10, MIN_ENDS_PER_KIND):
            train(timing, age, self.make_job("text"))
        assert 8 < first_poll(timing, self.make_job("image")) < 11
        for age in ages_around(30, MIN_ENDS_PER_KIND):
            train(timing, age, self.make_job("image"))
        assert 10 < first_poll(timing, self.make_job("image")) <= 15  # max_interval
        for age in ages_around(10, MIN_ENDS_PER_KIND):
            train(timing, age, self.make_job("text"))
        assert 8 < first_poll(timing, self.make_job("text")) < 10
        task = self.make_job("image")
        timing.first_poll(task, 0.0, 0.5)
        task.due = 15.0
        assert timing.next_poll(task, None, 15.0, 0.5) > 25

    def test_the_number_of_models_is_bounded(self) -> None:
        timing = self.make_timing()
        for number in range(3 * MAX_KINDS):
            train(timing, 10.0, self.make_job(number))
        assert len(timing._kind_models) == MAX_KINDS
        assert 9 < first_poll(timing, self.make_job("another")) < 11

    def test_attached_tasks_are_polled_at_the_interval_and_train_no_model(self) -> None:
        timing = self.make_timing()
        for age in ages_around(10, 50):
            train(timing, age, self.make_job("text"))
        before = first_poll(timing, self.make_job("text"))
        for _ in range(100):
            train(timing, 1.0, self.make_job(None))
        assert first_poll(timing, self.make_job("text")) == before
        assert first_poll(timing, self.make_job(None)) == 1.0
        task = self.make_job(None)
        timing.first_poll(task, 0.0, 0.5)
        assert timing.next_poll(task, None, 50.0, 0.5) == 51.0

"""The urgency of polls at the end of a batch, and what the timing makes of it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st
from polling_support import ExactTiming, ages_around, trained_timing

from kontext_async.decisions.polling.adaptive import COARSEST
from kontext_async.decisions.polling.batch_end import BatchEnd
from kontext_async.decisions.polling.entry import FailureStreak, Place, PollEntry
from kontext_async.decisions.polling.queue import PollQueue
from kontext_async.settings import Limits

counts = st.integers(0, 100_000)


def urgencies(in_flight: int) -> list[float]:
    """Return the urgency with 1, 2, … tasks left of a batch that had so many in flight."""
    end = BatchEnd()
    end.record_accepted(in_flight)
    return [end.urgency(left, more_to_come=False) for left in range(1, in_flight + 1)]


class TestUrgency:
    @given(counts, counts)
    def test_it_is_that_of_the_middle_while_requests_wait(self, in_flight: int, pending: int) -> None:
        end = BatchEnd()
        end.record_accepted(in_flight)
        assert end.urgency(pending, more_to_come=True) == 1

    @given(st.integers(1, 500))
    def test_it_falls_with_the_tasks_that_are_left_from_at_most_the_tasks_in_flight(self, in_flight: int) -> None:
        values = urgencies(in_flight)
        assert all(before >= after >= 1 for before, after in pairwise(values))
        assert values[0] <= 2 * in_flight, "rounded to a power of 4"

    @pytest.mark.parametrize("in_flight", [100, 1000, 100_000])
    def test_the_last_task_is_worth_about_all_that_were_in_flight(self, in_flight: int) -> None:
        assert in_flight / 2 <= urgencies(in_flight)[0] <= 2 * in_flight

    @pytest.mark.parametrize("in_flight", [10, 100, 1000, 100_000])
    def test_only_the_last_handful_of_tasks_is_urgent(self, in_flight: int) -> None:
        urgent = sum(value > 1 for value in urgencies(in_flight))
        assert 1 <= urgent <= 1 + math.log(in_flight) + 1

    def test_a_single_task_is_not_urgent(self) -> None:
        assert urgencies(1) == [1]

    def test_no_task_is_urgent_under_a_steady_load(self) -> None:
        """Each acceptance finds as many tasks pending as there are."""
        end = BatchEnd()
        for pending in (5, 4, 5, 5, 4):
            end.record_accepted(pending)
            assert end.urgency(pending, more_to_come=False) == 1
            assert end.urgency(pending - 1, more_to_come=False) == 1

    def test_a_batch_that_was_accepted_before_is_no_longer_the_measure(self) -> None:
        end = BatchEnd()
        end.record_accepted(1000)
        assert end.urgency(1, more_to_come=False) > 1
        end.record_accepted(1)
        assert end.urgency(1, more_to_come=False) == 1

    def test_nothing_is_urgent_without_tasks(self) -> None:
        assert BatchEnd().urgency(0, more_to_come=False) == 1
        assert BatchEnd().urgency(3, more_to_come=False) == 1


class TestTiming:
    def test_urgent_gaps_shrink_as_the_square_root_of_the_urgency(self) -> None:
        gaps = {}
        for urgency in (1.0, 4.0, 16.0):
            timing = trained_timing(*ages_around(10, 60), poll_cost=0.4, min_interval=0.01, max_interval=100)
            timing.urgency = urgency
            task = PollEntry("t", 0.0)
            timing.first_poll(task, 0.0, 0.5)
            task.unfinished_at = task.due = 60.0
            gaps[urgency] = timing.next_poll(task, None, 60.0, 0.5) - 60.0
        assert gaps[4.0] == pytest.approx(gaps[1.0] / 2, abs=COARSEST)
        assert gaps[16.0] == pytest.approx(gaps[1.0] / 4, abs=COARSEST)

    def test_urgent_gaps_are_at_least_the_shortest_interval(self) -> None:
        timing = trained_timing(*ages_around(10, 60), min_interval=0.25)
        timing.urgency = 1e6
        task = PollEntry("t", 0.0)
        timing.first_poll(task, 0.0, 0.5)
        task.due = 10.0
        assert timing.next_poll(task, None, 10.0, 0.5) == pytest.approx(10.25)

    def test_replanning_counts_from_the_last_poll_and_never_lies_in_the_past(self) -> None:
        timing = trained_timing(*ages_around(10, 60), max_interval=100)
        task = PollEntry("t", 0.0)
        timing.first_poll(task, 0.0, 0.5)
        task.due = 60.0
        due = timing.next_poll(task, None, 60.0, 0.5)
        assert timing.replan(task, 60.0, 0.5) == pytest.approx(due)
        timing.urgency = 16.0
        sooner = timing.replan(task, 60.0, 0.5)
        assert 60.0 < sooner < due
        assert timing.replan(task, sooner + 0.5, 0.5) == sooner + 0.5

    def test_a_fixed_schedule_stays_fixed(self) -> None:
        timing = trained_timing()
        task = PollEntry("t", 0.0)
        task.due = timing.first_poll(task, 0.0, 0.5)
        timing.urgency = 1e6
        assert timing.replan(task, 0.0, 0.5) == task.due == timing.first_poll(task, 0.0, 0.5)


class TestQueue:
    def scheduled(self) -> tuple[PollQueue[PollEntry], PollEntry]:
        """Return a queue, and a task in it that was polled at 1 s and is due at 3 s."""
        queue: PollQueue[PollEntry] = PollQueue(Limits(), ExactTiming(initial_delay=1.0, interval=2.0))
        task = PollEntry("t", 0.0)
        queue.add(task, 0.0, 0.5)
        assert queue.pop_due(1.0) is task
        queue.poll_done(task)
        queue.reschedule(task, None, 1.0, 0.5)
        return queue, task

    def test_a_task_is_polled_sooner_once_the_urgency_has_risen(self) -> None:
        queue, task = self.scheduled()
        assert queue.wake_at() == 3.0
        assert queue.set_urgency(4.0)
        queue.replan(task, 1.25, 0.5)
        assert queue.wake_at() == 1.5
        assert queue.pop_all_due(3.0) == [task], "the old reference is stale"

    def test_a_task_is_never_polled_later_than_before(self) -> None:
        queue, task = self.scheduled()
        assert not queue.set_urgency(0.5)
        queue.replan(task, 1.25, 0.5)
        assert queue.wake_at() == 3.0

    def test_a_failed_poll_is_repeated_after_its_backoff_nevertheless(self) -> None:
        queue, task = self.scheduled()
        task.failure_streak = FailureStreak(1.0, 1)
        queue.set_urgency(16.0)
        queue.replan(task, 1.25, 0.5)
        assert queue.wake_at() == 3.0

    @pytest.mark.parametrize("place", [Place.IDLE, Place.IN_FLIGHT])
    def test_a_task_that_is_not_scheduled_stays_where_it_is(self, place: Place) -> None:
        queue, task = self.scheduled()
        if place is Place.IDLE:
            queue.remove(task)
        else:
            queue.pop_due(3.0)
        queue.set_urgency(16.0)
        queue.replan(task, 3.0, 0.5)
        assert task.place is place
        assert queue.wake_at() == math.inf

"""The schedule of watched tasks: when they are polled, and that they leave room for the others."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st
from polling_support import RUNNING, ExactTiming, WatchedTask

from kontext_async.decisions.polling.entry import FailureStreak, PollEntry
from kontext_async.decisions.polling.queue import GRAIN, PollQueue
from kontext_async.decisions.polling.watching import UNWATCHED, shortest_interval, watched_due
from kontext_async.settings import Limits

times = st.floats(0, 1e6)
LEAST = 0.25


def make_queue(interval: float = 10.0, rate: float = 1e6, grain: float = GRAIN) -> PollQueue[WatchedTask]:
    return PollQueue(Limits(polls_per_second=rate), ExactTiming(1.0, interval), grain, least=LEAST)


def add_task(queue: PollQueue[WatchedTask], interval: float = UNWATCHED, name: str = "t") -> WatchedTask:
    task = WatchedTask(name, 0.0, interval=interval)
    queue.add(task, 0.0, 0.5)
    return task


def run_until(queue: PollQueue[WatchedTask], end: float) -> list[tuple[float, str]]:
    """Poll what is due until a time, and return when each task was polled. Responses are immediate."""
    polls = []
    while (now := queue.wake_at()) <= end:
        for task in queue.pop_all_due(now):
            polls.append((now, task.task_id))
            queue.poll_done(task)
            queue.status_received(task, RUNNING, now, 0.5)
    return polls


class TestDueTime:
    @given(times, times)
    def test_an_unwatched_task_is_due_as_scheduled(self, due: float, last: float) -> None:
        assert watched_due(due, last, UNWATCHED, least=LEAST, grain=GRAIN) == due

    @given(times, times, st.floats(1e-3, 1e3))
    def test_a_watched_task_is_due_in_time_but_not_too_soon(self, due: float, last: float, interval: float) -> None:
        watched = watched_due(due, last, interval, least=LEAST, grain=GRAIN)
        assert watched <= due
        assert watched + GRAIN <= last + max(interval, LEAST + GRAIN) + 1e-6
        assert watched == due or watched >= last + LEAST

    def test_the_shortest_interval_counts(self) -> None:
        assert shortest_interval([3.0, 1.0, 2.0]) == 1.0
        assert shortest_interval([]) == UNWATCHED


class TestQueue:
    @pytest.mark.parametrize("interval", [0.3, 1.0, 2.5])
    def test_a_watched_task_is_polled_at_least_so_often(self, interval: float) -> None:
        queue = make_queue()
        add_task(queue, interval)
        moments = [at for at, _ in run_until(queue, 30.0)]
        gaps = [after - before for before, after in pairwise(moments)]
        assert interval - 2 * GRAIN <= min(gaps) <= max(gaps) <= interval

    def test_a_watched_task_is_polled_no_more_often_than_the_shortest_interval(self) -> None:
        queue = make_queue()
        add_task(queue, 0.01)
        moments = [at for at, _ in run_until(queue, 10.0)]
        assert min(after - before for before, after in pairwise(moments)) >= LEAST

    def test_a_task_that_is_polled_more_often_anyway_is_not_affected(self) -> None:
        watched, unwatched = make_queue(interval=0.5), make_queue(interval=0.5)
        add_task(watched, 1.0)
        add_task(unwatched)
        assert run_until(watched, 20.0) == run_until(unwatched, 20.0)

    def test_a_watcher_that_comes_moves_the_next_poll_forward(self) -> None:
        queue = make_queue()
        task = add_task(queue)
        run_until(queue, 1.0)
        assert queue.wake_at() == 11.0
        task.interval = 2.0
        queue.watch(task)
        assert queue.wake_at() == 3.0 - GRAIN

    def test_a_watcher_that_leaves_costs_at_most_one_more_poll(self) -> None:
        queue = make_queue()
        task = add_task(queue, 2.0)
        run_until(queue, 3.0)
        task.interval = UNWATCHED
        moments = [at for at, _ in run_until(queue, 40.0)]
        assert moments[0] <= 5.0
        assert [after - before for before, after in pairwise(moments)] == [10.0] * (len(moments) - 1)

    def test_a_failed_poll_is_repeated_after_its_backoff_nevertheless(self) -> None:
        queue = make_queue()
        task = add_task(queue)
        task.failure_streak = FailureStreak(0.0, 1)
        task.interval = 0.5
        queue.watch(task)
        assert queue.wake_at() == 1.0

    def test_a_task_that_is_not_in_the_queue_is_not_added(self) -> None:
        queue = make_queue()
        queue.watch(WatchedTask("t", 0.0, interval=1.0))
        assert queue.wake_at() == math.inf

    def test_a_pause_holds_for_watched_tasks(self) -> None:
        queue = make_queue()
        add_task(queue, 1.0)
        queue.pause_until(20.0)
        assert run_until(queue, 19.9) == []


class TestUnderTheCap:
    RATE = 10.0

    def overloaded(self, watched: int, others: int, interval: float = 1.0) -> list[tuple[float, str]]:
        """Return a minute of polls where more tasks are due than may be polled."""
        queue = make_queue(interval=0.5, rate=self.RATE)
        for number in range(watched):
            add_task(queue, interval, f"watched {number}")
        for number in range(others):
            add_task(queue, name=f"other {number}")
        return run_until(queue, 60.0)

    def test_a_watched_task_does_not_wait_behind_the_others(self) -> None:
        moments = [at for at, name in self.overloaded(1, 500) if name.startswith("watched")]
        assert max(after - before for before, after in pairwise(moments)) <= 1.0 + 3 / self.RATE

    def test_the_others_keep_half_of_the_polls(self) -> None:
        polls = [name for _, name in self.overloaded(200, 200)]
        others = sum(name.startswith("other") for name in polls)
        assert others >= len(polls) // 2 - 1
        assert {name for name in polls if name.startswith("other")} == {f"other {n}" for n in range(200)}

    def test_watched_tasks_share_what_the_cap_leaves_them(self) -> None:
        polls = [name for _, name in self.overloaded(20, 0)]
        assert len(polls) <= 60 * self.RATE + 1
        counts = [polls.count(f"watched {number}") for number in range(20)]
        assert max(counts) - min(counts) <= 1

    def test_a_watcher_of_a_task_that_is_due_already_need_not_wait_for_its_turn(self) -> None:
        queue = make_queue(interval=0.5, rate=self.RATE)
        tasks = [add_task(queue, name=str(number)) for number in range(500)]
        run_until(queue, 2.0)
        last = tasks[-1]
        last.interval = 1.0
        queue.watch(last)
        queue.watch(last)
        polls = [name for _, name in run_until(queue, 2.3)]
        assert polls.count(last.task_id) == 1


def test_an_entry_is_unwatched_unless_it_says_otherwise() -> None:
    assert PollEntry("t", 0.0).watch_interval == UNWATCHED

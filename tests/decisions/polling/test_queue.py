from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from polling_support import DONE, FAILED, RUNNING, UNKNOWN, ExactTiming, ages_around, trained_timing

from kontext_async.decisions.polling.entry import Place, PollEntry
from kontext_async.decisions.polling.failures import FailureAction, PollFailure, record_failure
from kontext_async.decisions.polling.queue import COMPARED, PollQueue
from kontext_async.decisions.polling.timing import IntervalTiming
from kontext_async.settings import Limits, Polling, Retries

if TYPE_CHECKING:
    from kontext_async.decisions.polling.timing import Timing

RETRIES = Retries()


def make_queue(timing: Timing[PollEntry] | None = None, **limits: Any) -> PollQueue[PollEntry]:
    return PollQueue(Limits(**limits), timing or ExactTiming())


def add_tasks(queue: PollQueue[PollEntry], *task_ids: str, at: float = 0.0) -> list[PollEntry]:
    tasks = [PollEntry(task_id, at) for task_id in task_ids]
    for task in tasks:
        queue.add(task, at, 0.5)
    return tasks


def test_an_empty_queue_never_wakes() -> None:
    assert make_queue().wake_at() == math.inf
    assert make_queue().pop_all_due(1e9) == []


def test_a_task_is_polled_when_it_is_due() -> None:
    queue = make_queue()
    (task,) = add_tasks(queue, "a")
    assert queue.wake_at() == 1.0
    assert queue.pop_all_due(0.999) == []
    assert queue.pop_all_due(1.0) == [task]
    assert (task.place, queue.in_flight) == (Place.IN_FLIGHT, 1)
    assert queue.wake_at() == math.inf
    queue.poll_done(task)
    queue.status_received(task, RUNNING, 1.5, 0.5)
    assert (task.place, queue.in_flight, queue.wake_at()) == (Place.SCHEDULED, 0, 3.5)


def test_tasks_that_are_due_first_are_polled_first() -> None:
    queue = make_queue(max_polls_in_flight=1)
    late, early = PollEntry("late", 5.0), PollEntry("early", 0.0)
    queue.add(late, 5.0, 0.5)
    queue.add(early, 5.0, 0.5)
    assert queue.pop_all_due(10.0) == [early]


def test_polls_in_flight_are_bounded() -> None:
    queue = make_queue(max_polls_in_flight=2, polls_per_second=1e6)
    tasks = add_tasks(queue, "a", "b", "c")
    assert queue.pop_all_due(1.0) == tasks[:2]
    assert queue.wake_at() == math.inf
    queue.poll_done(tasks[0])
    assert queue.pop_all_due(1.0) == tasks[2:]


def test_a_removed_task_is_not_polled() -> None:
    queue = make_queue()
    one, two = add_tasks(queue, "a", "b")
    queue.remove(one)
    assert queue.pop_all_due(5.0) == [two]
    queue.poll_done(two)
    queue.remove(two)
    assert queue.wake_at() == math.inf


def test_the_timing_learns_from_an_ended_task_which_is_not_polled_again() -> None:
    timing = ExactTiming()
    queue = make_queue(timing)
    for status, task in zip((DONE, FAILED), add_tasks(queue, "a", "b"), strict=True):
        assert task in queue.pop_all_due(5.0) or task.place is Place.IN_FLIGHT
        queue.poll_done(task)
        queue.status_received(task, status, 5.0, 0.5)
    assert timing.observed == ["a", "b"]
    assert queue.wake_at() == math.inf


def test_a_task_in_an_unknown_state_is_polled_again() -> None:
    queue = make_queue()
    (task,) = add_tasks(queue, "a")
    queue.pop_all_due(1.0)
    queue.poll_done(task)
    queue.status_received(task, UNKNOWN, 1.0, 0.5)
    assert queue.wake_at() == 3.0


def test_nothing_is_polled_before_the_end_of_a_pause() -> None:
    queue = make_queue()
    (task,) = add_tasks(queue, "a")
    queue.pause_until(10.0)
    queue.pause_until(5.0)
    assert queue.wake_at() == 10.0
    assert queue.pop_all_due(9.9) == []
    assert queue.pop_all_due(10.0) == [task]


def test_an_expedited_task_is_polled_now_and_only_once() -> None:
    queue = make_queue()
    (task,) = add_tasks(queue, "a")
    queue.expedite(task, 0.25)
    assert queue.wake_at() == 0.25
    assert queue.pop_all_due(0.25) == [task]
    queue.expedite(task, 0.3)
    assert queue.pop_all_due(1.0) == [], "the old reference is stale, and a task in flight cannot be expedited"
    queue.poll_done(task)
    queue.status_received(task, RUNNING, 2.0, 0.5)
    assert queue.pop_all_due(3.9) == []
    assert queue.pop_all_due(4.0) == [task]


def test_expedited_tasks_are_polled_first_and_in_their_order() -> None:
    queue = make_queue(max_polls_in_flight=1)
    calm, first, second = add_tasks(queue, "a", "b", "c")
    queue.expedite(first, 2.0)
    queue.expedite(second, 2.0)
    order = []
    for now in (2.0, 3.0, 4.0):
        (task,) = queue.pop_all_due(now)
        order.append(task)
        queue.poll_done(task)
    assert order == [first, second, calm]


def test_expedite_never_postpones_a_task() -> None:
    queue = make_queue()
    (task,) = add_tasks(queue, "a")
    queue.expedite(task, 5.0)
    assert queue.wake_at() == 1.0


def test_a_failed_poll_is_repeated_after_a_backoff() -> None:
    queue = make_queue()
    (task,) = add_tasks(queue, "a")
    for failures, wait in ((1, 0.5), (2, 1.0), (3, 2.0)):
        (polled,) = queue.pop_all_due(queue.wake_at())
        now = 100.0 * failures
        queue.poll_done(polled)
        assert record_failure(task, PollFailure.TRANSIENT, now, RETRIES) is FailureAction.POLL_AGAIN
        queue.retry_later(task, now, RETRIES, 1.0)
        assert queue.wake_at() == now + wait


def test_a_status_ends_a_failure_streak() -> None:
    queue = make_queue()
    (task,) = add_tasks(queue, "a")
    queue.pop_all_due(1.0)
    queue.poll_done(task)
    record_failure(task, PollFailure.NOT_FOUND, 1.0, RETRIES)
    queue.status_received(task, RUNNING, 2.0, 0.5)
    assert task.failure_streak is None


class TestMoreDueThanAllowed:
    """The selection among due tasks while the limits leave some of them waiting."""

    def test_the_largest_expected_delay_comes_first(self) -> None:
        queue = make_queue(trained_timing(*ages_around(10, 60)), polls_per_second=1)
        likely, unlikely, young = PollEntry("likely", 0.0), PollEntry("unlikely", 6.0), PollEntry("young", 8.0)
        for task in (young, unlikely, likely):
            queue.add(task, task.since, 0.5)
            queue._scheduled.put(task, 10.0 + len(task.task_id) / 1000)
        assert [queue.pop_all_due(12.0 + second)[0].task_id for second in range(2)] == ["likely", "unlikely"]

    def test_every_task_is_polled_in_its_turn(self) -> None:
        queue = make_queue(IntervalTiming(Polling()), polls_per_second=1000)
        tasks = add_tasks(queue, *(str(number) for number in range(10 * COMPARED)))
        now, polled = 2.0, set[str]()
        while len(polled) < len(tasks):
            now = max(now, queue.wake_at())
            for task in queue.pop_all_due(now):
                queue.poll_done(task)
                queue.remove(task)
                polled.add(task.task_id)
        assert now < 3
        assert queue.wake_at() == math.inf

    def test_an_expedited_task_comes_before_all_that_wait(self) -> None:
        queue = make_queue(IntervalTiming(Polling()), polls_per_second=1)
        tasks = add_tasks(queue, *(str(number) for number in range(50)))
        queue.pop_all_due(5.0)
        queue.expedite(tasks[40], 5.0)
        assert queue.pop_all_due(6.0) == [tasks[40]]

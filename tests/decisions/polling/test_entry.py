"""The table of places in `kontext_async.decisions.polling.entry`, cell by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from polling_support import DONE, RUNNING, UNKNOWN, ExactTiming

from kontext_async.decisions.polling.entry import FailureStreak, Place, PollEntry
from kontext_async.decisions.polling.queue import PollQueue
from kontext_async.settings import Limits, Retries

if TYPE_CHECKING:
    from kontext_async.models import TaskStatus

DUE_AT = 1.0


def queue_with_task_at(place: Place) -> tuple[PollQueue[PollEntry], PollEntry]:
    """Return a queue, and a task that is at `place` in it, with methods of the queue alone."""
    limits = Limits(max_polls_in_flight=1, polls_per_second=1e6)
    queue: PollQueue[PollEntry] = PollQueue(limits, ExactTiming(initial_delay=DUE_AT))
    task = PollEntry("t", 0.0)
    if place in {Place.SCHEDULED, Place.DUE, Place.IN_FLIGHT}:
        queue.add(task, 0.0, 0.5)
    if place is Place.URGENT:
        queue.expedite(task, 0.0)
    if place is Place.DUE:
        queue.pause_until(100.0)
    if place in {Place.DUE, Place.IN_FLIGHT}:
        queue.pop_due(DUE_AT)
    assert task.place is place
    return queue, task


@pytest.mark.parametrize("place", [Place.IDLE, Place.SCHEDULED, Place.DUE, Place.URGENT])
def test_expedite_makes_a_task_urgent(place: Place) -> None:
    queue, task = queue_with_task_at(place)
    queue.expedite(task, 0.5)
    assert task.place is Place.URGENT


def test_expedite_leaves_a_task_in_flight() -> None:
    queue, task = queue_with_task_at(Place.IN_FLIGHT)
    queue.expedite(task, 5.0)
    assert (task.place, task.due) == (Place.IN_FLIGHT, DUE_AT)


def test_add_schedules_an_idle_task() -> None:
    queue, task = queue_with_task_at(Place.IDLE)
    queue.add(task, 0.0, 0.5)
    assert (task.place, task.due) == (Place.SCHEDULED, DUE_AT)


def test_a_scheduled_task_stays_so_before_its_due_time() -> None:
    queue, task = queue_with_task_at(Place.SCHEDULED)
    assert queue.pop_due(DUE_AT - 0.1) is None
    assert task.place is Place.SCHEDULED


def test_a_scheduled_task_becomes_due_while_the_queue_is_paused() -> None:
    queue, task = queue_with_task_at(Place.SCHEDULED)
    queue.pause_until(100.0)
    assert queue.pop_due(DUE_AT) is None
    assert task.place is Place.DUE


@pytest.mark.parametrize("place", [Place.SCHEDULED, Place.DUE, Place.URGENT])
def test_pop_due_returns_a_task_that_is_then_in_flight(place: Place) -> None:
    queue, task = queue_with_task_at(place)
    assert queue.pop_due(100.0) is task
    assert (task.place, task.due) == (Place.IN_FLIGHT, 100.0)


def test_poll_done_makes_a_task_in_flight_idle() -> None:
    queue, task = queue_with_task_at(Place.IN_FLIGHT)
    assert queue.poll_done(task) is True
    assert task.place is Place.IDLE


def test_the_response_to_a_removed_task_does_not_count() -> None:
    queue, task = queue_with_task_at(Place.IN_FLIGHT)
    queue.remove(task)
    assert queue.poll_done(task) is False
    assert (task.place, queue.in_flight) == (Place.IDLE, 0)


def test_the_response_to_a_task_that_was_added_again_does_not_count() -> None:
    queue, task = queue_with_task_at(Place.IN_FLIGHT)
    queue.remove(task)
    queue.add(task, 2.0, 0.5)
    assert queue.poll_done(task) is False
    assert task.place is Place.SCHEDULED


@pytest.mark.parametrize("status", [RUNNING, UNKNOWN])
def test_a_status_that_is_not_terminal_schedules_the_task(status: TaskStatus) -> None:
    queue, task = queue_with_task_at(Place.IDLE)
    queue.status_received(task, status, 2.0, 0.5)
    assert task.place is Place.SCHEDULED


def test_a_terminal_status_leaves_the_task_idle() -> None:
    queue, task = queue_with_task_at(Place.IDLE)
    queue.status_received(task, DONE, 2.0, 0.5)
    assert task.place is Place.IDLE


def test_reschedule_schedules_the_task() -> None:
    queue, task = queue_with_task_at(Place.IDLE)
    queue.reschedule(task, 0.5, 2.0, 0.5)
    assert task.place is Place.SCHEDULED


def test_retry_later_schedules_the_task() -> None:
    queue, task = queue_with_task_at(Place.IDLE)
    task.failure_streak = FailureStreak(1.0, failures=1)
    queue.retry_later(task, 2.0, Retries(), 1.0)
    assert (task.place, task.due) == (Place.SCHEDULED, 2.5)


@pytest.mark.parametrize("place", Place)
def test_remove_makes_any_task_idle(place: Place) -> None:
    queue, task = queue_with_task_at(place)
    queue.remove(task)
    assert task.place is Place.IDLE
    assert queue.pop_due(1000.0) is None


def test_a_new_entry_is_idle_and_unfinished_since_its_acceptance() -> None:
    task = PollEntry("t", 3.0)
    assert (task.place, task.unfinished_at, task.failures, task.kind) == (Place.IDLE, 3.0, 0, None)


def test_an_entry_has_no_attributes_beyond_its_slots() -> None:
    assert not hasattr(PollEntry("t", 0.0), "__dict__")

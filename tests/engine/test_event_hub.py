"""The event hub by itself: subscriptions, and the counts of events."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve

from kontext_async import (
    GatewayUnavailable,
    GeneratedImage,
    Generation,
    KontextRequest,
    SubmissionUncertain,
    TaskState,
    TaskStatus,
    Usage,
)
from kontext_async.engine.event_hub import EventHub
from kontext_async.events import Abandoned, Completed, Event, Failed, StatusReceived, Submitting

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def submitting(attempt: int = 1) -> Submitting:
    return Submitting(at=NOW, attempt=attempt)


def status_received() -> StatusReceived:
    status = TaskStatus(task_id="task-1", state=TaskState.IN_PROGRESS, raw_status="in_progress")
    return StatusReceived(at=NOW, task_id="task-1", status=status)


def completed(
    task_id: str = "task-1", *, cost: Decimal | None = Decimal("0.04"), fingerprint: str | None = "f" * 64
) -> Completed:
    generation = Generation(
        task_id=task_id,
        model=None,
        request=None,
        images=(GeneratedImage(url="http://127.0.0.1/fox.jpg"),),
        usage=Usage(cost=cost),
        created_at=None,
        elapsed=1.0,
    )
    return Completed(at=NOW, task_id=task_id, fingerprint=fingerprint, generation=generation)


@pytest.fixture
def hub() -> EventHub:
    return EventHub()


@pytest.fixture
def seen() -> list[Event]:
    return []


class TestSubscribe:
    def test_without_a_kind_every_event_is_delivered_in_order(self, hub: EventHub, seen: list[Event]) -> None:
        emitted: list[Event] = [submitting(), status_received(), completed()]
        hub.subscribe(seen.append)
        for event in emitted:
            hub.emit(event)
        assert seen == emitted

    def test_with_kinds_only_these_are_delivered(self, hub: EventHub, seen: list[Event]) -> None:
        hub.subscribe(seen.append, Completed, Submitting)
        for event in (submitting(), status_received(), completed(), Abandoned(at=NOW, reason="gone")):
            hub.emit(event)
        assert [type(event) for event in seen] == [Submitting, Completed]

    def test_each_subscriber_has_its_own_kinds(self, hub: EventHub, seen: list[Event]) -> None:
        others: list[Event] = []
        hub.subscribe(seen.append, Completed)
        hub.subscribe(others.append, Submitting)
        hub.emit(submitting())
        hub.emit(completed())
        assert [type(event) for event in seen] == [Completed]
        assert [type(event) for event in others] == [Submitting]

    def test_an_ended_subscription_delivers_nothing_and_may_be_ended_again(
        self, hub: EventHub, seen: list[Event]
    ) -> None:
        unsubscribe = hub.subscribe(seen.append)
        hub.emit(submitting(1))
        unsubscribe()
        unsubscribe()
        hub.emit(submitting(2))
        assert seen == [submitting(1)]

    def test_one_callback_may_subscribe_twice(self, hub: EventHub, seen: list[Event]) -> None:
        first, second = hub.subscribe(seen.append), hub.subscribe(seen.append)
        hub.emit(submitting())
        assert len(seen) == 2
        first()
        hub.emit(submitting())
        assert len(seen) == 3
        first()
        hub.emit(submitting())
        assert len(seen) == 4
        second()
        hub.emit(submitting())
        assert len(seen) == 4

    def test_a_callback_may_end_subscriptions_and_add_new_ones(self, hub: EventHub, seen: list[Event]) -> None:
        def replace(_: Event) -> None:
            unsubscribe()
            hub.subscribe(seen.append)

        unsubscribe = hub.subscribe(replace)
        hub.emit(submitting(1))
        assert seen == [], "a new subscription begins with the next event"
        hub.emit(submitting(2))
        assert seen == [submitting(2)]

    def test_a_callback_that_raises_is_reported_to_the_event_loop(self, hub: EventHub, seen: list[Event]) -> None:
        contexts: list[dict[str, Any]] = []
        bug = ZeroDivisionError("a bug")

        def fail(_: Event) -> None:
            raise bug

        async def emit() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
            hub.emit(submitting())

        hub.subscribe(fail)
        hub.subscribe(seen.append)
        asyncio.run(emit())
        assert seen == [submitting()]
        assert [context["exception"] for context in contexts] == [bug]
        assert "Submitting" in contexts[0]["message"]


class TestOneTask:
    def test_a_subscription_to_a_task_gets_its_events_and_no_others(self, hub: EventHub, seen: list[Event]) -> None:
        hub.subscribe(seen.append, task_id="task-1")
        hub.emit(submitting())
        hub.emit(completed("task-2"))
        hub.emit(status_received())
        hub.emit(completed("task-1"))
        assert seen == [status_received(), completed("task-1")]

    def test_a_subscription_to_kinds_of_one_task_gets_these_only(self, hub: EventHub, seen: list[Event]) -> None:
        hub.subscribe(seen.append, Completed, Failed, task_id="task-1")
        hub.emit(status_received())
        hub.emit(completed("task-2"))
        hub.emit(completed("task-1"))
        assert seen == [completed("task-1")]

    def test_a_subscription_to_all_tasks_gets_the_event_too(self, hub: EventHub, seen: list[Event]) -> None:
        everywhere: list[Event] = []
        hub.subscribe(seen.append, task_id="task-1")
        hub.subscribe(everywhere.append)
        hub.emit(completed("task-1"))
        assert seen == everywhere == [completed("task-1")]

    def test_an_ended_subscription_leaves_those_of_the_same_task(self, hub: EventHub, seen: list[Event]) -> None:
        others: list[Event] = []
        unsubscribe = hub.subscribe(seen.append, task_id="task-1")
        end_others = hub.subscribe(others.append, task_id="task-1")
        unsubscribe()
        unsubscribe()
        hub.emit(completed("task-1"))
        assert (seen, others) == ([], [completed("task-1")])
        end_others()
        hub.emit(completed("task-1"))
        assert others == [completed("task-1")]

    def test_nothing_is_left_of_the_subscriptions_to_many_tasks(self, hub: EventHub, seen: list[Event]) -> None:
        for unsubscribe in [hub.subscribe(seen.append, task_id=f"task-{number}") for number in range(100)]:
            unsubscribe()
        assert hub._subscriptions == {}

    def test_an_event_of_another_task_is_not_built_for_it(self, hub: EventHub, seen: list[Event]) -> None:
        hub.subscribe(seen.append, task_id="task-1")
        hub.emit_if_wanted(StatusReceived, "task-2", TestEmitIfWanted.never)
        assert seen == []
        hub.emit_if_wanted(StatusReceived, "task-1", status_received)
        assert seen == [status_received()]
        assert hub.counts.count(StatusReceived) == 2


class TestEmitIfWanted:
    @staticmethod
    def never() -> StatusReceived:
        raise AssertionError("the event was built although no subscriber wants it")

    def test_an_event_that_no_subscriber_wants_is_only_counted(self, hub: EventHub, seen: list[Event]) -> None:
        hub.emit_if_wanted(StatusReceived, "task-1", self.never)
        hub.subscribe(seen.append, Completed, Failed)
        hub.emit_if_wanted(StatusReceived, "task-1", self.never)
        assert hub.counts.count(StatusReceived) == 2
        assert seen == []

    @pytest.mark.parametrize("kinds", [(), (StatusReceived,), (Completed, StatusReceived)])
    def test_an_event_that_a_subscriber_wants_is_built_once_and_counted_once(
        self, hub: EventHub, seen: list[Event], kinds: tuple[type[Event], ...]
    ) -> None:
        built: list[tuple[str, int]] = []

        def build(text: str, *, number: int) -> StatusReceived:
            built.append((text, number))
            return status_received()

        hub.subscribe(seen.append, *kinds)
        hub.subscribe(lambda _: None)
        hub.emit_if_wanted(StatusReceived, "task-1", build, "text", number=7)
        assert built == [("text", 7)]
        assert seen == [status_received()]
        assert hub.counts.count(StatusReceived) == 1

    def test_an_ended_subscription_wants_nothing(self, hub: EventHub, seen: list[Event]) -> None:
        hub.subscribe(seen.append)()
        hub.emit_if_wanted(StatusReceived, "task-1", self.never)
        assert hub.counts.count(StatusReceived) == 1


class TestEmitCompleted:
    REQUEST = KontextRequest("a red fox in snow")

    @staticmethod
    def never() -> Completed:
        raise AssertionError("the event was built although no subscriber wants it")

    def test_a_completion_that_no_subscriber_wants_is_counted_with_its_cost(self, hub: EventHub) -> None:
        generation = evolve(completed().generation, request=self.REQUEST)
        hub.emit_completed(generation, self.never)
        hub.emit_completed(generation, self.never)
        assert (hub.counts.count(Completed), hub.counts.spent) == (2, Decimal("0.04"))

    def test_an_attached_task_that_completes_unobserved_was_billed_elsewhere(self, hub: EventHub) -> None:
        hub.emit_completed(completed().generation, self.never)
        assert (hub.counts.count(Completed), hub.counts.spent) == (1, Decimal(0))

    def test_who_heeds_completions_gets_each_without_an_event(self, hub: EventHub, seen: list[Event]) -> None:
        heeded: list[Generation] = []

        def heed(generation: Generation) -> bool:
            heeded.append(generation)
            return generation.task_id == "task-2"

        hub.subscribe(seen.append, Completed, heeds=heed)
        first, second = completed(), completed("task-2")
        hub.emit_completed(first.generation, self.never)
        hub.emit_completed(second.generation, lambda: second)
        assert heeded == [first.generation, second.generation]
        assert seen == [second]

    def test_who_raises_while_it_heeds_is_reported_and_stops_no_other(self, hub: EventHub, seen: list[Event]) -> None:
        async def emit() -> list[dict[str, Any]]:
            reported: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, problem: reported.append(problem))

            def fail(_: Generation) -> bool:
                raise RuntimeError("the store is closed")

            hub.subscribe(seen.append, Completed, heeds=fail)
            hub.subscribe(seen.append, Completed)
            hub.emit_completed(completed().generation, completed)
            return reported

        [problem] = asyncio.run(emit())
        assert problem["message"] == "a subscriber to Completed raised"
        assert str(problem["exception"]) == "the store is closed"
        assert seen == [completed()] * 2

    def test_a_subscriber_gets_the_event_which_is_counted_once(self, hub: EventHub, seen: list[Event]) -> None:
        hub.subscribe(seen.append, Completed)
        hub.emit_completed(completed().generation, completed)
        assert seen == [completed()]
        assert (hub.counts.count(Completed), hub.counts.spent) == (1, Decimal("0.04"))


class TestCounts:
    def test_events_are_counted_by_kind_without_subscribers(self, hub: EventHub) -> None:
        for event in (submitting(), submitting(), completed()):
            hub.emit(event)
        assert hub.counts.count(Submitting) == 2
        assert hub.counts.count(Completed) == 1
        assert hub.counts.count(Failed) == 0

    def test_the_costs_of_completed_tasks_are_added_up(self, hub: EventHub) -> None:
        hub.emit(completed("one", cost=Decimal("0.04")))
        hub.emit(completed("two", cost=Decimal("0.08")))
        hub.emit(completed("three", cost=None))
        assert hub.counts.spent == Decimal("0.12")

    def test_a_task_that_completes_twice_is_added_once(self, hub: EventHub) -> None:
        """A gateway may return one ID for several create requests."""
        for _ in range(2):
            hub.emit(completed("one", cost=Decimal("0.04")))
        assert hub.counts.spent == Decimal("0.04")

    def test_an_attached_task_costs_nothing_here(self, hub: EventHub) -> None:
        """It has no fingerprint, was billed elsewhere, and may be seen completed many times."""
        hub.emit(completed(fingerprint=None))
        assert hub.counts.spent == 0
        assert hub.counts.count(Completed) == 1

    def test_uncertain_submissions_are_counted_among_the_failed(self, hub: EventHub) -> None:
        uncertain = SubmissionUncertain(request=None, fingerprint="f" * 64, seen="no response")
        hub.emit(Failed(at=NOW, error=uncertain))
        hub.emit(Failed(at=NOW, error=GatewayUnavailable("no connection")))
        assert hub.counts.uncertain == 1
        assert hub.counts.count(Failed) == 2


def test_a_subscriber_that_does_not_listen_gets_no_event(hub: EventHub, seen: list[Event]) -> None:
    listening: set[type] = set()
    hub.subscribe(seen.append, Submitting, Failed, listens=listening.__contains__)
    hub.emit(submitting(1))
    hub.emit_if_wanted(Submitting, None, submitting, 2)
    listening.add(Submitting)
    hub.emit_if_wanted(Submitting, None, submitting, 3)
    assert [event.attempt for event in seen if isinstance(event, Submitting)] == [3]
    assert hub.counts.count(Submitting) == 3

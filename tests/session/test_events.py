"""`KontextSession.subscribe` against the emulator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from session_support import encode_png, events_of

from kontext_async import InvalidRequest, KontextSession
from kontext_async.emulator import Emulator, FaultKind
from kontext_async.engine.poll_loop import PollLoop
from kontext_async.events import Accepted, Completed, Event, Failed, StatusReceived, Submitting
from kontext_async.gateways import Reference
from kontext_async.gateways.vtrix_tasks import read_status
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from kontext_async import Generation, TaskStatus
    from kontext_async.engine.task_record import TaskRecord

pytestmark = pytest.mark.anyio

SLOW_ENOUGH = pytest.mark.parametrize("emulator_options", [{"service_time": 0.1, "pixels": 4096}])
"""Tasks are polled several times before they complete."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks whose responses were parsed in full although they were still in progress."""
    seen: list[str] = []

    def record(body: bytes, task_id: str, status: int = 200) -> TaskStatus:
        seen.append(task_id)
        return read_status(body, task_id, status)

    monkeypatch.setattr("kontext_async.gateways.vtrix.read_status", record)
    return seen


class TestKinds:
    async def test_a_subscription_to_one_kind_gets_these_events_only(self, session: KontextSession) -> None:
        completed: list[Completed] = []
        session.subscribe(completed.append, Completed)
        foxes = [await session.generate(f"fox {n}") for n in range(2)]
        assert [type(event) for event in completed] == [Completed, Completed]
        assert [event.generation for event in completed] == foxes

    async def test_a_subscription_to_several_kinds_gets_each_of_them_in_order(
        self, session: KontextSession, emulator: Emulator, events: list[Event]
    ) -> None:
        seen: list[Event] = []
        session.subscribe(seen.append, Accepted, Completed, Failed)
        emulator.faults.script("create", [None, FaultKind.TASK_FAILS])
        outcomes = await session.generate_all(["a fox", "a hare"])  # either may be the first to arrive
        assert sorted(outcome.ok for outcome in outcomes) == [False, True]
        assert sorted(type(event).__name__ for event in seen) == ["Accepted", "Accepted", "Completed", "Failed"]
        assert seen == [event for event in events if isinstance(event, Accepted | Completed | Failed)]

    async def test_a_subscription_without_a_kind_gets_every_event(
        self, session: KontextSession, events: list[Event]
    ) -> None:
        await session.generate("a fox")
        assert {type(event) for event in events} == {Submitting, Accepted, StatusReceived, Completed}
        assert len(events_of(StatusReceived, events)) == session.statistics().polls

    async def test_an_ended_subscription_gets_no_further_event(self, session: KontextSession) -> None:
        seen: list[Event] = []
        unsubscribe = session.subscribe(seen.append, Completed)
        await session.generate("a fox")
        unsubscribe()
        await session.generate("another")
        assert len(seen) == 1


async def test_no_event_is_made_of_a_completion_that_nobody_wants(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    make = PollLoop._completed

    def record(self: PollLoop, task: TaskRecord, generation: Generation) -> Completed:
        made.append(generation.task_id)
        return make(self, task, generation)

    monkeypatch.setattr(PollLoop, "_completed", record)
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        await session.generate("a fox")
        assert made == []
        seen: list[Completed] = []
        session.subscribe(seen.append, Completed)
        fox = await session.generate("a fox")
    assert made == [fox.task_id] == [event.task_id for event in seen]


class TestOneTask:
    async def test_a_task_of_another_gateway_is_refused(self, session: KontextSession) -> None:
        with pytest.raises(InvalidRequest, match="gateway"):
            session.subscribe(print, task_id=Reference("t-1", "vtrix-queue"))

    @SLOW_ENOUGH
    async def test_a_subscription_to_a_task_gets_its_events_only(
        self, session: KontextSession, events: list[Event]
    ) -> None:
        fox, hare = await session.submit("a fox"), await session.submit("a hare")
        of_fox: list[Event] = []
        ended: list[Event] = []
        session.subscribe(of_fox.append, task_id=fox.id)
        session.subscribe(ended.append, Completed, Failed, task_id=hare.reference)
        already = len(events)
        await hare.wait()
        await fox.wait()
        later = events[already:]
        assert {event.task_id for event in later} == {fox.id, hare.id}
        assert of_fox == [event for event in later if event.task_id == fox.id]
        assert ended == [event for event in later if isinstance(event, Completed) and event.task_id == hare.id]

    @SLOW_ENOUGH
    async def test_the_polls_of_other_tasks_are_not_parsed_for_it(
        self, session: KontextSession, parsed: list[str]
    ) -> None:
        fox, hare = await session.submit("a fox"), await session.submit("a hare")
        seen: list[StatusReceived] = []
        session.subscribe(seen.append, StatusReceived, task_id=fox.id)
        await hare.wait()
        await fox.wait()
        assert len(seen) > 1
        assert set(parsed) == {fox.id}

    async def test_the_subscription_to_a_task_ends(self, session: KontextSession) -> None:
        fox = await session.submit("a fox")
        seen: list[Event] = []
        unsubscribe = session.subscribe(seen.append, task_id=fox.id)
        unsubscribe()
        unsubscribe()
        await fox.wait()
        assert seen == []

    @pytest.mark.parametrize("task_id", ["", " ", "..", 7, b"task"])
    async def test_a_value_that_is_no_task_id_is_refused(self, session: KontextSession, task_id: Any) -> None:
        with pytest.raises(InvalidRequest) as caught:
            session.subscribe(print, task_id=task_id)
        assert caught.value.field == "task_id"


class TestCostOfSubscriptions:
    @SLOW_ENOUGH
    async def test_polls_are_counted_but_not_parsed_if_no_subscriber_wants_them(
        self, session: KontextSession, parsed: list[str]
    ) -> None:
        completed: list[Completed] = []
        session.subscribe(completed.append, Completed)
        await session.generate("a fox")
        assert len(completed) == 1
        assert session.statistics().polls > 1
        assert parsed == []

    @SLOW_ENOUGH
    async def test_polls_are_parsed_for_a_subscriber_that_wants_them(
        self, session: KontextSession, parsed: list[str]
    ) -> None:
        seen: list[StatusReceived] = []
        session.subscribe(seen.append, StatusReceived)
        fox = await session.generate("a fox")
        assert len(seen) == session.statistics().polls > 1
        assert parsed == [fox.task_id] * (len(seen) - 1)  # the terminal response is parsed anyway


async def test_a_subscriber_that_raises_affects_no_other(session: KontextSession, events: list[Event]) -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))

    def fail(_: Event) -> None:
        raise ZeroDivisionError

    unsubscribe = session.subscribe(fail)
    assert (await session.generate("a fox")).images
    reported = len(contexts)
    assert reported
    assert events
    unsubscribe()
    unsubscribe()
    await session.generate("a fox")
    assert len(contexts) == reported


async def test_all_events_of_a_request_name_the_same_fingerprint(session: KontextSession) -> None:
    seen: dict[str | None, set[type]] = {}
    session.subscribe(lambda event: seen.setdefault(event.fingerprint, set()).add(type(event)))
    await session.generate("a fox")
    await session.generate("a fox", input_images=[encode_png("red")])
    assert len(seen) == 2
    assert all({Submitting, Accepted, StatusReceived, Completed} <= kinds for kinds in seen.values())

"""The end of a batch in the poll loop: the last tasks are polled more often. The clock is turned by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from session_support import run_with_clock

from kontext_async import KontextSession, Limits, Polling, Settings, TaskTimeout
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.events import Completed, StatusReceived

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async import GenerationTask
    from kontext_async.testing import ManualClock

pytestmark = pytest.mark.anyio

SECONDS = 10.0
IN_FLIGHT = 40


@pytest.fixture
def emulator_options(clock: ManualClock) -> dict[str, Any]:
    return {"service_time": SECONDS, "clock": clock.unix, "pixels": 4096}


@pytest.fixture
async def session(emulator: Emulator, clock: ManualClock) -> AsyncIterator[KontextSession]:
    settings = Settings(
        polling=Polling(poll_cost=1.0, max_interval=100.0),
        limits=Limits(max_in_flight=IN_FLIGHT, polls_per_second=1000),
    )
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as running:
        running._engine._context.random.seed(1)
        yield running


def urgency(session: KontextSession) -> float:
    return session._engine.poll_loop._queue._timing.urgency


async def submit_hanging(session: KontextSession, emulator: Emulator, clock: ManualClock) -> GenerationTask:
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    return await run_with_clock(session.submit("hangs"), clock, session)


async def count_polls(task: GenerationTask, session: KontextSession, emulator: Emulator, clock: ManualClock) -> int:
    """Return the polls of a task in its third minute, when its gaps no longer change much."""
    accepted = clock.unix()
    with pytest.raises(TaskTimeout):
        await run_with_clock(task.wait(timeout=180), clock, session)
    polls = [record.at - accepted for record in emulator.requests if record.path.endswith(task.id)]
    return sum(120 < at < 180 for at in polls)


async def test_the_last_task_of_a_batch_is_polled_more_often_than_a_single_one(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    await run_with_clock(session.generate_all(["a fox"] * IN_FLIGHT), clock, session)
    alone = await submit_hanging(session, emulator, clock)
    of_single = await count_polls(alone, session, emulator, clock)
    session._engine.poll_loop._untrack(session._engine.poll_loop._tasks[alone.id])
    last = await submit_hanging(session, emulator, clock)
    await run_with_clock(session.generate_all(["a fox"] * (IN_FLIGHT - 2)), clock, session)
    assert session.statistics().pending == 1
    of_last = await count_polls(last, session, emulator, clock)
    assert of_last >= 3 * of_single > 0


async def test_no_task_is_urgent_while_requests_wait_for_a_slot(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    """The gateway throttles the last create request, and the others drain meanwhile."""
    paused = Fault(kind=FaultKind.RATE_LIMITED, retry_after=60)
    emulator.faults.script("create", [*[None] * (IN_FLIGHT - 1), paused])
    pending: list[int] = []
    urgencies: list[float] = []

    def record(_: StatusReceived) -> None:
        pending.append(session.statistics().pending)
        urgencies.append(urgency(session))

    session.subscribe(record, StatusReceived)
    await run_with_clock(session.generate_all(["a fox"] * IN_FLIGHT), clock, session)
    assert min(pending) == 1
    assert set(urgencies) == {1.0}


async def test_the_next_poll_of_the_last_task_moves_forward_once_the_others_have_ended(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    await run_with_clock(session.generate_all(["a fox"] * IN_FLIGHT), clock, session)
    hanging = session._engine.poll_loop._tasks[(await submit_hanging(session, emulator, clock)).id]
    gaps: dict[float, list[float]] = {}

    def record(_: Completed) -> None:
        gaps.setdefault(hanging.unfinished_at, []).append(hanging.due - hanging.unfinished_at)

    session.subscribe(record, Completed)
    await run_with_clock(session.generate_all(["a fox"] * (IN_FLIGHT - 1)), clock, session)
    before = gaps[hanging.unfinished_at][0]
    assert hanging.due - hanging.unfinished_at < 0.6 * before


async def test_the_urgency_rises_as_the_batch_drains_and_ends_with_the_next_request(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    seen: list[float] = []
    session.subscribe(lambda _: seen.append(urgency(session)), StatusReceived)
    hanging = await submit_hanging(session, emulator, clock)
    await run_with_clock(session.generate_all(["a fox"] * (IN_FLIGHT - 1)), clock, session)
    assert urgency(session) > IN_FLIGHT / 4
    assert all(after >= before for before, after in pairwise(seen))
    await run_with_clock(session.submit("another"), clock, session)
    assert urgency(session) == 1
    assert hanging.id in session._engine.poll_loop._tasks

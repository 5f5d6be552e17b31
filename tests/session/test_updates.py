"""`GenerationTask.updates(every=…)`: a task that somebody watches is polled more often. The clock is turned by hand."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from session_support import ENOUGH_TURNS, run_with_clock, turn_loop

from kontext_async import InvalidRequest, KontextSession, Limits, Polling, Settings, TaskState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async import GenerationTask, TaskStatus
    from kontext_async.emulator import Emulator
    from kontext_async.testing import ManualClock

pytestmark = pytest.mark.anyio

SECONDS = 8.0
LEARNED_FROM = 40
POLLING = Polling(poll_cost=1.0, max_interval=100.0)


@pytest.fixture
def emulator_options(clock: ManualClock) -> dict[str, Any]:
    return {"service_time": SECONDS, "clock": clock.unix, "pixels": 4096}


@pytest.fixture
async def session(emulator: Emulator, clock: ManualClock) -> AsyncIterator[KontextSession]:
    """A session that has learned how long tasks take."""
    settings = Settings(polling=POLLING, limits=Limits(max_in_flight=LEARNED_FROM))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as running:
        running._engine._context.random.seed(1)
        await run_with_clock(running.generate_all(["a fox"] * LEARNED_FROM), clock, running)
        yield running


def poll_times(emulator: Emulator, task: GenerationTask) -> list[float]:
    """Return when the task was polled."""
    return [record.at for record in emulator.requests if record.method == "GET" and record.path.endswith(task.id)]


def longest_gap(emulator: Emulator, task: GenerationTask, accepted: float) -> float:
    times = [accepted, *poll_times(emulator, task)]
    return max(after - before for before, after in pairwise(times))


async def submit(session: KontextSession, clock: ManualClock) -> tuple[GenerationTask, float]:
    """Submit a request, and return its task with the time of its acceptance."""
    task = await run_with_clock(session.submit("a fox"), clock, session)
    return task, clock.unix()


async def collect(task: GenerationTask, **options: Any) -> list[TaskStatus]:
    return [status async for status in task.updates(**options)]


@pytest.mark.parametrize("every", [0.5, 1.0, 2])
async def test_a_watched_task_is_polled_at_least_so_often(
    session: KontextSession, emulator: Emulator, clock: ManualClock, every: float
) -> None:
    task, accepted = await submit(session, clock)
    statuses = await run_with_clock(collect(task, every=every), clock, session)
    assert statuses[-1].state is TaskState.COMPLETED
    assert longest_gap(emulator, task, accepted) <= every + 1e-6
    assert len(statuses) >= SECONDS / every


async def test_updates_come_every_second_unless_the_caller_says_otherwise(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    task, accepted = await submit(session, clock)
    assert len(await run_with_clock(collect(task), clock, session)) >= SECONDS
    assert 0.9 <= longest_gap(emulator, task, accepted) <= 1 + 1e-6


async def test_a_task_that_nobody_watches_is_polled_as_before(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    """Waiting, listening to events, and updates without an interval lead to the same requests."""
    polls = []
    for way in ("wait", "subscribe", "updates"):
        session._engine._context.random.seed(7)
        began = clock.unix()
        task, _ = await submit(session, clock)
        seen: list[object] = []
        if way == "subscribe":
            session.subscribe(seen.append, task_id=task.id)
        await run_with_clock(collect(task, every=None) if way == "updates" else task.wait(), clock, session)
        assert bool(seen) == (way == "subscribe")
        polls.append(len(poll_times(emulator, task)))
        assert clock.unix() - began >= SECONDS
    assert polls[0] == polls[1] == polls[2] < SECONDS / 2


async def test_the_shortest_interval_of_several_watchers_counts(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    task, accepted = await submit(session, clock)
    watchers = asyncio.gather(collect(task, every=2.0), collect(task, every=0.5), collect(task, every=None))
    slow, quick, unhurried = await run_with_clock(watchers, clock, session)
    assert longest_gap(emulator, task, accepted) <= 0.5 + 1e-6
    assert slow == quick == unhurried


async def test_a_watcher_that_leaves_no_longer_counts(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    task, _ = await submit(session, clock)
    updates = task.updates(every=0.5)
    for _ in range(4):
        await run_with_clock(anext(updates), clock, session)
    await updates.aclose()
    before = len(poll_times(emulator, task))
    await run_with_clock(task.wait(), clock, session)
    unwatched = (await submit(session, clock))[0]
    await run_with_clock(unwatched.wait(), clock, session)
    at_most_one_was_due = 1
    assert len(poll_times(emulator, task)) - before <= len(poll_times(emulator, unwatched)) + at_most_one_was_due


async def test_a_consumer_that_is_busy_costs_no_polls(
    session: KontextSession, emulator: Emulator, clock: ManualClock
) -> None:
    """It keeps its iterator, but does not wait for an update."""
    task, _ = await submit(session, clock)
    updates = task.updates(every=0.5)
    await run_with_clock(anext(updates), clock, session)
    before = len(poll_times(emulator, task))
    await turn_loop(ENOUGH_TURNS)
    while clock.time() < SECONDS - 1 and clock.next_at is not None:
        clock.advance(0.25)
        await turn_loop(ENOUGH_TURNS)
    assert len(poll_times(emulator, task)) - before <= 2
    await updates.aclose()


async def test_the_watchers_of_many_tasks_keep_to_the_cap(emulator: Emulator, clock: ManualClock) -> None:
    settings = Settings(polling=POLLING, limits=Limits(max_in_flight=30, polls_per_second=10))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings, clock=clock) as session:
        submitted = asyncio.gather(*(session.submit(f"fox {number}") for number in range(30)))
        tasks = await run_with_clock(submitted, clock, session)
        began = clock.time()
        await run_with_clock(asyncio.gather(*(collect(task, every=0.25) for task in tasks)), clock, session)
        assert session.statistics().polls <= 10 * (clock.time() - began) * 1.05 + 2


@pytest.mark.parametrize("every", [0, -1.0, math.nan, math.inf, True, "1", [1.0]])
async def test_an_interval_that_is_no_number_of_seconds_is_refused_before_anything_is_sent(
    session: KontextSession, emulator: Emulator, every: Any
) -> None:
    sent = len(emulator.requests)
    with pytest.raises(InvalidRequest, match="seconds above 0") as caught:
        session.attach("some-task").updates(every=every)
    assert caught.value.field == "every"
    assert len(emulator.requests) == sent

"""The limits on the queue: `Limits.max_queued`, `Limits.max_queued_per_share`, `queue_timeout`."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from session_support import count_creates, new_session, run_with_clock, turn_loop, until

from kontext_async import ConfigurationError, InvalidRequest, KontextSession, Limits, Overloaded
from kontext_async.testing import FAST, ManualClock, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emulator_support import ManualTime

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

SLOTS, QUEUED, PER_SHARE = 2, 4, 2


@pytest.fixture
def emulator_options(gateway_time: ManualTime) -> dict[str, Any]:
    return {"service_time": 10.0, "pixels": 64 * 64, "clock": gateway_time}


LIMITS = Limits(max_in_flight=SLOTS, polls_per_second=2000, max_queued=QUEUED, max_queued_per_share=PER_SHARE)


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[KontextSession]:
    async with new_session(emulator, attrs.evolve(FAST, limits=LIMITS)) as running:
        yield running


async def fill(session: KontextSession, queued: int) -> list[asyncio.Task[Any]]:
    """Take all slots, and let further requests wait, each of a share of its own."""
    tasks = [asyncio.create_task(session.share(f"user {number}").generate("a fox")) for number in range(SLOTS + queued)]
    await until(lambda: session.statistics().accepted == SLOTS and session.statistics().queued == queued)
    return tasks


async def fill_and_queue(
    session: KontextSession, prompt: str, **options: Any
) -> tuple[list[asyncio.Task[Any]], asyncio.Task[Any]]:
    """Take all slots, and let one request wait; return the tasks that have slots, and the one that waits."""
    tasks = await fill(session, 0)
    waiting = asyncio.create_task(session.generate(prompt, **options))
    await until(lambda: session.statistics().queued == 1)
    return tasks, waiting


async def finish(session: KontextSession, tasks: list[asyncio.Task[Any]], gateway_time: ManualTime) -> None:
    while not all(task.done() for task in tasks):
        gateway_time.advance(11.0)
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert session.statistics().queued == 0


async def test_one_request_too_many_fails_at_once_and_is_not_sent(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    tasks = await fill(session, QUEUED)
    with pytest.raises(Overloaded) as caught:
        await session.share("late").generate("a fox")
    assert caught.value.retryable
    assert not caught.value.may_be_charged
    assert caught.value.retry_after > 0
    assert session.health().is_queue_full
    assert session.health().reason == "the queue is full"
    await finish(session, tasks, gateway_time)
    assert emulator.ledger.accepted == len(tasks)
    assert session.health().is_ready


async def test_a_refused_image_is_not_opened(session: KontextSession, gateway_time: ManualTime) -> None:
    tasks = await fill(session, QUEUED)
    with pytest.raises(Overloaded):
        await session.generate("an edit", input_images=["missing.png"])
    await finish(session, tasks, gateway_time)


async def test_a_share_has_a_limit_of_its_own(session: KontextSession, gateway_time: ManualTime) -> None:
    tasks = await fill(session, 0)
    greedy = session.share("greedy")
    tasks += [asyncio.create_task(greedy.generate("a fox")) for _ in range(PER_SHARE)]
    await until(lambda: session.statistics().queued == PER_SHARE)
    with pytest.raises(Overloaded, match="of this share"):
        await greedy.generate("a fox")
    tasks += [asyncio.create_task(session.share("other").generate("a fox"))]
    await until(lambda: session.statistics().queued == PER_SHARE + 1)
    await finish(session, tasks, gateway_time)


async def test_those_who_are_refused_come_back_one_after_the_other(
    session: KontextSession, gateway_time: ManualTime
) -> None:
    tasks = await fill(session, QUEUED)
    waits: list[float] = []
    for _ in range(20):
        with pytest.raises(Overloaded) as caught:
            await session.share("late").generate("a fox")
        waits.append(caught.value.retry_after)
    gap = 5.0 / SLOTS  # a duration is assumed before the first end
    assert waits[-1] - waits[0] == pytest.approx(19 * gap, rel=0.2)
    await finish(session, tasks, gateway_time)


async def test_requests_of_a_batch_wait_and_do_not_count(session: KontextSession, gateway_time: ManualTime) -> None:
    batch = asyncio.create_task(session.generate_all(["a fox"] * 12))
    await until(lambda: session.statistics().accepted == SLOTS and session.statistics().queued == SLOTS)
    tasks = [asyncio.create_task(session.share(f"user {number}").generate("a fox")) for number in range(QUEUED)]
    await until(lambda: session.statistics().queued == SLOTS + QUEUED)
    while not batch.done():
        gateway_time.advance(11.0)
        await asyncio.sleep(0.01)
    assert all(outcome.ok for outcome in await batch)
    await finish(session, tasks, gateway_time)


async def test_a_throttled_request_waits_again_without_a_limit(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    tasks = await fill(session, QUEUED)
    slots = session._engine.slots.of("flux_kontext_pro")
    again = asyncio.create_task(slots.acquire(priority=True))
    await turn_loop(3)
    assert not again.done()
    again.cancel()
    await finish(session, tasks, gateway_time)
    assert count_creates(emulator) == len(tasks)


class TestQueueTimeout:
    @pytest.fixture
    async def session(self, emulator: Emulator, clock: ManualClock) -> AsyncIterator[KontextSession]:
        async with KontextSession(
            emulator.api_key, base_url=emulator.base_url, settings=attrs.evolve(FAST, limits=LIMITS), clock=clock
        ) as running:
            yield running

    async def test_a_request_leaves_the_queue_in_time_and_is_not_sent(
        self, session: KontextSession, emulator: Emulator, clock: ManualClock
    ) -> None:
        tasks, waiting = await fill_and_queue(session, "too late", queue_timeout=3.0)
        clock.advance(2.9)
        await turn_loop(5)
        assert not waiting.done()
        clock.advance(0.1)
        with pytest.raises(Overloaded) as caught:
            await waiting
        assert caught.value.retry_after > 0
        assert session.statistics().queued == 0
        assert emulator.ledger.accepted == SLOTS
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def test_the_time_in_the_queue_does_not_concern_a_request_that_has_a_slot(
        self, session: KontextSession, clock: ManualClock, gateway_time: ManualTime
    ) -> None:
        tasks, running = await fill_and_queue(session, "in time", queue_timeout=3.0)
        gateway_time.advance(11.0)
        await run_with_clock(asyncio.gather(*tasks), clock, session)
        await until(lambda: session.statistics().queued == 0)
        clock.advance(3.1)
        await turn_loop(5)
        gateway_time.advance(11.0)
        assert (await run_with_clock(running, clock, session)).image.url

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, "3"])
    async def test_a_timeout_that_is_no_number_above_0_is_refused(self, seconds: Any, session: KontextSession) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await session.generate("a fox", queue_timeout=seconds)
        assert caught.value.field == "queue_timeout"

    async def test_with_a_store_the_terms_of_another_caller_do_not_count(
        self, emulator: Emulator, clock: ManualClock
    ) -> None:
        async with KontextSession(
            emulator.api_key,
            base_url=emulator.base_url,
            settings=attrs.evolve(FAST, limits=LIMITS),
            clock=clock,
            store=MemoryStore(),
        ) as session:
            tasks, hasty = await fill_and_queue(session, "a fox", key="job-1", queue_timeout=1.0)
            calm = asyncio.create_task(session.generate("a fox", key="job-1"))
            await turn_loop(5)
            clock.advance(1.0)
            with pytest.raises(Overloaded):
                await hasty
            await until(lambda: session.statistics().queued == 1)
            assert not calm.done()
            for task in (*tasks, calm):
                task.cancel()
            await asyncio.wait([*tasks, calm])


@pytest.mark.parametrize("name", ["max_queued", "max_queued_per_share"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5])
def test_a_limit_that_is_no_count_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Limits(**{name: value})


def test_the_error_is_picklable_with_its_seconds() -> None:
    error = Overloaded("the queue is full", retry_after=2.5)
    restored = pickle.loads(pickle.dumps(error))  # noqa: S301 # its own pickle
    assert restored.retry_after == 2.5
    assert str(restored) == str(error)

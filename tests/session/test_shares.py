"""`KontextSession.share`: the parties among whom a session divides its slots."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from session_support import new_session, until

from kontext_async import InvalidRequest, KontextSession, Limits, SessionClosed, Share
from kontext_async.bulk import BulkRun
from kontext_async.emulator import Emulator, FaultKind
from kontext_async.testing import FAST, MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from emulator_support import ManualTime

pytestmark = pytest.mark.anyio

SLOTS = 3


@pytest.fixture
def emulator_options(gateway_time: ManualTime) -> dict[str, Any]:
    return {"service_time": 10.0, "pixels": 64 * 64, "clock": gateway_time}


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[KontextSession]:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=SLOTS, polls_per_second=2000))
    async with new_session(emulator, settings) as running:
        yield running


def start(share: Share, *prompts: str) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(share.generate(prompt)) for prompt in prompts]


def prompts(emulator: Emulator) -> list[str]:
    """Return the prompts of the accepted requests, in order."""
    return [entry.prompt or "" for entry in emulator.ledger.entries if entry.task_id]


async def queue_of(session: KontextSession, count: int) -> None:
    await until(lambda: session.statistics().queued == count and session.statistics().accepted == SLOTS)


async def test_a_request_of_another_share_does_not_wait_for_the_queue_of_the_first(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    greedy = start(session.share("greedy"), *(f"greedy {number}" for number in range(9)))
    await queue_of(session, 6)
    other = start(session.share("other"), "other")
    await queue_of(session, 7)
    gateway_time.advance(11.0)
    await until(lambda: session.statistics().accepted == 2 * SLOTS)
    assert "other" in prompts(emulator)[SLOTS : 2 * SLOTS]
    gateway_time.advance(11.0)
    await asyncio.gather(*other)
    while not all(task.done() for task in greedy):
        gateway_time.advance(11.0)
        await asyncio.sleep(0.01)
    assert sorted(prompts(emulator)) == sorted([*(f"greedy {number}" for number in range(9)), "other"])


async def test_the_session_is_a_share_beside_the_others(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    tasks = start(session, *(f"own {number}" for number in range(6)))
    await queue_of(session, 3)
    tasks += start(session.share("a"), "of a")
    await queue_of(session, 4)
    gateway_time.advance(11.0)
    await until(lambda: session.statistics().accepted == 2 * SLOTS)
    assert "of a" in prompts(emulator)[SLOTS:]
    gateway_time.advance(11.0)
    await until(lambda: session.statistics().accepted == 7)
    gateway_time.advance(11.0)
    await asyncio.gather(*tasks)


async def test_batches_of_shares_take_turns(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    first = asyncio.create_task(session.share("first").generate_all([f"first {number}" for number in range(6)]))
    await queue_of(session, 3)
    second = asyncio.create_task(session.share("second").generate_all([f"second {number}" for number in range(6)]))
    await queue_of(session, 9)
    for accepted in (2 * SLOTS, 3 * SLOTS, 4 * SLOTS):
        gateway_time.advance(11.0)
        await until(lambda accepted=accepted: session.statistics().accepted == accepted)  # type: ignore[misc]
    assert sum(prompt.startswith("second") for prompt in prompts(emulator)[SLOTS : 3 * SLOTS]) >= SLOTS
    gateway_time.advance(11.0)
    outcomes = [*await first, *await second]
    assert all(outcome.ok for outcome in outcomes)


async def test_a_share_with_all_methods_is_used_as_a_session(
    session: KontextSession, gateway_time: ManualTime, tmp_path: Path
) -> None:
    share = session.share("user-42")
    task = await share.submit("a fox")
    gateway_time.advance(11.0)
    generation = await share.attach(task.id).wait(5)
    assert await share.read(generation.image)
    assert (await share.save(generation.image, tmp_path / "fox.png")).exists()
    assert (await share.estimate("a fox")).cost
    assert share.settings is session.settings
    assert share.name == "user-42"
    assert session.name is None
    assert repr(share) == "<Share 'user-42', weight 1, priority 0>"


async def test_shares_that_are_idle_are_not_kept(session: KontextSession, gateway_time: ManualTime) -> None:
    tasks = [task for number in range(SLOTS) for task in start(session.share(f"user {number}"), "a fox")]
    await until(lambda: session.statistics().accepted == SLOTS)
    assert len(session._engine.slots.waiting.queue.shares) == SLOTS
    gateway_time.advance(11.0)
    await asyncio.gather(*tasks)
    assert len(session._engine.slots.waiting.queue.shares) == 0
    assert session.statistics().in_flight == 0


async def test_a_throttled_request_returns_what_its_share_was_charged(
    session: KontextSession, emulator: Emulator, gateway_time: ManualTime
) -> None:
    emulator.faults.script("create", [FaultKind.RATE_LIMITED])
    (task,) = start(session.share("a"), "a fox")
    await until(lambda: session.statistics().accepted == 1)
    (state,) = session._engine.slots.waiting.queue.shares._active.values()
    assert state.in_flight == 1
    gateway_time.advance(11.0)
    await task


async def test_a_share_keeps_its_session(emulator: Emulator) -> None:
    session = await new_session(emulator).start()
    share, known = session.share("a"), weakref.ref(session)
    del session
    gc.collect()
    kept = known()
    assert kept is not None
    await kept.aclose()
    with pytest.raises(SessionClosed):
        await share.generate("a fox")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a", "weight": 0}, "weight"),
        ({"name": "a", "weight": float("nan")}, "weight"),
        ({"name": "a", "weight": True}, "weight"),
        ({"name": "a", "priority": 11}, "priority"),
        ({"name": "a", "priority": 0.5}, "priority"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], field: str, session: KontextSession
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        session.share(**options)
    assert caught.value.field == field


async def test_requests_with_a_store_are_those_of_their_share(emulator: Emulator, gateway_time: ManualTime) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=SLOTS, polls_per_second=2000))
    async with KontextSession(
        emulator.api_key, base_url=emulator.base_url, settings=settings, store=MemoryStore()
    ) as session:
        tasks = start(session.share("greedy"), *(f"greedy {number}" for number in range(6)))
        await queue_of(session, 3)
        tasks += [asyncio.create_task(session.share("other").generate("other", key="job-1"))]
        await queue_of(session, 4)
        gateway_time.advance(11.0)
        await until(lambda: session.statistics().accepted == 2 * SLOTS)
        assert "other" in prompts(emulator)[SLOTS:]
        gateway_time.advance(11.0)
        await until(lambda: session.statistics().accepted == 7)
        gateway_time.advance(11.0)
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("priority", [0, -1])
async def test_a_durable_run_is_a_share(
    priority: int, session: KontextSession, emulator: Emulator, gateway_time: ManualTime, tmp_path: Path
) -> None:
    share = session.share("nightly", priority=priority) if priority else None
    run = asyncio.create_task(BulkRun(session, tmp_path, share=share).execute([f"run {n}" for n in range(9)]))
    await until(lambda: session.statistics().accepted == SLOTS and session.statistics().queued >= 1)
    web = start(session, "web 0", "web 1", "web 2")
    await until(lambda: session.statistics().queued >= 4)
    gateway_time.advance(11.0)
    await until(lambda: session.statistics().accepted == 2 * SLOTS)
    served = [prompt for prompt in prompts(emulator)[SLOTS : 2 * SLOTS] if prompt.startswith("web")]
    assert len(served) >= (1 if share is None else SLOTS - 1)
    while not run.done():
        gateway_time.advance(11.0)
        await asyncio.sleep(0.01)
    assert (await run).completed == 9
    await asyncio.gather(*web)

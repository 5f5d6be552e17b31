"""`generate_many` and `generate_all`: read lazily, yield in order of completion, lose no outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from session_support import new_session, until

from kontext_async import (
    Generation,
    InvalidRequest,
    KontextRequest,
    KontextSession,
    Limits,
    Outcome,
    Settings,
    TaskFailed,
)
from kontext_async.emulator import Emulator, FaultKind
from kontext_async.events import Completed
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio


async def test_generate_many_yields_each_outcome_once(session: KontextSession, emulator: Emulator) -> None:
    seen = [outcome async for outcome in session.generate_many(f"fox {n}" for n in range(100))]
    assert sorted(outcome.index for outcome in seen) == list(range(100))
    assert all(outcome.ok and outcome.request and outcome.request.prompt == f"fox {outcome.index}" for outcome in seen)
    assert emulator.ledger.billed == 100
    assert not emulator.ledger.billed_twice


async def test_generate_many_yields_in_order_of_completion(session: KontextSession, emulator: Emulator) -> None:
    completed: list[Completed] = []
    session.subscribe(completed.append, Completed)
    emulator.faults.script("create", [None, FaultKind.COMPLETED_AT_ONCE] * 10)
    yielded = [outcome.task_id async for outcome in session.generate_many(f"fox {n}" for n in range(20))]
    ended = [event.task_id for event in completed]
    assert set(ended) == set(emulator.ledger.task_ids)
    for some in (emulator.ledger.task_ids[::2], emulator.ledger.task_ids[1::2]):  # by polls, and at once
        assert [task_id for task_id in yielded if task_id in some] == [task_id for task_id in ended if task_id in some]


async def test_generate_all_keeps_the_order_of_the_requests(session: KontextSession) -> None:
    outcomes = await session.generate_all(["a", {"prompt": "b", "seed": 3}, KontextRequest("c")])
    assert [outcome.request and outcome.request.prompt for outcome in outcomes] == ["a", "b", "c"]


async def test_generate_all_of_nothing_returns_nothing(session: KontextSession) -> None:
    assert await session.generate_all([]) == []


async def test_generate_many_reads_an_async_iterable(session: KontextSession) -> None:
    async def prompts() -> AsyncIterator[str]:
        for n in range(10):
            await asyncio.sleep(0)
            yield f"fox {n}"

    assert len([outcome async for outcome in session.generate_many(prompts()) if outcome.ok]) == 10


@pytest.mark.parametrize("wrong", ["a prompt", {"prompt": "x"}, 7, None])
async def test_an_argument_that_is_no_iterable_of_requests_is_refused(session: KontextSession, wrong: Any) -> None:
    with pytest.raises(InvalidRequest):
        await session.generate_all(wrong)


async def test_an_invalid_request_is_an_outcome(session: KontextSession, emulator: Emulator) -> None:
    outcomes = await session.generate_all(["a", "", {"prompt": "c", "seed": "x"}, "d"])
    assert [outcome.ok for outcome in outcomes] == [True, False, False, True]
    assert isinstance(outcomes[1].error, InvalidRequest)
    assert outcomes[1].request is None
    assert emulator.ledger.accepted == 2


async def test_a_request_that_raises_while_it_is_read_is_an_outcome(session: KontextSession) -> None:
    def broken() -> Iterator[bytes]:
        raise ZeroDivisionError("a bug of theirs")
        yield b""

    first, second = await session.generate_all([{"prompt": "a", "input_images": broken()}, "b"])
    assert isinstance(first.error, InvalidRequest)
    assert isinstance(first.error.__cause__, ZeroDivisionError)
    assert second.ok


async def test_a_slow_consumer_bounds_how_far_the_requests_are_read(emulator: Emulator) -> None:
    settings = Settings(limits=Limits(max_in_flight=3, polls_per_second=2000), polling=FAST.polling)
    read = 0

    def endless_prompts() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"fox {read}"

    async with new_session(emulator, settings) as session:
        outcomes = session.generate_many(endless_prompts())
        await anext(outcomes)
        await until(lambda: session.statistics().completed >= 6)
        await until(lambda: session.statistics().in_flight == 0)
        assert read == 7  # two for each slot, and one whose outcome was yielded
        assert session.statistics().submitted == 7
        await anext(outcomes)
        await until(lambda: read == 8)
        await outcomes.aclose()


async def test_the_error_of_the_iterable_comes_after_the_outcomes(session: KontextSession) -> None:
    def prompts() -> Iterator[str]:
        yield "one"
        yield "two"
        raise LookupError("the third is gone")

    seen: list[Outcome] = []

    async def read() -> None:
        async for outcome in session.generate_many(prompts()):
            seen.append(outcome)  # noqa: PERF401 # a comprehension would lose them

    with pytest.raises(LookupError, match="third"):
        await read()
    assert [outcome.ok for outcome in seen] == [True, True]


async def test_fail_fast_raises_the_error_of_an_invalid_request(session: KontextSession, emulator: Emulator) -> None:
    with pytest.raises(InvalidRequest):
        async for _ in session.generate_many(["", "b", "c"], fail_fast=True):
            pass
    assert emulator.ledger.billed_twice == {}


async def test_fail_fast_raises_the_error_of_a_failed_task(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.TASK_FAILS])
    outcomes = session.generate_many(["fails"], fail_fast=True)
    with pytest.raises(TaskFailed):
        await anext(outcomes)


async def test_batches_and_single_calls_share_the_slots(session: KontextSession) -> None:
    one, two, three = await asyncio.gather(
        session.generate_all(f"a {n}" for n in range(30)),
        session.generate_all(f"b {n}" for n in range(30)),
        session.generate("c"),
    )
    assert all(outcome.ok for outcome in one + two)
    assert isinstance(three, Generation)

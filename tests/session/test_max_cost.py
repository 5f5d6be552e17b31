"""`max_cost` of a session and of a share."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from session_support import until

from kontext_async import CostLimitReached, InvalidRequest, KontextSession, RequestRejected, SubmissionUncertain
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

PRICE = Decimal("0.04")


@pytest.fixture
def open_session(emulator: Emulator) -> Callable[..., KontextSession]:
    """Return a session with a cost limit, not started."""

    def create(max_cost: Decimal | None = None) -> KontextSession:
        return KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST, max_cost=max_cost)

    return create


async def spend(share: Any, count: int) -> list[Any]:
    return await asyncio.gather(*(share.generate("a fox") for _ in range(count)), return_exceptions=True)


async def test_a_session_spends_no_more_than_its_limit(
    open_session: Callable[..., KontextSession], emulator: Emulator
) -> None:
    async with open_session(5 * PRICE) as session:
        results = await spend(session, 12)
    refused = [result for result in results if isinstance(result, CostLimitReached)]
    assert len(refused) == 7
    assert refused[0].limit == 5 * PRICE
    assert emulator.ledger.spent == 5 * PRICE


async def test_a_share_has_a_limit_beside_the_others(
    open_session: Callable[..., KontextSession], emulator: Emulator
) -> None:
    async with open_session() as session:
        results = await spend(session.share("user-42", max_cost=2 * PRICE), 6)
        assert sum(isinstance(result, CostLimitReached) for result in results) == 4
        assert not any(isinstance(result, Exception) for result in await spend(session.share("other"), 3))
    assert emulator.ledger.spent == 5 * PRICE


async def test_what_a_share_has_spent_is_remembered_by_its_name(open_session: Callable[..., KontextSession]) -> None:
    async with open_session() as session:
        for _ in range(2):
            await session.share("user-42", max_cost=2 * PRICE).generate("a fox")
        with pytest.raises(CostLimitReached):
            await session.share("user-42", max_cost=2 * PRICE).generate("a fox")
        generation = await session.share("user-42", max_cost=3 * PRICE).generate("a fox")
        assert generation.usage.cost == PRICE, "the latest limit counts"
        spending = session._engine.scheduler._spending
        assert spending._spent == {"user-42": 3 * PRICE}
        assert not spending._shares


async def test_the_limit_of_the_session_holds_for_all_shares(open_session: Callable[..., KontextSession]) -> None:
    async with open_session(3 * PRICE) as session:
        results = [*await spend(session.share("a", max_cost=2 * PRICE), 3), *await spend(session.share("b"), 3)]
    assert sum(isinstance(result, CostLimitReached) for result in results) == 3


async def test_a_refused_request_costs_nothing_and_an_uncertain_one_counts(
    open_session: Callable[..., KontextSession], emulator: Emulator
) -> None:
    async with open_session(2 * PRICE) as session:
        emulator.faults.script("create", [Fault(kind=FaultKind.HTTP_STATUS, status=422)])
        with pytest.raises(RequestRejected):
            await session.generate("refused")
        emulator.faults.script("create", [FaultKind.CUT_AFTER_ACCEPT])
        with pytest.raises(SubmissionUncertain):
            await session.generate("uncertain")
        await session.generate("a fox")
        with pytest.raises(CostLimitReached):
            await session.generate("too much")


async def test_a_queued_request_that_is_cancelled_frees_its_money(
    open_session: Callable[..., KontextSession], emulator: Emulator
) -> None:
    async with open_session(PRICE) as session:
        session.set_max_in_flight(1)
        slot = await session._engine.slots.of("flux_kontext_pro").acquire()
        waiting = asyncio.create_task(session.generate("a fox"))
        await until(lambda: session.statistics().queued == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        slot.release()
        await session.generate("a fox")
    assert emulator.ledger.accepted == 1


@pytest.mark.parametrize("max_cost", [0, 1.5, Decimal(0), Decimal("NaN"), "3"])
async def test_a_limit_that_is_no_amount_is_refused(max_cost: Any, session: KontextSession) -> None:
    with pytest.raises(InvalidRequest) as caught:
        session.share("a", max_cost=max_cost)
    assert caught.value.field == "max_cost"

"""Limits and estimates, by the emulator's ledger."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from kontext_async import (
    AuthenticationFailed,
    Estimate,
    GatewayUnavailable,
    InvalidRequest,
    InvalidResponse,
    KontextSession,
)
from kontext_async.bulk.plan import made_plan
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(30)]


async def test_an_estimate(session: KontextSession, emulator: Emulator) -> None:
    assert await session.estimate("a fox", seed=1) == Estimate(
        cost=Decimal("0.04"), discount=1.0, model="flux_kontext_pro"
    )
    assert emulator.ledger.entries == ()


async def test_an_estimate_that_the_gateway_does_not_have(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("precharge", ["cost-unknown"])
    assert await session.estimate("a fox") == Estimate(reason="COST_CACHE_MISS")


async def test_a_question_for_the_price_is_asked_again(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("precharge", ["cut", Fault(kind=FaultKind.HTTP_STATUS, status=500)])
    assert (await session.estimate("a fox")).cost == Decimal("0.04")
    emulator.faults.set_rate(Fault(kind=FaultKind.HTTP_STATUS, status=500, on=["precharge"]), 1.0)
    with pytest.raises(GatewayUnavailable):
        await session.estimate("a fox")
    emulator.faults.clear()
    emulator.faults.script("precharge", ["truncated-json"])
    with pytest.raises(InvalidResponse):
        await session.estimate("a fox")


async def test_an_estimate_needs_a_key_and_a_request(emulator: Emulator) -> None:
    async with KontextSession("wrong-key", base_url=emulator.base_url, settings=FAST) as session:
        with pytest.raises(AuthenticationFailed):
            await session.estimate("a fox")
        with pytest.raises(InvalidRequest):
            await session.estimate("a fox", input_images="gone.png")


async def test_a_limit_is_kept_over_all_runs(run: Any, folder: Any, emulator: Emulator) -> None:
    limit = Decimal("0.50")
    first = await run(FOXES, max_cost=limit)
    assert type(first.stopped).__name__ == "CostLimitReached"
    assert (first.finished, first.left, first.complete) == (12, 18, False)
    assert emulator.ledger.spent == Decimal("0.48")
    again = await run(FOXES, max_cost=limit)
    assert (again.finished, again.skipped) == (0, 12)
    assert (await run(FOXES, max_cost=Decimal("0.56"))).finished == 2
    assert emulator.ledger.spent == Decimal("0.56")
    assert (await run(FOXES)).complete


async def test_a_limit_without_estimates(run: Any, emulator: Emulator) -> None:
    emulator.faults.set_rate("cost-unknown", 1.0)
    report = await run(FOXES, max_cost=Decimal("0.21"))
    assert report.finished == 5
    assert emulator.ledger.spent == Decimal("0.20")


async def test_a_limit_that_nobody_can_keep(run: Any, emulator: Emulator) -> None:
    emulator.faults.set_rate("cost-unknown", 1.0)
    emulator.faults.set_rate(Fault(kind=FaultKind.ODD_COST, variant="null"), 0.0)
    emulator.faults.set_rate(Fault(kind=FaultKind.ODD_COST, variant="null"), 1.0)
    report = await run(FOXES, max_cost=Decimal("0.21"))
    assert type(report.stopped).__name__ == "CostUnknown"
    assert report.finished == emulator.ledger.accepted == 1


async def test_uncertain_requests_count_against_the_limit(run: Any, emulator: Emulator) -> None:
    emulator.faults.script("create", ["cut-after-accept"] * 3)
    report = await run(FOXES, max_cost=Decimal("0.40"))
    assert (report.doubted, report.finished) == (3, 7)
    assert emulator.ledger.spent == Decimal("0.40")


async def test_a_plan_writes_and_pays_nothing(
    run: Any, folder: Any, session: KontextSession, emulator: Emulator
) -> None:
    plan = await made_plan([*FOXES, " "], folder.path, session=session)
    assert (plan.total, plan.submit, plan.wrong, plan.cost) == (31, 30, 1, Decimal("1.20"))
    assert not folder.path.exists()
    emulator.faults.script("create", ["cut-after-accept"])
    await run(FOXES[:5])
    (folder.path / "000001-fox-1.jpg").unlink(missing_ok=True)
    (folder.path / "000000-fox-0.jpg").unlink(missing_ok=True)
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir() if path.suffix != ".lock"}
    plan = await made_plan(FOXES, folder.path, session=None)
    assert (plan.submit, plan.fetch + plan.skip, plan.uncertain) == (25, 4, 1)
    assert plan.fetch >= 1
    assert (plan.cost, plan.spent) == (Decimal("1.00"), Decimal("0.16"))
    again = await made_plan(FOXES, folder.path, session=None, resend_uncertain=True)
    assert (again.submit, again.uncertain) == (26, 0)
    assert {path for path in folder.path.iterdir() if path.suffix != ".lock"} >= set(before) - {folder.path / ".lock"}
    assert emulator.ledger.accepted == 5
    assert list(plan.lines())[:2] == ["30 requests", "25 to submit, about 1.00 USD"]


async def test_a_plan_without_prices(folder: Path) -> None:
    plan = await made_plan(["a fox"], folder.path, session=None)  # type: ignore[attr-defined]
    assert plan.cost is None
    assert "1 to submit, nobody knows what they cost" in list(plan.lines())

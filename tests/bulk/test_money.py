"""Cost estimates, cost limits and dry runs, checked with the emulator's ledger."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from kontext_async import (
    AuthenticationFailed,
    Estimate,
    GatewayUnavailable,
    InvalidRequest,
    InvalidResponse,
    KontextSession,
)
from kontext_async.bulk.dry_run import plan_run
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from bulk_support import Folder, RunRequests

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(30)]


async def test_an_estimate_costs_nothing(session: KontextSession, emulator: Emulator) -> None:
    assert await session.estimate("a fox", seed=1) == Estimate(
        cost=Decimal("0.04"), discount=1.0, model="flux_kontext_pro"
    )
    assert emulator.ledger.entries == ()


async def test_an_estimate_without_a_cost_has_the_reason_of_the_gateway(
    session: KontextSession, emulator: Emulator
) -> None:
    emulator.faults.script("precharge", ["cost-unknown"])
    assert await session.estimate("a fox") == Estimate(reason="COST_CACHE_MISS")


async def test_a_failed_estimate_is_retried(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("precharge", ["cut", Fault(kind=FaultKind.HTTP_STATUS, status=500)])
    assert (await session.estimate("a fox")).cost == Decimal("0.04")
    emulator.faults.set_rate(Fault(kind=FaultKind.HTTP_STATUS, status=500, on=["precharge"]), 1.0)
    with pytest.raises(GatewayUnavailable):
        await session.estimate("a fox")
    emulator.faults.clear()
    emulator.faults.script("precharge", ["truncated-json"])
    with pytest.raises(InvalidResponse):
        await session.estimate("a fox")


async def test_an_estimate_needs_a_valid_key_and_a_valid_request(emulator: Emulator) -> None:
    async with KontextSession("wrong-key", base_url=emulator.base_url, settings=FAST) as session:
        with pytest.raises(AuthenticationFailed):
            await session.estimate("a fox")
        with pytest.raises(InvalidRequest):
            await session.estimate("a fox", input_images="gone.png")


async def test_a_cost_limit_applies_to_all_runs_together(run: RunRequests, folder: Folder, emulator: Emulator) -> None:
    limit = Decimal("0.50")
    first = await run(FOXES, max_cost=limit)
    assert type(first.stopped).__name__ == "CostLimitReached"
    assert (first.completed, first.remaining, first.complete) == (12, 18, False)
    assert emulator.ledger.spent == Decimal("0.48")
    again = await run(FOXES, max_cost=limit)
    assert (again.completed, again.skipped) == (0, 12)
    assert (await run(FOXES, max_cost=Decimal("0.56"))).completed == 2
    assert emulator.ledger.spent == Decimal("0.56")
    assert (await run(FOXES)).complete


async def test_a_cost_limit_works_without_estimates(run: RunRequests, emulator: Emulator) -> None:
    emulator.faults.set_rate("cost-unknown", 1.0)
    report = await run(FOXES, max_cost=Decimal("0.21"))
    assert report.completed == 5
    assert emulator.ledger.spent == Decimal("0.20")


async def test_a_cost_limit_stops_the_run_if_the_gateway_reports_no_cost(run: RunRequests, emulator: Emulator) -> None:
    emulator.faults.set_rate("cost-unknown", 1.0)
    emulator.faults.set_rate(Fault(kind=FaultKind.ODD_COST, variant="null"), 0.0)
    emulator.faults.set_rate(Fault(kind=FaultKind.ODD_COST, variant="null"), 1.0)
    report = await run(FOXES, max_cost=Decimal("0.21"))
    assert type(report.stopped).__name__ == "CostUnknown"
    assert report.completed == emulator.ledger.accepted == 1


async def test_uncertain_requests_count_towards_the_cost_limit(run: RunRequests, emulator: Emulator) -> None:
    emulator.faults.script("create", ["cut-after-accept"] * 3)
    report = await run(FOXES, max_cost=Decimal("0.40"))
    assert (report.uncertain_in_input, report.completed) == (3, 7)
    assert emulator.ledger.spent == Decimal("0.40")


async def test_a_plan_writes_nothing_and_submits_nothing(
    run: RunRequests, folder: Folder, session: KontextSession, emulator: Emulator
) -> None:
    plan = await plan_run([*FOXES, " "], folder.path, session=session)
    assert (plan.total, plan.to_submit, plan.invalid, plan.cost) == (31, 30, 1, Decimal("1.20"))
    assert not folder.path.exists()
    emulator.faults.script("create", ["cut-after-accept"])
    await run(FOXES[:5])
    (folder.path / "000001-fox-1.jpg").unlink(missing_ok=True)
    (folder.path / "000000-fox-0.jpg").unlink(missing_ok=True)
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir() if path.suffix != ".lock"}
    plan = await plan_run(FOXES, folder.path, session=None)
    assert (plan.to_submit, plan.to_recover + plan.to_skip, plan.uncertain) == (25, 4, 1)
    assert plan.to_recover >= 1
    assert (plan.cost, plan.spent) == (Decimal("1.00"), Decimal("0.16"))
    again = await plan_run(FOXES, folder.path, session=None, resend_uncertain=True)
    assert (again.to_submit, again.uncertain) == (26, 0)
    assert {path for path in folder.path.iterdir() if path.suffix != ".lock"} >= set(before) - {folder.path / ".lock"}
    assert emulator.ledger.accepted == 5
    assert list(plan.lines())[:2] == ["30 requests", "25 to submit, about 1.00 USD"]


async def test_a_plan_without_prices_has_no_cost(folder: Folder) -> None:
    plan = await plan_run(["a fox"], folder.path, session=None)
    assert plan.cost is None
    assert "1 to submit, cost unknown" in list(plan.lines())

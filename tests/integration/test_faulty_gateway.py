"""A gateway that fails in many ways, or responds in odd ways: no task is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kontext_async.emulator import Emulator, Fault, FaultKind, Faults

if TYPE_CHECKING:
    from kontext_async import KontextSession

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "kind",
    [
        FaultKind.ODD_STATUS,
        FaultKind.ODD_COST,
        FaultKind.ODD_PROGRESS,
        FaultKind.MILLISECONDS,
        FaultKind.EXTRA_KEYS,
        FaultKind.SEVERAL_URLS,
    ],
)
async def test_odd_responses_are_understood(session: KontextSession, emulator: Emulator, kind: FaultKind) -> None:
    emulator.faults.set_rate(Fault(kind=kind, on=["status"]), 0.9)
    outcomes = await session.generate_all(f"{kind} {n}" for n in range(8))
    completed = [outcome for outcome in outcomes if outcome.ok]
    assert len(completed) == 8 or kind is FaultKind.ODD_STATUS  # "FAILED" is one of the odd statuses
    assert all(outcome.task_id for outcome in outcomes)


async def test_failed_polls_of_every_kind_lose_no_task(session: KontextSession, emulator: Emulator) -> None:
    assert isinstance(emulator.faults, Faults)
    emulator.faults.rates = {
        Fault(kind=FaultKind.CUT, on=["status"]): 0.1,
        Fault(kind=FaultKind.HTTP_STATUS, on=["status"], status=500): 0.1,
        Fault(kind=FaultKind.BAD_GATEWAY, on=["status"]): 0.05,
        Fault(kind=FaultKind.TRUNCATED_JSON, on=["status"]): 0.05,
        Fault(kind=FaultKind.SHORT_BODY, on=["status"]): 0.05,
        Fault(kind=FaultKind.MALFORMED_JSON, on=["status"]): 0.05,
        Fault(kind=FaultKind.EMPTY_BODY, on=["status"]): 0.05,
        Fault(kind=FaultKind.HTML_PAGE, on=["status"]): 0.05,
    }
    outcomes = await session.generate_all(f"fox {n}" for n in range(100))
    assert all(outcome.ok for outcome in outcomes)
    assert emulator.ledger.billed == 100

"""Cancel requests of the queue dialect, their faults, and what the ledger says of them."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING

import aiohttp
import pytest
from emulator_support import QUEUE_PATH

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from emulator_support import Caller, ManualTime, Serve

pytestmark = pytest.mark.anyio

COST = Decimal("0.04")


async def create(caller: Caller, prompt: str = "x") -> str:
    """Create a task, and return the path of its requests."""
    created = await caller.request("POST", QUEUE_PATH, json={"prompt": prompt})
    return f"{QUEUE_PATH}/requests/{created.json['request_id']}"


async def cancel(caller: Caller, path: str) -> int:
    return (await caller.request("PUT", f"{path}/cancel")).status


async def error_type(caller: Caller, path: str) -> str | None:
    """Return the kind of error with which a task ended; None for a task that completed or is in progress."""
    value: str | None = (await caller.request("GET", f"{path}/status")).json.get("error_type")
    return value


async def test_a_late_cancellation_ends_the_task_after_its_time(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=100, max_tasks=1)
    caller.emulator.faults.script("cancel", [Fault(kind="cancel-late", seconds=5)])
    path = await create(caller)
    assert await cancel(caller, path) == 202
    clock.advance(4)
    assert await error_type(caller, path) is None
    assert (await caller.request("POST", QUEUE_PATH, json={"prompt": "y"})).status == 429
    clock.advance(1)
    assert await error_type(caller, path) == "CANCELLED"
    assert (await caller.request("POST", QUEUE_PATH, json={"prompt": "y"})).status == 200


async def test_a_late_cancellation_of_a_task_that_ends_before_is_none(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=3, bill_cancelled=False)
    caller.emulator.faults.script("cancel", [Fault(kind="cancel-late", seconds=5)])
    path = await create(caller)
    assert await cancel(caller, path) == 202
    clock.advance(5)
    status = (await caller.request("GET", f"{path}/status")).json
    assert (status["status"], status["error"]) == ("COMPLETED", None)
    assert caller.emulator.ledger.spent == COST


@pytest.mark.parametrize(("kind", "status"), [("cancel-ignored", 202), ("cancel-refused", 409)])
async def test_a_cancellation_without_effect(serve: Serve, clock: ManualTime, kind: str, status: int) -> None:
    caller = await serve(clock=clock, service_time=3)
    caller.emulator.faults.script("cancel", [kind])
    path = await create(caller)
    assert await cancel(caller, path) == status
    clock.advance(3)
    assert await error_type(caller, path) is None


async def test_a_response_that_is_cut_after_the_cancellation(serve: Serve) -> None:
    caller = await serve(service_time=100)
    caller.emulator.faults.script("cancel", ["cut-after-cancel"])
    path = await create(caller)
    with suppress(aiohttp.ClientConnectionError):  # aiohttp may repeat the request by itself: nothing is lost by that
        assert await cancel(caller, path) == 400
    assert await error_type(caller, path) == "CANCELLED"
    assert await cancel(caller, path) == 400


@pytest.mark.parametrize(("bill_cancelled", "spent"), [(True, COST), (False, Decimal(0))])
async def test_the_ledger_says_what_was_billed(serve: Serve, bill_cancelled: object, spent: Decimal) -> None:
    caller = await serve(service_time=100, balance=COST, bill_cancelled=bill_cancelled)
    path = await create(caller)
    assert await cancel(caller, path) == 202
    ledger = caller.emulator.ledger
    assert (ledger.accepted, ledger.billed, ledger.spent) == (1, int(bool(spent)), spent)
    assert [entry.cost for entry in ledger.entries] == [spent]
    again = await caller.request("POST", QUEUE_PATH, json={"prompt": "x"})
    assert again.status == (403 if spent else 200), "the balance is enough for one task"
    assert ledger.billed_twice == {}

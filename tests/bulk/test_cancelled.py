"""Tasks of a durable run that are cancelled: they fail, are not left open, and count as money that may be spent."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from gateway_sessions import connect, new_emulator

from kontext_async.bulk import BulkRun
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from bulk_support import Folder

pytestmark = pytest.mark.anyio

QUEUE = "vtrix-queue"
TIMEOUTS = evolve(FAST.timeouts, wait=0.3, cancel=5.0, cancel_on_timeout=True)


async def test_a_task_that_takes_too_long_is_cancelled_and_fails(folder: Folder) -> None:
    settings = evolve(FAST, timeouts=TIMEOUTS)
    async with new_emulator(service_time=600) as emulator:
        async with connect(QUEUE, emulator, settings=settings) as session:
            report = await BulkRun(session, folder.path, max_cost=Decimal("0.10")).execute(
                ["a fox", "a wolf", "an owl"]
            )
        assert report.failed == {"TaskCancelled": 2, "CostLimitReached": 1} or report.stopped is not None
        assert folder.states().count("failed") == 2
        assert emulator.ledger.billed == 2
        assert all(row["task_id"] for row in folder.rows() if row["state"] == "failed")


async def test_a_cancelled_request_is_sent_again_only_if_that_is_wanted(folder: Folder) -> None:
    settings = evolve(FAST, timeouts=TIMEOUTS)
    async with new_emulator(service_time=600) as emulator, connect(QUEUE, emulator, settings=settings) as session:
        report = await BulkRun(session, folder.path).execute(["a fox"])
        assert report.failed == {"TaskCancelled": 1}
        await BulkRun(session, folder.path).execute(["a fox"])
        assert emulator.ledger.accepted == 1
        await BulkRun(session, folder.path, retry_failed=True).execute(["a fox"])
        assert emulator.ledger.accepted == 2

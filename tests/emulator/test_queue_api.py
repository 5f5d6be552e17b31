from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from emulator_support import QUEUE_PATH

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from emulator_support import ManualTime, Serve

pytestmark = pytest.mark.anyio


async def test_a_queued_task_runs_from_create_request_to_image(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10)
    key = {"Authorization": f"Key {caller.emulator.api_key}"}
    created = (await caller.request("POST", QUEUE_PATH, json={"prompt": "x"}, headers=key)).json
    assert created["queue_position"] == 0
    assert created["status_url"].startswith(caller.emulator.base_url)
    status, response, cancel = (
        created[name].removeprefix(caller.emulator.base_url) for name in ("status_url", "response_url", "cancel_url")
    )
    seen = []
    for turn in (0, 5, 10):
        clock.advance(turn)
        seen.append((await caller.request("GET", status, headers=key)).json["status"])
        if turn < 10:
            assert (await caller.request("GET", response, headers=key)).status == 202
    assert seen == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    result = await caller.request("GET", response)
    assert result.status == 200
    assert result.json["outputs"][0]["width"] == 64
    assert (await caller.request("GET", result.json["outputs"][0]["url"])).status == 200
    assert (await caller.request("PUT", cancel)).status == 400


async def test_a_failed_task_is_completed_with_an_error_and_its_response_says_failed(serve: Serve) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [Fault(kind="task-fails", code="E7", message="the prompt was refused")])
    created = (await caller.request("POST", QUEUE_PATH, json={"prompt": "x"})).json
    assert created["status"] == "queued"
    path = f"{QUEUE_PATH}/requests/{created['request_id']}"
    status = (await caller.request("GET", f"{path}/status")).json
    expected = {
        "error": "the prompt was refused",
        "error_type": "INFERENCE_FAILURE",
        "provider_error": {"code": "E7", "message": "the prompt was refused"},
    }
    assert status == {"request_id": created["request_id"], "status": "COMPLETED", "logs": [], **expected}
    response = await caller.request("GET", f"{path}/response")
    assert response.json == {"request_id": created["request_id"], "status": "failed", **expected}


async def test_a_cancelled_task_fails_and_stays_billed(serve: Serve) -> None:
    caller = await serve(service_time=100)
    created = (await caller.request("POST", QUEUE_PATH, json={"prompt": "x"})).json
    path = f"{QUEUE_PATH}/requests/{created['request_id']}"
    assert (await caller.request("PUT", f"{path}/cancel")).status == 202
    status = (await caller.request("GET", f"{path}/status")).json
    assert (status["status"], status["error_type"]) == ("COMPLETED", "CANCELLED")
    assert status["error"] == "the task was cancelled"
    assert (await caller.request("GET", f"{path}/response")).json["provider_error"]["code"] == "CANCELLED"
    assert caller.emulator.ledger.billed == 1

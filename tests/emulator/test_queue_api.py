from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from emulator_support import QUEUE_PATH

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from emulator_support import Caller, ManualTime, Serve

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


class TestFaults:
    @pytest.mark.parametrize(
        ("variant", "start"),
        [
            ("missing", None),
            ("relative", "/model/v1/queue/"),
            ("elsewhere", "https://polls.invalid/model/v1/queue/"),
            ("user", "http://user:password@127.0.0.1"),
            ("script", "javascript:"),
        ],
    )
    async def test_odd_addresses(self, serve: Serve, variant: str, start: str | None) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", [Fault(kind="odd-address", variant=variant)])
        created = (await caller.request("POST", QUEUE_PATH, json={"prompt": "x"})).json
        for name in ("status_url", "response_url", "cancel_url"):
            assert name not in created if start is None else created[name].startswith(start)

    async def test_a_status_may_have_the_result(self, serve: Serve) -> None:
        caller = await serve()
        path, _ = await complete(caller)
        caller.emulator.faults.script("status", ["result-in-status"])
        status = (await caller.request("GET", f"{path}/status")).json
        assert status["status"] == "COMPLETED"
        assert (await caller.request("GET", status["outputs"][0]["url"])).status == 200

    @pytest.mark.parametrize(("variant", "word"), [("status", "failed"), ("error", "COMPLETED")])
    async def test_a_result_may_say_that_the_task_failed(self, serve: Serve, variant: str, word: str) -> None:
        caller = await serve()
        path, _ = await complete(caller)
        caller.emulator.faults.script("status", [None, Fault(kind="failed-result", variant=variant)])
        assert (await caller.request("GET", f"{path}/status")).json["error"] is None
        result = (await caller.request("GET", f"{path}/response")).json
        assert (result["status"], result["error_type"]) == (word, "INFERENCE_FAILURE")
        assert "outputs" not in result

    @pytest.mark.parametrize(
        ("fault", "field", "value"),
        [
            (Fault(kind="odd-status", variant="done"), "status", "success"),
            (Fault(kind="odd-status", variant="running"), "status", "succeeded"),
            (Fault(kind="extra-keys"), "object", "generation"),
        ],
    )
    async def test_odd_statuses(self, serve: Serve, fault: Fault, field: str, value: str) -> None:
        caller = await serve()
        path, _ = await complete(caller)
        caller.emulator.faults.script("status", [fault])
        assert (await caller.request("GET", f"{path}/status")).json[field] == value

    @pytest.mark.parametrize(
        ("variant", "outputs"),
        [("null", None), ("empty", []), ("no-content", [{}, None]), ("no-url", [{"type": "image", "url": ""}])],
    )
    async def test_odd_outputs(self, serve: Serve, variant: str, outputs: list[object] | None) -> None:
        caller = await serve()
        path, _ = await complete(caller)
        caller.emulator.faults.script("status", [Fault(kind="odd-output", variant=variant)])
        assert (await caller.request("GET", f"{path}/response")).json["outputs"] == outputs

    @pytest.mark.parametrize("variant", ["string", "integer-code", "error_message", "message-only", "null", "missing"])
    async def test_odd_errors_still_say_that_the_task_failed(self, serve: Serve, variant: str) -> None:
        caller = await serve()
        caller.emulator.faults.script("create", ["task-fails"])
        path, _ = await complete(caller)
        caller.emulator.faults.script("status", [Fault(kind="odd-error", variant=variant)])
        assert (await caller.request("GET", f"{path}/status")).json["error"] is not None

    async def test_a_cancel_request_has_faults_of_its_own(self, serve: Serve) -> None:
        caller = await serve(service_time=100)
        path, _ = await complete(caller)
        caller.emulator.faults.script("cancel", [Fault(kind="http-status", status=500), None])
        statuses = [(await caller.request("PUT", f"{path}/cancel")).status for _ in range(3)]
        assert statuses == [500, 202, 400]

    async def test_hostile_contents(self, serve: Serve) -> None:
        caller = await serve()
        path, _ = await complete(caller)
        caller.emulator.faults.script("status", [Fault(kind="odd-url", location="https://evil.example/"), "many-urls"])
        odd = (await caller.request("GET", f"{path}/response")).json
        assert odd["outputs"][0]["url"] == "https://evil.example/"
        assert len((await caller.request("GET", f"{path}/response")).json["outputs"]) == 100_000


async def complete(caller: Caller) -> tuple[str, str]:
    """Create a task, and return its path and its ID."""
    created = (await caller.request("POST", QUEUE_PATH, json={"prompt": "x"})).json
    return f"{QUEUE_PATH}/requests/{created['request_id']}", created["request_id"]

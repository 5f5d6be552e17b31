from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from emulator_support import GENERATION_PATH, create_body
from PIL import Image

from kontext_async.emulator import ErrorShape, Fault, Faults, ServiceTime

if TYPE_CHECKING:
    from emulator_support import ManualTime, Serve

pytestmark = pytest.mark.anyio


async def test_a_task_runs_from_create_request_to_image(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10)
    created = await caller.create("a red fox", aspect_ratio="16:9", output_format="png", seed=7)
    assert created.status == 200
    task = created.json
    assert task == {
        "id": task["id"],
        "status": "in_progress",
        "model": "flux_kontext_pro",
        "created_at": int(clock.now),
        "progress": 0.0,
    }
    clock.advance(5)
    assert (await caller.get_status(task["id"])).json["progress"] == 0.5
    clock.advance(5)
    done = (await caller.get_status(task["id"])).json
    assert done["status"] == "completed"
    assert "progress" not in done
    assert done["usage"] == {"cost": "0.04", "discount": 1.0}
    start = int(clock.now) - 10
    assert done["metadata"] == {"in_queue_at": start, "upload_at": start + 9, "completed_at": start + 10, "seed": 7}
    url = done["output"][0]["content"][0]["url"]
    assert url.startswith(caller.emulator.files_url)
    image = await caller.request("GET", url)
    assert image.headers["Content-Type"] == "image/png"
    width, height = Image.open(io.BytesIO(image.body)).size
    assert width / height == pytest.approx(16 / 9, rel=0.05)
    assert caller.emulator.ledger.spent == Decimal("0.04")


async def test_equal_requests_give_equal_images_and_are_billed_twice(serve: Serve) -> None:
    caller = await serve()
    first, second, third = [
        (await caller.request("GET", await caller.create_image_url(seed=seed))).body for seed in (1, 1, 2)
    ]
    assert first == second != third
    assert list(caller.emulator.ledger.billed_twice.values()) == [2]


async def test_two_emulators_with_one_seed_respond_alike(serve: Serve, clock: ManualTime) -> None:
    responses = []
    for _ in range(2):
        caller = await serve(clock=clock, service_time=ServiceTime.lognormal(3, 1), seed=5, progress_noise=0.1)
        first = (await caller.create()).json
        clock.advance(1)
        responses.append((first, (await caller.get_status(first["id"])).json))
        clock.advance(-1)
    assert responses[0] == responses[1]


async def test_responses_omit_progress_when_progress_noise_is_none(serve: Serve) -> None:
    caller = await serve(service_time=10, progress_noise=None)
    assert "progress" not in (await caller.create()).json


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Key emulator-key"])
async def test_requests_without_the_key_are_unauthorized(serve: Serve, header: str) -> None:
    caller = await serve()
    headers = {"Authorization": header}
    for method, path in (
        ("POST", GENERATION_PATH),
        ("GET", f"{GENERATION_PATH}/task/x"),
        ("POST", f"{GENERATION_PATH}/precharge"),
    ):
        reply = await caller.request(method, path, headers=headers, json=create_body(prompt="x"))
        assert reply.status == 401
        assert set(reply.json["error"]) == {"code", "message", "error_message"}
        assert reply.json["request_id"] == reply.headers["X-Request-Id"]
    assert [entry.reason for entry in caller.emulator.ledger.entries] == ["UNAUTHORIZED"]


async def test_every_key_has_its_own_account(serve: Serve) -> None:
    caller = await serve(api_key=None, balance="0.04", service_time=10)
    mine, yours = {"Authorization": "Bearer mine"}, {"Authorization": "Bearer yours"}
    request = {"json": create_body(prompt="x")}
    task_id = (await caller.request("POST", GENERATION_PATH, headers=mine, **request)).json["id"]
    assert (await caller.request("GET", f"{GENERATION_PATH}/task/{task_id}", headers=mine)).status == 200
    assert (await caller.request("GET", f"{GENERATION_PATH}/task/{task_id}", headers=yours)).status == 404
    assert (await caller.request("POST", GENERATION_PATH, headers=mine, **request)).status == 403
    assert (await caller.request("POST", GENERATION_PATH, headers=yours, **request)).status == 200


async def test_refusals_name_the_field_and_cost_nothing(serve: Serve) -> None:
    caller = await serve()
    reply = await caller.create(seed="one")
    assert reply.status == 422
    assert "input[0].params.seed" in reply.json["error"]["message"]
    assert (await caller.request("POST", GENERATION_PATH, data=b"{")).status == 400
    assert caller.emulator.ledger.refused == 2
    assert caller.emulator.ledger.billed == 0


async def test_a_body_that_cannot_be_decoded_is_refused(serve: Serve) -> None:
    caller = await serve()
    reply = await caller.request("POST", GENERATION_PATH, data=b"no gzip", headers={"Content-Encoding": "gzip"})
    assert (reply.status, caller.emulator.ledger.refused) == (400, 1)


async def test_limits_on_tasks_and_requests_respond_429(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10, max_tasks=1, requests_per_second=4)
    assert (await caller.create()).status == 200
    full = await caller.create()
    assert (full.status, full.json["error"]["code"]) == (429, "TASK_LIMIT_EXCEEDED")
    statuses = [(await caller.get_status("x")).status for _ in range(3)]
    assert statuses == [404, 404, 429]
    limited = await caller.create()
    assert limited.headers["Retry-After"] == "1"
    clock.advance(10)
    assert (await caller.create()).status == 200


async def test_error_shapes_are_used_in_turn(serve: Serve) -> None:
    caller = await serve(error_shapes=ErrorShape)
    bodies = [(await caller.get_status("x")).body for _ in range(9)]
    assert [json.loads(body) if body[:1] == b"{" else body[:6] for body in bodies[1:8]] == [
        {"message": "no such task"},
        {"error": "no such task"},
        {"detail": "no such task"},
        b"<html>",
        b"",
        {"detail": [{"loc": ["body"], "msg": "no such task", "type": "task_not_found"}]},
        {"status": {"code": 404, "message": "no such task", "error_code": "TASK_NOT_FOUND"}},
    ]
    assert b"request_id" in bodies[0]
    assert b"request_id" in bodies[8]


async def test_unknown_paths_and_methods_are_refused(serve: Serve) -> None:
    caller = await serve()
    missing, wrong = await caller.request("GET", "/nowhere"), await caller.request("DELETE", GENERATION_PATH)
    assert (missing.status, missing.json["error"]["code"]) == (404, "NOT_FOUND")
    assert (wrong.status, wrong.json["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["Allow"] == "POST"
    for reply in (missing, wrong, await caller.request("GET", f"{caller.emulator.files_url}/nowhere")):
        assert len(reply.json["request_id"]) == 16
        assert reply.json["request_id"] == reply.headers["X-Request-Id"]


async def test_precharge_returns_the_price_and_records_nothing(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(discount=0.7, faults=Faults(), clock=clock)
    price = {"json": create_body(prompt="x")}
    good = (await caller.request("POST", f"{GENERATION_PATH}/precharge", **price)).json
    digest = good["data"].pop("hash")
    assert good["data"] == {
        "model": "flux_kontext_pro",
        "billing_model": "flux_kontext_pro",
        "original_model": "flux_kontext_pro",
        "updated_at": int(clock.now),
        "cost": "0.028",
        "currency": "USD",
        "discount": 0.7,
        "sample_count": 4,
    }
    caller.emulator.faults.script("precharge", ["cost-unknown", Fault(kind="unavailable")])
    unknown = (await caller.request("POST", f"{GENERATION_PATH}/precharge", **price)).json
    assert unknown == {"status": "failed", "data": {"cost": None, "reason": "COST_CACHE_MISS"}}
    assert (await caller.request("POST", f"{GENERATION_PATH}/precharge", **price)).status == 503
    assert (await caller.request("POST", f"{GENERATION_PATH}/precharge", json={})).status == 400
    assert not caller.emulator.ledger.entries
    await caller.create("x")
    assert caller.emulator.ledger.entries[0].digest == digest


async def test_precharge_can_respond_in_credits(serve: Serve) -> None:
    caller = await serve(currency="credit")
    data = (await caller.request("POST", f"{GENERATION_PATH}/precharge", json=create_body(prompt="x"))).json["data"]
    assert (data["cost"], data["currency"]) == ("4", "credit")


async def test_the_fields_beside_model_and_input_are_accepted(serve: Serve) -> None:
    caller = await serve()
    body = create_body(prompt="x") | {"moderation": False, "metadata": {"trace": "a-1"}, "options": {"tier": 2}}
    assert (await caller.request("POST", GENERATION_PATH, json=body)).status == 200
    entry = caller.emulator.ledger.entries[0]
    assert (entry.moderation, entry.metadata) == (False, {"trace": "a-1"})
    assert (await caller.request("POST", f"{GENERATION_PATH}/precharge", json=body | {"id": "x"})).status == 200
    wrong_fields: tuple[dict[str, Any], ...]
    wrong_fields = ({"id": "x"}, {"moderation": "no"}, {"metadata": {"trace": 1}}, {"options": []}, {"tags": 1})
    for wrong in wrong_fields:
        reply = await caller.request("POST", GENERATION_PATH, json=body | wrong)
        assert reply.status in (400, 422)
        assert next(iter(wrong)) in reply.json["error"]["message"]


async def test_the_balance_of_the_account_is_served(serve: Serve) -> None:
    caller = await serve(balance="1", price="0.04")
    await caller.create()
    reply = (await caller.request("GET", "/api/v1/user/balance")).json
    assert reply["status"] == {"code": 200, "message": "ok"}
    assert (reply["data"]["balance"], reply["data"]["total_recharged"], reply["data"]["currency"]) == (
        "0.96",
        "1",
        "USD",
    )
    assert (await caller.request("GET", "/api/v1/user/balance", headers={"Authorization": "Bearer x"})).status == 401
    caller.emulator.faults.script("balance", ["bad-gateway"])
    assert (await caller.request("GET", "/api/v1/user/balance")).status == 502
    assert caller.emulator.ledger.accepted == 1


async def test_models_and_their_contracts_are_served(serve: Serve) -> None:
    caller = await serve()
    listed = (await caller.request("GET", "/api/v1/skill/models?page=1&page_size=20")).json["data"]
    assert [model["id"] for model in listed["models"]] == ["flux_kontext_pro", "flux_kontext_max"]
    contract = (await caller.request("GET", "/api/v1/skill/model-contracts/flux_kontext_max")).json["data"]
    assert contract["endpoints"]["submit"] == {"method": "POST", "path": "/model/v1/queue/flux_kontext_max"}
    assert (await caller.request("GET", "/api/v1/skill/model-contracts/other")).status == 404


async def test_a_header_can_name_the_model(serve: Serve) -> None:
    caller = await serve()
    body = {"input": [{"params": {"prompt": "x"}}]}
    reply = await caller.request("POST", GENERATION_PATH, json=body, headers={"X-Model": "flux_kontext_max"})
    assert reply.json["model"] == "flux_kontext_max"


async def test_bodies_over_the_size_limit_are_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_async.emulator.http.app.MAX_BODY_BYTES", 1000)
    caller = await serve()
    assert (await caller.create("x" * 2000)).status == 413

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from emulator_support import GENERATION_PATH, create_body

from kontext_async.emulator import Fault, FaultKind
from kontext_async.emulator.fault_specs import CONTROL_VARIANTS, FAULT_SPECS

if TYPE_CHECKING:
    from emulator_support import Caller, ManualTime, Serve

pytestmark = pytest.mark.anyio
KEY = "emulator-key"


async def send_raw(caller: Caller, method: str, path: str, body: bytes = b"") -> bytes:
    """Send a request and return all bytes of what comes until the connection closes."""
    port = int(caller.emulator.base_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"{method} {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {KEY}",
        "Connection: close",
        f"Content-Length: {len(body)}",
    )
    writer.write("\r\n".join((*head, "", "")).encode() + body)
    data = await reader.read()
    writer.close()
    return data


async def create_raw(caller: Caller, fault: Fault | str) -> tuple[bytes, bytes]:
    """Send a create request that meets a fault; return the head and the body of its response as they came."""
    caller.emulator.faults.script("create", [fault])
    data = await send_raw(caller, "POST", GENERATION_PATH, json.dumps(create_body(prompt="x")).encode())
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def collect_urls(task: dict[str, Any]) -> list[str]:
    return [item["url"] for group in task["output"] for item in group["content"]]


async def test_a_response_has_one_large_header_or_many_headers(serve: Serve) -> None:
    caller = await serve()
    head, body = await create_raw(caller, "large-header")
    assert max(len(line) for line in head.split(b"\r\n")) > 9 * 1024
    assert json.loads(body)["id"] == caller.emulator.ledger.task_ids[0]
    head, body = await create_raw(caller, "many-headers")
    assert head.count(b"\r\n") > 130
    assert json.loads(body)["id"] == caller.emulator.ledger.task_ids[1]


async def test_the_last_chunk_is_missing_behind_a_complete_body(serve: Serve) -> None:
    caller = await serve()
    head, body = await create_raw(caller, "missing-last-chunk")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    size, _, rest = body.partition(b"\r\n")
    assert json.loads(rest[: int(size, 16)])["id"] == caller.emulator.ledger.task_ids[0]
    assert rest[int(size, 16) :] == b"\r\n"


async def test_content_length_is_one_too_long_for_a_complete_body(serve: Serve) -> None:
    caller = await serve()
    head, body = await create_raw(caller, "length-too-long")
    assert f"Content-Length: {len(body) + 1}".encode() in head
    assert json.loads(body)["id"] == caller.emulator.ledger.task_ids[0]


async def test_a_short_body_is_no_complete_json(serve: Serve) -> None:
    caller = await serve()
    head, body = await create_raw(caller, "short-body")
    assert f"Content-Length: {len(body) * 2}"[:-1].encode() in head
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(body)


async def test_the_head_of_a_request_comes_back_in_place_of_a_response(serve: Serve) -> None:
    caller = await serve()
    head, body = await create_raw(caller, "echoed-head")
    assert head.startswith(f"POST {GENERATION_PATH} HTTP/1.1".encode())
    assert f"Authorization: Bearer {KEY}".encode() in head
    assert body == b""
    entry = caller.emulator.ledger.entries[0]
    assert (entry.outcome, entry.reason, entry.responded) == ("cut", "echoed-head", False)


@pytest.mark.parametrize(
    ("variant", "pieces"),
    [
        ("header", [f"Authorization: Bearer {KEY}"]),
        ("json-escaped", ["\\u0065\\u006d\\u0075"]),
        ("percent-encoded", ["%65%6D%75%6C"]),
        ("url", [f"/v1/keys/{KEY}/check?token={KEY}"]),
        ("page", ["<html>", f"Bearer {KEY}"]),
    ],
)
async def test_an_error_repeats_the_key_in_a_disguise(serve: Serve, variant: str, pieces: list[str]) -> None:
    caller = await serve()
    caller.emulator.faults.script("status", [Fault(kind="echoed-key", variant=variant, status=404)])
    reply = await caller.get_status("x")
    assert reply.status == 404
    for piece in pieces:
        assert piece in reply.body.decode()
    if variant == "json-escaped":
        assert KEY not in reply.body.decode()
        assert KEY in reply.json["error"]["message"]


async def test_an_error_repeats_the_key_across_the_place_of_a_cut(serve: Serve) -> None:
    caller = await serve()
    variants = ("straddling", "straddling-body")
    caller.emulator.faults.script("status", [Fault(kind="echoed-key", variant=variant) for variant in variants])
    message, body = (await caller.get_status("x")).json["error"]["message"], (await caller.get_status("x")).body
    for text in (message, body.decode()):
        assert text.index(KEY) < 500 < text.index(KEY) + len(KEY)


async def test_the_id_of_a_request_is_the_key(serve: Serve) -> None:
    caller = await serve()
    caller.emulator.faults.script("status", [Fault(kind="echoed-key", variant="request-id")])
    assert (await caller.get_status("x")).headers["X-Request-Id"] == f"Bearer {KEY}"


@pytest.mark.parametrize("variant", FAULT_SPECS[FaultKind.ECHOED_KEY].variants)
async def test_every_disguise_of_the_key_works_in_every_shape_and_without_a_key(serve: Serve, variant: str) -> None:
    caller = await serve()
    for shape in ("nested", "message", "detail-list", "status", "html", "empty"):
        caller.emulator.faults.script("create", [Fault(kind="echoed-key", variant=variant, shape=shape)] * 2)
        assert (await caller.create()).status == 400
        reply = await caller.request("POST", GENERATION_PATH, headers={"Authorization": ""}, json=create_body())
        assert reply.status == 401
    assert caller.emulator.ledger.billed == 0


@pytest.mark.parametrize("variant", CONTROL_VARIANTS)
async def test_messages_and_tasks_have_control_characters(serve: Serve, variant: str) -> None:
    caller = await serve()
    task = (await caller.create()).json
    faults = [
        Fault(kind="control-characters", variant=variant),
        Fault(kind="control-characters-in-task", variant=variant),
    ]
    caller.emulator.faults.script("status", faults)
    error, done = (await caller.get_status(task["id"])).json, (await caller.get_status(task["id"])).json
    assert not error["error"]["message"].isprintable()
    assert (done["id"], done["status"]) == (task["id"], "completed")
    assert not done["model"].isprintable()
    assert not done["output"][0]["content"][0]["jobId"].isprintable()


async def test_messages_and_codes_of_errors_can_be_any_text(serve: Serve) -> None:
    caller = await serve()
    fault = Fault(kind="http-status", status=418, code="TEAPOT", message="short and stout")
    caller.emulator.faults.script("status", [fault])
    error = (await caller.get_status("x")).json["error"]
    assert (error["code"], error["message"]) == ("TEAPOT", "short and stout")


async def test_a_low_balance_has_one_of_its_codes_in_the_vendors_envelope(serve: Serve) -> None:
    caller = await serve()
    faults = [
        Fault(kind="balance-too-low", variant="40203"),
        Fault(kind="balance-too-low", variant="40208", status=402, shape="nested"),
    ]
    caller.emulator.faults.script("create", faults)
    first, second = await caller.create(), await caller.create()
    assert first.json == {"status": {"code": 403, "message": "the balance is too low", "error_code": 40203}}
    assert (second.status, second.json["error"]["code"]) == (402, "40208")
    assert caller.emulator.ledger.billed == 0


@pytest.mark.parametrize("status", [401, 403])
async def test_a_proxy_refuses_with_a_page(serve: Serve, status: int) -> None:
    caller = await serve()
    caller.emulator.faults.script("status", [Fault(kind="http-status", status=status, shape="html")])
    reply = await caller.get_status("x")
    assert (reply.status, reply.headers["Content-Type"]) == (status, "text/html")


@pytest.mark.parametrize("variant", FAULT_SPECS[FaultKind.TASK_ENDS_ODDLY].variants)
async def test_a_task_ends_with_another_status_text_and_an_error(serve: Serve, clock: ManualTime, variant: str) -> None:
    caller = await serve(clock=clock, service_time=5)
    caller.emulator.faults.script("create", [Fault(kind="task-ends-oddly", variant=variant, message="too late")])
    task = (await caller.create()).json
    assert task["status"] == "in_progress"
    clock.advance(5)
    ended = (await caller.get_status(task["id"])).json
    assert (ended["status"], ended["error"]["message"]) == (variant, "too late")
    assert caller.emulator.ledger.billed == 0


async def test_texts_and_urls_of_a_task_and_of_a_price_repeat_the_key(serve: Serve) -> None:
    caller = await serve()
    task = (await caller.create()).json
    variants = ("texts", "url-path", "url-query")
    caller.emulator.faults.script("status", [Fault(kind="echoed-key-in-task", variant=name) for name in variants])
    texts, in_path, in_query = [(await caller.get_status(task["id"])).json for _ in variants]
    assert KEY in texts["model"]
    assert KEY in texts["trace"]
    assert KEY not in texts["output"][0]["content"][0]["url"]
    assert f"/keys/{KEY}/" in collect_urls(in_path)[0]
    assert (await caller.request("GET", collect_urls(in_path)[0])).status == 404
    assert collect_urls(in_query)[0].endswith(f"&api_key={KEY}")
    assert (await caller.request("GET", collect_urls(in_query)[0])).status == 200
    caller.emulator.faults.script("precharge", [Fault(kind="echoed-key-in-task", variant="texts")])
    price = await caller.request("POST", f"{GENERATION_PATH}/precharge", json=create_body(prompt="x"))
    assert KEY in price.json["data"]["model"]
    assert price.json["data"]["cost"] == "0.04"


async def test_an_unfinished_task_repeats_the_key_in_its_status(serve: Serve) -> None:
    caller = await serve(service_time=10)
    caller.emulator.faults.script("create", [Fault(kind="echoed-key-in-task", variant="texts")])
    assert (await caller.create()).json["status"] == f"waiting Bearer {KEY}"


@pytest.mark.parametrize("variant", FAULT_SPECS[FaultKind.NONSENSE_COST].variants)
async def test_costs_make_no_sense(serve: Serve, variant: str) -> None:
    caller = await serve()
    fault = Fault(kind="nonsense-cost", variant=variant)
    caller.emulator.faults.script("create", [fault])
    caller.emulator.faults.script("precharge", [fault])
    usage = (await caller.create()).json["usage"]
    price = (await caller.request("POST", f"{GENERATION_PATH}/precharge", json=create_body(prompt="x"))).json["data"]
    assert usage["cost"] == price["cost"] != "0.04"
    assert (price["currency"] == "credit") == (variant == "credit") == (usage.get("currency") == "credit")


async def test_a_response_has_100_000_urls(serve: Serve) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", ["many-urls"])
    urls = collect_urls((await caller.create()).json)
    assert len(set(urls)) == 100_000
    assert (await caller.request("GET", urls[2])).status == 200


@pytest.mark.parametrize("variant", FAULT_SPECS[FaultKind.ODD_URL].variants)
async def test_result_urls_are_odd(serve: Serve, variant: str) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [Fault(kind="odd-url", variant=variant)])
    url = collect_urls((await caller.create()).json)[0]
    assert not url.startswith(f"{caller.emulator.files_url}/results/") or variant in {"blank", "line-break"}
    assert "{" not in url


async def test_a_result_url_is_the_location_of_the_fault(serve: Serve) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [Fault(kind="odd-url", location="http://b.example/x.png")])
    assert collect_urls((await caller.create()).json) == ["http://b.example/x.png"]


async def test_an_opaque_url_is_accepted_as_it_came_only(serve: Serve) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", ["opaque-url"])
    url = collect_urls((await caller.create()).json)[0]
    path, query = url.removeprefix(caller.emulator.files_url).split("?")
    assert path.startswith("/opaque/a%2Fb%7E/")
    assert query.endswith("&sig=a%2Fb%2Bc%3D&x=%7E")
    statuses = {}
    port = int(caller.emulator.files_url.rpartition(":")[2])
    for target in (
        f"{path}?{query}",
        f"{path}?{query}".replace("%2Fb%2B", "/b%2B"),
        f"{path}?{query}".replace("x=%7E", "x=~"),
        f"{path}?{query}".replace("b%7E", "b~"),
        f"{path}?{query}".replace("%2Fb%7E", "%2fb%7E"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        statuses[target] = int((await reader.read())[9:12])
        writer.close()
    assert list(statuses.values()) == [200, 403, 403, 403, 403]


async def test_equal_requests_get_one_id_from_a_cache_and_are_billed_once(serve: Serve) -> None:
    caller = await serve()
    caller.emulator.faults.set_rate(Fault(kind="repeated-id", variant="cached"), 1.0)
    ids = [(await caller.create(prompt, seed=1)).json["id"] for prompt in ("fox", "fox", "owl", "fox")]
    assert ids == [ids[0], ids[0], ids[2], ids[0]]
    assert ids[0] != ids[2]
    ledger = caller.emulator.ledger
    assert (ledger.accepted, ledger.billed) == (4, 2)
    assert [entry.reason for entry in ledger.entries] == ["accepted", "repeated-id", "accepted", "repeated-id"]


async def test_different_requests_get_the_id_of_the_latest_task_and_are_billed(serve: Serve) -> None:
    caller = await serve(balance="1")
    caller.emulator.faults.set_rate(Fault(kind="repeated-id", variant="latest"), 1.0)
    ids = [(await caller.create(prompt)).json["id"] for prompt in ("fox", "owl", "hare")]
    assert len(set(ids)) == 1
    assert caller.emulator.ledger.billed == 3
    assert (await caller.request("GET", "/api/v1/user/balance")).json["data"]["balance"] == "0.88"


async def test_wrongly_framed_responses_are_errors_for_an_ordinary_client(serve: Serve) -> None:
    caller = await serve()
    for kind in ("missing-last-chunk", "length-too-long", "echoed-head"):
        caller.emulator.faults.script("create", [kind])
        with pytest.raises(aiohttp.ClientError):
            await caller.create()

import asyncio
import io
import json
import re
import time
from decimal import Decimal
from typing import Any

import aiohttp
import anyio
import pytest
from blockbuster import blockbuster_ctx
from PIL import Image

from kontext_async.emulator import Emulator, ErrorShape, Fault, Faults, RequestRecord, ServiceTime
from kontext_async.emulator.gallery import Gallery
from kontext_async.emulator.intake import is_loopback
from kontext_async.emulator.painter import Brief

pytestmark = pytest.mark.anyio
PATH = "/model/v1/generation"
BODY = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": "x"}}]}
QUEUE = "/model/v1/queue/flux_kontext_pro"


# The plain dialect.


async def test_a_task_from_create_to_picture(serve: Any, clock: Any) -> None:
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
    clock.turn(5)
    assert (await caller.status(task["id"])).json["progress"] == 0.5
    clock.turn(5)
    done = (await caller.status(task["id"])).json
    assert done["status"] == "completed"
    assert "progress" not in done
    assert done["usage"] == {"cost": "0.04", "discount": 1.0}
    start = int(clock.now) - 10
    assert done["metadata"] == {"in_queue_at": start, "upload_at": start + 9, "completed_at": start + 10, "seed": 7}
    url = done["output"][0]["content"][0]["url"]
    assert url.startswith(caller.emulator.files_url)
    picture = await caller.ask("GET", url)
    assert picture.headers["Content-Type"] == "image/png"
    width, height = Image.open(io.BytesIO(picture.body)).size
    assert width / height == pytest.approx(16 / 9, rel=0.05)
    assert caller.emulator.ledger.spent == Decimal("0.04")


async def test_instant_answers_and_equal_pictures(serve: Any) -> None:
    caller = await serve()
    first, second, third = [(await caller.ask("GET", await caller.finished_url(seed=seed))).body for seed in (1, 1, 2)]
    assert first == second != third
    assert list(caller.emulator.ledger.billed_twice.values()) == [2]


async def test_two_emulators_with_one_seed_do_the_same(serve: Any, clock: Any) -> None:
    answers = []
    for _ in range(2):
        caller = await serve(clock=clock, service_time=ServiceTime.lognormal(3, 1), seed=5, progress_noise=0.1)
        first = (await caller.create()).json
        clock.turn(1)
        answers.append((first, (await caller.status(first["id"])).json))
        clock.turn(-1)
    assert answers[0] == answers[1]


async def test_progress_can_be_left_out(serve: Any) -> None:
    caller = await serve(service_time=10, progress_noise=None)
    assert "progress" not in (await caller.create()).json


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Key emulator-key"])
async def test_without_the_key_nothing_goes(serve: Any, header: str, helpers: Any) -> None:
    caller = await serve()
    headers = {"Authorization": header}
    for method, path in (("POST", PATH), ("GET", f"{PATH}/task/x"), ("POST", f"{PATH}/precharge")):
        reply = await caller.ask(method, path, headers=headers, json=helpers.body(prompt="x"))
        assert reply.status == 401
        assert set(reply.json["error"]) == {"code", "message", "error_message"}
        assert reply.json["request_id"] == reply.headers["X-Request-Id"]
    assert [entry.reason for entry in caller.emulator.ledger.entries] == ["UNAUTHORIZED"]


async def test_every_key_has_its_own_account(serve: Any) -> None:
    caller = await serve(api_key=None, balance="0.04", service_time=10)
    mine, yours = {"Authorization": "Bearer mine"}, {"Authorization": "Bearer yours"}
    request = {"json": {"model": "flux_kontext_pro", "input": [{"params": {"prompt": "x"}}]}}
    task_id = (await caller.ask("POST", PATH, headers=mine, **request)).json["id"]
    assert (await caller.ask("GET", f"{PATH}/task/{task_id}", headers=mine)).status == 200
    assert (await caller.ask("GET", f"{PATH}/task/{task_id}", headers=yours)).status == 404
    assert (await caller.ask("POST", PATH, headers=mine, **request)).status == 403
    assert (await caller.ask("POST", PATH, headers=yours, **request)).status == 200


async def test_refusals_name_the_field_and_cost_nothing(serve: Any) -> None:
    caller = await serve()
    reply = await caller.create(seed="one")
    assert reply.status == 422
    assert "input[0].params.seed" in reply.json["error"]["message"]
    assert (await caller.ask("POST", PATH, data=b"{")).status == 400
    assert caller.emulator.ledger.refused == 2
    assert caller.emulator.ledger.billed == 0


async def test_limits(serve: Any, clock: Any) -> None:
    caller = await serve(clock=clock, service_time=10, max_tasks=1, requests_per_second=4)
    assert (await caller.create()).status == 200
    full = await caller.create()
    assert (full.status, full.json["error"]["code"]) == (429, "TASK_LIMIT_EXCEEDED")
    statuses = [(await caller.status("x")).status for _ in range(3)]
    assert statuses == [404, 404, 429]
    limited = await caller.create()
    assert limited.headers["Retry-After"] == "1"
    clock.turn(10)
    assert (await caller.create()).status == 200


async def test_error_shapes_take_turns(serve: Any) -> None:
    caller = await serve(error_shapes=ErrorShape)
    bodies = [(await caller.status("x")).body for _ in range(7)]
    assert [json.loads(body) if body[:1] == b"{" else body[:6] for body in bodies[1:6]] == [
        {"message": "no such task"},
        {"error": "no such task"},
        {"detail": "no such task"},
        b"<html>",
        b"",
    ]
    assert b"request_id" in bodies[0]
    assert b"request_id" in bodies[6]


async def test_unknown_paths_and_methods(serve: Any) -> None:
    caller = await serve()
    missing, wrong = await caller.ask("GET", "/nowhere"), await caller.ask("DELETE", PATH)
    assert (missing.status, missing.json["error"]["code"]) == (404, "NOT_FOUND")
    assert wrong.status == 405


async def test_precharge(serve: Any, helpers: Any) -> None:
    caller = await serve(discount=0.7, faults=Faults())
    price = {"json": helpers.body(prompt="x")}
    good = (await caller.ask("POST", f"{PATH}/precharge", **price)).json
    assert good["data"] == {
        "model": "flux_kontext_pro",
        "cost": "0.028",
        "currency": "USD",
        "discount": 0.7,
        "sample_count": 4,
    }
    caller.emulator.faults.script("precharge", ["cost-unknown", Fault(kind="unavailable")])
    unknown = (await caller.ask("POST", f"{PATH}/precharge", **price)).json
    assert unknown == {"status": "failed", "data": {"cost": None, "reason": "COST_CACHE_MISS"}}
    assert (await caller.ask("POST", f"{PATH}/precharge", **price)).status == 503
    assert (await caller.ask("POST", f"{PATH}/precharge", json={})).status == 400
    assert caller.emulator.ledger.entries == ()


async def test_the_model_may_come_in_a_header(serve: Any) -> None:
    caller = await serve()
    body = {"input": [{"params": {"prompt": "x"}}]}
    reply = await caller.ask("POST", PATH, json=body, headers={"X-Model": "flux_kontext_max"})
    assert reply.json["model"] == "flux_kontext_max"


# Input images.


async def test_input_images_of_every_origin(serve: Any, helpers: Any) -> None:
    caller = await serve(service_time=0)
    own = await caller.finished_url(aspect_ratio="2:1")
    reply = await caller.create(
        input_image=own,
        input_image_2="https://example.com/fox.jpg",
        input_image_3=helpers.picture_text(),
        input_image_4=helpers.picture_text(),
    )
    assert reply.status == 200
    url = reply.json["output"][0]["content"][0]["url"]
    width, height = Image.open(io.BytesIO((await caller.ask("GET", url)).body)).size
    assert width / height == pytest.approx(2, rel=0.05), "the ratio follows the first image"


async def test_loopback_urls_are_fetched(serve: Any, clock: Any) -> None:
    caller, other = await serve(clock=clock), await serve(clock=clock)
    url = await other.finished_url()
    assert (await caller.create(input_image=url)).status == 200
    assert other.emulator.requests[-1].origin == "files"
    assert "Authorization" not in other.emulator.requests[-1].headers
    for wrong in (
        other.emulator.base_url + "/nowhere",
        other.emulator.base_url + "/_emulator/health",
        "http://127.0.0.1:9",
    ):
        reply = await caller.create(input_image=wrong)
        assert reply.status == 422
        assert "input_image" in reply.json["error"]["message"]
    forged = caller.emulator.files_url + "/results/unknown/0.jpeg"
    assert (await caller.create(input_image=forged)).status == 422


async def test_a_loopback_file_that_is_too_large_is_refused(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    caller, other = await serve(), await serve()
    url = await other.finished_url()
    for module in ("intake", "validation"):
        monkeypatch.setattr(f"kontext_async.emulator.{module}.MAX_IMAGE_BYTES", 10)
    assert (await caller.create(input_image=url)).status == 422


async def test_own_pictures_that_are_none(serve: Any) -> None:
    caller = await serve()
    url = await caller.finished_url()
    assert (await caller.create(input_image=url.replace("/0.", "/x."))).status == 422


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1/x", True),
        ("http://127.9.9.9", True),
        ("http://[::1]/x", True),
        ("http://example.com", False),
        ("http://10.0.0.1/x", False),
    ],
)
def test_what_is_loopback(url: str, expected: bool) -> None:  # noqa: FBT001
    assert is_loopback(url) is expected


async def test_wide_and_tall_first_images_are_brought_within_bounds(serve: Any, helpers: Any) -> None:
    caller = await serve(pixels=40_000)
    for size, ratio in (((900, 100), 21 / 9), ((100, 900), 9 / 21)):
        url = await caller.finished_url(input_image=helpers.picture_text(size=size))
        width, height = Image.open(io.BytesIO((await caller.ask("GET", url)).body)).size
        assert width / height == pytest.approx(ratio, rel=0.05)


async def test_bodies_beyond_the_largest_are_refused(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_async.emulator.app.MAX_BODY_BYTES", 1000)
    caller = await serve()
    assert (await caller.create("x" * 2000)).status == 413


# Sync and streams.


def events(body: bytes) -> list[tuple[str, Any]]:
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", body.decode())
    return [(name, json.loads(data)) for name, data in found]


async def test_sync_waits_for_the_end(serve: Any, helpers: Any) -> None:
    caller = await serve(service_time=0.02)
    reply = await caller.ask("POST", f"{PATH}/sync", json=helpers.body(prompt="x"))
    assert (reply.status, reply.json["status"]) == (200, "completed")


async def test_sync_gives_up_with_the_id(serve: Any, helpers: Any) -> None:
    caller = await serve(service_time=10, sync_wait=0.01)
    reply = await caller.ask("POST", f"{PATH}/sync", json=helpers.body(prompt="x"))
    assert (reply.status, reply.json["error"]["code"]) == (504, "SYNC_TIMEOUT")
    assert (await caller.status(reply.json["id"])).status == 200


async def test_sync_streams(serve: Any, helpers: Any) -> None:
    caller = await serve(service_time=0.02)
    caller.emulator.faults.script("stream", [None, "unavailable", "cut-halfway"])
    ask = {"json": helpers.body(prompt="x"), "headers": {"Accept": "text/event-stream"}}
    reply = await caller.ask("POST", f"{PATH}/sync", **ask)
    names = [name for name, _ in events(reply.body)]
    assert names == ["output"] * 4 + ["done"]
    assert (await caller.ask("POST", f"{PATH}/sync", **ask)).status == 503
    with pytest.raises(aiohttp.ClientPayloadError):
        await caller.ask("POST", f"{PATH}/sync", **ask)
    assert caller.emulator.ledger.billed == 3


async def test_a_stream_follows_a_task_and_resumes(serve: Any, clock: Any) -> None:
    caller = await serve(clock=clock, service_time=10, stream_keepalive=1)
    task_id = (await caller.create()).json["id"]
    clock.turn(6)
    path = f"{PATH}/task/{task_id}/stream"
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(caller.ask("GET", f"{path}?cursor=1"))
        for _ in range(2):
            await asyncio.sleep(0.07)
            clock.turn(1.5)
        await asyncio.sleep(0.07)
        clock.turn(1.5)
    body = reading.result().body
    assert body.startswith(b": keepalive\n\n")
    assert body.count(b": keepalive") >= 2
    assert [data.get("cursor") for name, data in events(body)] == [2, 3, 4, None]
    assert events(body)[-1][1]["status"] == "completed"
    assert events(body)[2][1]["output"][0]["content"][0]["url"]
    resumed = events((await caller.ask("GET", f"{path}?cursor=4")).body)
    assert [name for name, _ in resumed] == ["done"]
    assert (await caller.ask("GET", f"{path}?cursor=-1")).status == 400


async def test_a_stream_of_a_failed_task_ends_with_an_error(serve: Any) -> None:
    caller = await serve(service_time=0.01)
    caller.emulator.faults.script("create", [Fault(kind="task-fails", code="9", message="no")])
    task_id = (await caller.create()).json["id"]
    name, data = events((await caller.ask("GET", f"{PATH}/task/{task_id}/stream")).body)[-1]
    assert (name, data["error"]["code"]) == ("error", "9")


async def test_a_finished_tasks_stream_can_be_cut_before_its_end(serve: Any) -> None:
    caller = await serve()
    task_id = (await caller.create()).json["id"]
    caller.emulator.faults.script("stream", ["cut-halfway"])
    with pytest.raises(aiohttp.ClientPayloadError):
        await caller.ask("GET", f"{PATH}/task/{task_id}/stream?cursor=9")


# The queue dialect.


async def test_the_queue_dialect(serve: Any, clock: Any) -> None:
    caller = await serve(clock=clock, service_time=10)
    key = {"Authorization": f"Key {caller.emulator.api_key}"}
    created = (await caller.ask("POST", QUEUE, json={"prompt": "x"}, headers=key)).json
    assert created["queue_position"] == 0
    assert created["status_url"].startswith(caller.emulator.base_url)
    status, response, cancel = (
        created[name].removeprefix(caller.emulator.base_url) for name in ("status_url", "response_url", "cancel_url")
    )
    seen = []
    for turn in (0, 5, 10):
        clock.turn(turn)
        seen.append((await caller.ask("GET", status, headers=key)).json["status"])
        if turn < 10:
            assert (await caller.ask("GET", response, headers=key)).status == 202
    assert seen == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    result = await caller.ask("GET", response)
    assert result.status == 200
    assert result.json["outputs"][0]["width"] == 64
    assert (await caller.ask("GET", result.json["outputs"][0]["url"])).status == 200
    assert (await caller.ask("PUT", cancel)).status == 400


async def test_a_cancelled_task_fails_and_stays_billed(serve: Any) -> None:
    caller = await serve(service_time=100)
    created = (await caller.ask("POST", QUEUE, json={"prompt": "x"})).json
    path = f"{QUEUE}/requests/{created['request_id']}"
    assert (await caller.ask("PUT", f"{path}/cancel")).status == 202
    status = (await caller.ask("GET", f"{path}/status")).json
    assert (status["status"], status["error"]["code"]) == ("COMPLETED", "CANCELLED")
    assert (await caller.ask("GET", f"{path}/response")).json["error"]["code"] == "CANCELLED"
    assert caller.emulator.ledger.billed == 1


# Faults.


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        (Fault(kind="cut-before-body", variant="reset"), 0),
        (Fault(kind="cut-before-body", variant="close"), 0),
        (Fault(kind="cut", variant="reset"), 0),
        (Fault(kind="cut", variant="close"), 0),
        (Fault(kind="cut", variant="close", accepted=True), 1),
        (Fault(kind="cut-after-accept", variant="reset"), 1),
        (Fault(kind="cut-after-accept", variant="close"), 1),
        (Fault(kind="short-body"), 1),
    ],
)
async def test_creates_whose_connection_goes(serve: Any, fault: Fault, accepted: int) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [fault])
    with pytest.raises(aiohttp.ClientError):
        await caller.create()
    ledger = caller.emulator.ledger
    assert (ledger.accepted, ledger.billed, ledger.cut) == (accepted, accepted, 1 - accepted)
    assert not ledger.entries[0].answered
    assert (await caller.create()).status == 200


@pytest.mark.parametrize(
    ("fault", "status", "accepted"),
    [
        (Fault(kind="rate-limited"), 429, 0),
        (Fault(kind="http-status", status=418), 418, 0),
        (Fault(kind="http-status", status=500, accepted=True), 500, 1),
        (Fault(kind="http-status-after-accept", status=502), 502, 1),
        (Fault(kind="unavailable"), 503, 0),
        (Fault(kind="bad-gateway"), 502, 0),
        (Fault(kind="gateway-timeout"), 504, 1),
        (Fault(kind="unauthorized"), 401, 0),
        (Fault(kind="forbidden"), 403, 0),
        (Fault(kind="html-page"), 200, 0),
        (Fault(kind="html-page", text="hello", accepted=True), 200, 1),
        (Fault(kind="redirect", variant="origin"), 307, 0),
        (Fault(kind="truncated-json"), 200, 1),
        (Fault(kind="truncated-json", accepted=False), 200, 0),
        (Fault(kind="malformed-json", variant="nan"), 200, 1),
        (Fault(kind="wrong-types", variant="no-id"), 200, 1),
        (Fault(kind="empty-body"), 200, 1),
        (Fault(kind="slow", seconds=0.01), 200, 1),
        (Fault(kind="slow-after-accept", seconds=0.01), 200, 1),
    ],
)
async def test_creates_with_odd_answers(serve: Any, fault: Fault, status: int, accepted: int) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [fault])
    assert (await caller.create()).status == status
    entry = caller.emulator.ledger.entries[0]
    assert caller.emulator.ledger.billed == accepted
    assert entry.status == status
    assert entry.prompt == "a red fox"
    assert entry.outcome == ("accepted" if accepted else "refused")


async def test_retry_after_in_all_its_forms(serve: Any, clock: Any) -> None:
    caller = await serve(clock=clock)
    forms: list[dict[str, Any]] = [
        {},
        {"retry_after": 7},
        {"retry_after": 60, "retry_after_date": True},
        {"retry_after": "next week"},
        {"retry_after": ""},
    ]
    caller.emulator.faults.script("status", [Fault(kind="rate-limited", **form) for form in forms])
    seen = [(await caller.status("x")).headers.get("Retry-After") for _ in forms]
    assert seen == ["1", "7", "Fri, 09 Jan 2026 13:34:30 GMT", "next week", None]


async def test_error_bodies_can_be_chosen(serve: Any) -> None:
    caller = await serve()
    faults = [
        Fault(kind="http-status", shape="detail"),
        Fault(kind="http-status", text="oops"),
        Fault(kind="bad-gateway"),
    ]
    caller.emulator.faults.script("status", faults)
    bodies = [(await caller.status("x")).body for _ in faults]
    assert bodies[:2] == [b'{"detail":"internal server error"}', b"oops"]
    assert b"nginx" in bodies[2]


async def test_what_may_become_of_a_task(serve: Any, clock: Any) -> None:
    caller = await serve(clock=clock, service_time=10)
    fates = [
        Fault(kind="task-fails", code="7", message="no"),
        Fault(kind="task-hangs"),
        Fault(kind="task-vanishes", seconds=4),
        Fault(kind="task-late", seconds=4),
        Fault(kind="completed-at-once"),
        Fault(kind="failed-at-once"),
    ]
    caller.emulator.faults.script("create", fates)
    created = [(await caller.create(seed=number)).json for number in range(6)]
    assert [task["status"] for task in created] == ["in_progress"] * 4 + ["completed", "failed"]
    statuses = [[(await caller.status(task["id"])).status for task in created]]
    clock.turn(5)
    statuses.append([(await caller.status(task["id"])).status for task in created])
    assert statuses == [[200, 200, 200, 404, 200, 200], [200, 200, 404, 200, 200, 200]]
    clock.turn(1000)
    failed, hung = [(await caller.status(task["id"])).json for task in created[:2]]
    assert failed["error"] == {"code": "7", "message": "no", "error_message": "no"}
    assert hung["status"] == "in_progress"
    assert caller.emulator.ledger.billed == 4, "tasks that fail are not billed"


async def test_odd_answers_to_status_requests(serve: Any) -> None:
    caller = await serve()
    task_id = (await caller.create()).json["id"]
    caller.emulator.faults.script(
        "status", [Fault(kind="odd-status", variant="done"), "milliseconds", "several-urls", None]
    )
    odd = [(await caller.status(task_id)).json for _ in range(4)]
    assert odd[0]["status"] == "done"
    assert odd[1]["created_at"] > 10**12
    urls = [item["url"] for group in odd[2]["output"] for item in group["content"] if "url" in item]
    assert len({(await caller.ask("GET", url)).body for url in urls}) == 3
    assert odd[3]["status"] == "completed"


async def test_redirects_do_not_reveal_what_follows_them(serve: Any) -> None:
    caller = await serve()
    emulator = caller.emulator
    url = await caller.finished_url()
    emulator.faults.script(
        "status", [Fault(kind="redirect", variant="origin", status=302), Fault(kind="redirect", location="http://x/y")]
    )
    locations = [(await caller.status("x")).headers["Location"] for _ in range(2)]
    assert locations == [f"{emulator.mirror_url}/moved/model/v1/generation/task/x", "http://x/y"]
    emulator.faults.script("download", [Fault(kind="redirect", variant=variant) for variant in ("origin", "path")])
    for origin in (emulator.mirror_url, emulator.files_url):
        location = (await caller.ask("GET", url)).headers["Location"]
        location = location if location.startswith("http") else origin + location
        assert location.startswith(f"{origin}/moved/")
        assert (await caller.ask("GET", location)).status == 200


async def test_stalls_end_when_the_client_goes(serve: Any) -> None:
    caller = await serve()
    task_id = (await caller.create()).json["id"]
    caller.emulator.faults.script("status", ["stall"])
    caller.emulator.faults.script("create", ["stall", "stall-after-accept"])
    with pytest.raises(TimeoutError):
        await caller.ask("GET", f"{PATH}/task/{task_id}", timeout=aiohttp.ClientTimeout(total=0.05))
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await caller.ask("POST", PATH, json=BODY, timeout=aiohttp.ClientTimeout(total=0.05))
    assert [entry.reason for entry in caller.emulator.ledger.entries[1:]] == ["stall", "accepted"]
    await asyncio.sleep(0.12)
    assert not [entry for entry in caller.emulator.ledger.entries[1:] if entry.answered]


async def test_a_slow_answer_that_nobody_waits_for_is_still_accepted(serve: Any) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [Fault(kind="slow", seconds=0.1)])
    with pytest.raises(TimeoutError):
        await caller.ask("POST", PATH, json=BODY, timeout=aiohttp.ClientTimeout(total=0.03))
    await asyncio.sleep(0.15)
    entry = caller.emulator.ledger.entries[0]
    assert (entry.outcome, entry.answered) == ("accepted", False)


async def test_half_a_body_is_no_request(serve: Any) -> None:
    caller = await serve()
    port = int(caller.emulator.base_url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer emulator-key\r\nContent-Length: 500\r\n\r\n"
    writer.write(head.encode() + b'{"model"')
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    await writer.wait_closed()
    with anyio.fail_after(2):
        while not caller.emulator.ledger.cut:
            await asyncio.sleep(0.005)
    assert caller.emulator.ledger.entries[0].reason == "body-lost"


# Downloads.


async def test_ranges(serve: Any) -> None:
    caller = await serve()
    url = await caller.finished_url()
    whole = await caller.ask("GET", url)
    etag = whole.headers["ETag"]
    part = await caller.ask("GET", url, headers={"Range": "bytes=100-199", "If-Range": etag})
    assert part.status == 206
    assert part.body == whole.body[100:200]
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole.body)}"
    assert (await caller.ask("GET", url, headers={"Range": "bytes=100-", "If-Range": '"old"'})).status == 200
    assert (await caller.ask("GET", url, headers={"Range": "bytes=9999999-"})).status == 416
    head = await caller.ask("HEAD", url)
    assert head.body == b""
    assert int(head.headers["Content-Length"]) == len(whole.body)
    caller.emulator.faults.script("download", ["no-ranges"])
    ignored = await caller.ask("GET", url, headers={"Range": "bytes=100-199"})
    assert (ignored.status, len(ignored.body)) == (200, len(whole.body))
    assert "Accept-Ranges" not in ignored.headers


async def test_urls_expire_and_fresh_ones_do_not(serve: Any, clock: Any) -> None:
    caller = await serve(clock=clock, url_lifetime=60, expired_status=410)
    created = (await caller.create()).json
    url = created["output"][0]["content"][0]["url"]
    clock.turn(60)
    assert (await caller.ask("GET", url)).status == 410
    fresh = (await caller.status(created["id"])).json["output"][0]["content"][0]["url"]
    assert (await caller.ask("GET", fresh)).status == 200
    assert (await caller.ask("GET", fresh.replace(created["id"], "x"))).status == 403
    for name in ("x.jpeg", "0.gif"):
        assert (await caller.ask("GET", fresh.replace("0.jpeg", name))).status == 404


async def test_an_unfinished_task_has_no_picture(serve: Any, clock: Any) -> None:
    caller = await serve(clock=clock)
    url = await caller.finished_url()
    clock.turn(-1)
    assert (await caller.ask("GET", url)).status == 404


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault(kind="url-expired"), 403),
        (Fault(kind="url-expired", status=410), 410),
        (Fault(kind="not-found"), 404),
        (Fault(kind="rate-limited"), 429),
        (Fault(kind="cut-halfway"), None),
        (Fault(kind="cut-halfway", ranges=False), None),
        (Fault(kind="short-body"), None),
        (Fault(kind="cut", variant="close"), None),
        (Fault(kind="truncated-file"), "half"),
        (Fault(kind="empty-file"), b""),
        (Fault(kind="html-page"), "html"),
        (Fault(kind="trickle", seconds=0.02), "whole"),
        (Fault(kind="slow", seconds=0.01), "whole"),
    ],
)
async def test_downloads_that_go_wrong(serve: Any, fault: Fault, outcome: Any) -> None:
    caller = await serve()
    url = await caller.finished_url()
    whole = (await caller.ask("GET", url)).body
    caller.emulator.faults.script("download", [fault] * 2)  # aiohttp asks again on a connection it had used
    if outcome is None:
        with pytest.raises(aiohttp.ClientError):
            await caller.ask("GET", url)
        return
    reply = await caller.ask("GET", url)
    if isinstance(outcome, int):
        assert reply.status == outcome
    elif outcome == "html":
        assert (reply.status, reply.headers["Content-Type"][:9]) == (200, "text/html")
    else:
        expected = {"half": whole[: len(whole) // 2], "whole": whole}.get(outcome, b"")
        assert (reply.status, reply.body) == (200, expected)


async def test_a_download_can_stop_in_its_middle(serve: Any) -> None:
    caller = await serve()
    url = await caller.finished_url()
    caller.emulator.faults.script("download", ["stall-halfway"])
    with pytest.raises(TimeoutError):
        await caller.ask("GET", url, timeout=aiohttp.ClientTimeout(total=0.05))


async def test_a_gallery_keeps_no_more_than_it_may() -> None:
    gallery = Gallery(max_bytes=6000)
    briefs = [Brief(prompt="x", seed=seed, width=80, height=80) for seed in range(6)]
    async with asyncio.TaskGroup() as group:
        same = [group.create_task(gallery.picture(briefs[0])) for _ in range(3)]
    assert len({task.result() for task in same}) == 1
    assert "kept=1" in repr(gallery)
    for brief in briefs:
        await gallery.picture(brief)
    assert gallery._bytes == sum(len(data) for data in gallery._kept.values()) <= 6000
    assert briefs[-1] in gallery._kept
    work = gallery.run(lambda: time.sleep(0.01))
    await asyncio.sleep(0.005)
    gallery.close()
    await work
    gallery.close()


async def test_a_picture_that_cannot_be_painted_is_not_kept() -> None:
    gallery = Gallery()
    with pytest.raises(ValueError):  # noqa: PT011 - Pillow's words
        await gallery.picture(Brief(prompt="x", seed=0, width=-1, height=8))
    assert "kept=0" in repr(gallery)
    gallery.close()


# The emulator itself.


async def test_the_log_of_requests(serve: Any) -> None:
    caller = await serve()
    url = await caller.finished_url()
    await caller.ask("GET", url)
    create, download = caller.emulator.requests
    assert isinstance(create, RequestRecord)
    assert (create.method, create.path, create.origin) == ("POST", PATH, "api")
    assert create.headers["authorization"] == "Bearer emulator-key"
    assert "emulator-key" not in repr(create)
    assert (download.origin, "Authorization" in download.headers, "?" in download.path) == ("files", False, False)


async def test_the_ledger_over_http(serve: Any) -> None:
    caller = await serve()
    await caller.create()
    whole = (await caller.ask("GET", "/_emulator/ledger", headers={"Authorization": ""})).json
    assert (whole["billed"], whole["spent"], len(whole["entries"])) == (1, "0.04", 1)
    assert "entries" not in (await caller.ask("GET", "/_emulator/ledger?entries=0")).json
    assert (await caller.ask("GET", "/_emulator/health")).json == {"status": "ok"}


async def test_it_closes_fast_and_leaves_nothing_behind(helpers: Any) -> None:
    before = asyncio.all_tasks()
    emulator = Emulator(service_time=100, faults=Faults({"stall": 1.0}))
    async with aiohttp.ClientSession() as http, emulator:
        emulator.faults.clear()
        emulator.faults.script("create", [None])
        headers = {"Authorization": "Bearer emulator-key"}
        url = emulator.base_url + PATH
        async with http.post(url, json=helpers.body(prompt="x"), headers=headers) as reply:
            task_id = (await reply.json())["id"]
        emulator.faults.rates = {"stall": 1.0}
        stalled = [asyncio.ensure_future(http.get(f"{url}/task/{task_id}", headers=headers)) for _ in range(20)]
        await asyncio.sleep(0.1)
        emulator.faults.clear()
        stalled += [asyncio.ensure_future(http.get(f"{url}/task/{task_id}/stream", headers=headers))]
        await asyncio.sleep(0.05)
        start = time.perf_counter()
        await emulator.aclose()
        assert time.perf_counter() - start < 0.5
        results = await asyncio.gather(*stalled, return_exceptions=True)
        assert all(isinstance(result, aiohttp.ClientError) for result in results[:-1])
        results[-1].close()  # type: ignore[union-attr]
        assert not emulator.is_running
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_it_closes_fast_with_a_half_sent_body(serve: Any) -> None:
    caller = await serve()
    port = int(caller.emulator.base_url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer emulator-key\r\nContent-Length: 500\r\n\r\n"
    writer.write(head.encode())
    await asyncio.sleep(0.02)
    start = time.perf_counter()
    await caller.emulator.aclose()
    assert time.perf_counter() - start < 0.8
    writer.close()


async def test_it_goes_on_after_a_restart(serve: Any) -> None:
    caller = await serve(service_time=100)
    url, files = caller.emulator.base_url, caller.emulator.files_url
    task_id = (await caller.create()).json["id"]
    with pytest.raises(RuntimeError, match="running"):
        await caller.emulator.start()
    await caller.emulator.aclose()
    await caller.emulator.start()
    assert (caller.emulator.base_url, caller.emulator.files_url) == (url, files)
    assert (await caller.status(task_id)).status == 200


async def test_a_taken_port_is_an_error_and_nothing_stays_open(serve: Any) -> None:
    caller = await serve()
    second = Emulator(port=int(caller.emulator.base_url.rpartition(":")[2]))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    assert not second.is_running


async def test_nothing_blocks_the_loop(serve: Any, helpers: Any) -> None:
    caller = await serve(pixels=200 * 200)
    with blockbuster_ctx():
        url = await caller.finished_url(input_image=helpers.picture_text())
        assert (await caller.ask("GET", url)).status == 200


def test_before_the_start_there_is_no_address() -> None:
    emulator = Emulator(host="::1")
    for name in ("base_url", "files_url", "mirror_url"):
        with pytest.raises(RuntimeError, match="not been started"):
            getattr(emulator, name)
    emulator._ports = [1, 2, 3]
    assert emulator.base_url == "http://[::1]:1"
    assert "emulator-key" not in repr(emulator)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", 1),
        ("port", 70_000),
        ("port", -1),
        ("port", True),
        ("api_key", 5),
        ("service_time", -1),
        ("service_time", "soon"),
        ("max_tasks", -1),
        ("max_tasks", 1.5),
        ("requests_per_second", 0),
        ("balance", "much"),
        ("balance", -1),
        ("price", "NaN"),
        ("discount", 1.1),
        ("discount", 0),
        ("bill_failed", 1),
        ("faults", {}),
        ("seed", "x"),
        ("url_lifetime", 0),
        ("expired_status", 500),
        ("pixels", 4),
        ("progress_noise", -1),
        ("progress_noise", "much"),
        ("error_shapes", "round"),
        ("error_shapes", []),
        ("sync_wait", -1),
        ("stream_keepalive", 0),
        ("keepalive_timeout", float("nan")),
    ],
)
def test_bad_arguments_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"seconds|" + name):
        Emulator(**{name: value})  # type: ignore[arg-type]

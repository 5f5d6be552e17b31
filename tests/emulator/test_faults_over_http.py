from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from emulator_support import GENERATION_PATH, begin_create, create_body
from session_support import until

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from emulator_support import Caller, ManualTime, Serve

pytestmark = pytest.mark.anyio


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
async def test_lost_connections_of_create_requests_are_recorded(serve: Serve, fault: Fault, accepted: int) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [fault])
    with pytest.raises(aiohttp.ClientError):
        await caller.create()
    ledger = caller.emulator.ledger
    assert (ledger.accepted, ledger.billed, ledger.cut) == (accepted, accepted, 1 - accepted)
    assert not ledger.entries[0].responded
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
async def test_faulty_responses_to_create_requests_are_recorded(
    serve: Serve, fault: Fault, status: int, accepted: int
) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [fault])
    assert (await caller.create()).status == status
    entry = caller.emulator.ledger.entries[0]
    assert caller.emulator.ledger.billed == accepted
    assert entry.status == status
    assert entry.prompt == "a red fox"
    assert entry.outcome == ("accepted" if accepted else "refused")


async def test_retry_after_is_sent_in_every_form(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock)
    forms: list[dict[str, Any]] = [
        {},
        {"retry_after": 7},
        {"retry_after": 60, "retry_after_date": True},
        {"retry_after": "next week"},
        {"retry_after": ""},
    ]
    caller.emulator.faults.script("status", [Fault(kind="rate-limited", **form) for form in forms])
    seen = [(await caller.get_status("x")).headers.get("Retry-After") for _ in forms]
    assert seen == ["1", "7", "Fri, 09 Jan 2026 13:34:30 GMT", "next week", None]


async def test_faults_choose_the_error_body(serve: Serve) -> None:
    caller = await serve()
    faults = [
        Fault(kind="http-status", shape="detail"),
        Fault(kind="http-status", text="oops"),
        Fault(kind="bad-gateway"),
    ]
    caller.emulator.faults.script("status", faults)
    bodies = [(await caller.get_status("x")).body for _ in faults]
    assert bodies[:2] == [b'{"detail":"internal server error"}', b"oops"]
    assert b"nginx" in bodies[2]


async def test_faults_decide_the_outcome_of_a_task(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10)
    faults = [
        Fault(kind="task-fails", code="7", message="no"),
        Fault(kind="task-hangs"),
        Fault(kind="task-vanishes", seconds=4),
        Fault(kind="task-late", seconds=4),
        Fault(kind="completed-at-once"),
        Fault(kind="failed-at-once"),
    ]
    caller.emulator.faults.script("create", faults)
    created = [(await caller.create(seed=number)).json for number in range(6)]
    assert [task["status"] for task in created] == ["in_progress"] * 4 + ["completed", "failed"]
    statuses = [[(await caller.get_status(task["id"])).status for task in created]]
    clock.advance(5)
    statuses.append([(await caller.get_status(task["id"])).status for task in created])
    assert statuses == [[200, 200, 200, 404, 200, 200], [200, 200, 404, 200, 200, 200]]
    clock.advance(1000)
    failed, hung = [(await caller.get_status(task["id"])).json for task in created[:2]]
    assert failed["error"] == {"code": "7", "message": "no", "error_message": "no"}
    assert hung["status"] == "in_progress"
    assert caller.emulator.ledger.billed == 4, "tasks that fail are not billed"


async def test_odd_responses_to_status_requests_stay_true(serve: Serve) -> None:
    caller = await serve()
    task_id = (await caller.create()).json["id"]
    caller.emulator.faults.script(
        "status", [Fault(kind="odd-status", variant="done"), "milliseconds", "several-urls", None]
    )
    odd = [(await caller.get_status(task_id)).json for _ in range(4)]
    assert odd[0]["status"] == "done"
    assert odd[1]["created_at"] > 10**12
    urls = [item["url"] for group in odd[2]["output"] for item in group["content"] if "url" in item]
    assert len({(await caller.request("GET", url)).body for url in urls}) == 3
    assert odd[3]["status"] == "completed"


async def test_redirects_lead_to_the_mirror_to_another_path_or_to_a_location(serve: Serve) -> None:
    caller = await serve()
    emulator = caller.emulator
    url = await caller.create_image_url()
    emulator.faults.script(
        "status", [Fault(kind="redirect", variant="origin", status=302), Fault(kind="redirect", location="http://x/y")]
    )
    locations = [(await caller.get_status("x")).headers["Location"] for _ in range(2)]
    assert locations == [f"{emulator.mirror_url}/moved/model/v1/generation/task/x", "http://x/y"]
    emulator.faults.script("download", [Fault(kind="redirect", variant=variant) for variant in ("origin", "path")])
    for origin in (emulator.mirror_url, emulator.files_url):
        location = (await caller.request("GET", url)).headers["Location"]
        location = location if location.startswith("http") else origin + location
        assert location.startswith(f"{origin}/moved/")
        assert (await caller.request("GET", location)).status == 200


async def leave_create(caller: Caller) -> None:
    """Send a create request, and disconnect once the ledger has it."""
    before = len(caller.emulator.ledger.entries)
    sending = asyncio.create_task(caller.create())
    await until(lambda: len(caller.emulator.ledger.entries) > before)
    sending.cancel()
    await asyncio.wait([sending])
    assert sending.cancelled()


async def test_stalls_end_when_the_client_disconnects(serve: Serve) -> None:
    caller = await serve()
    task_id = (await caller.create()).json["id"]
    caller.emulator.faults.script("status", ["stall"])
    caller.emulator.faults.script("create", ["stall", "stall-after-accept"])
    with pytest.raises(TimeoutError):
        await caller.request("GET", f"{GENERATION_PATH}/task/{task_id}", timeout=aiohttp.ClientTimeout(total=0.05))
    for _ in range(2):
        await leave_create(caller)
    assert [entry.reason for entry in caller.emulator.ledger.entries[1:]] == ["stall", "accepted"]
    await asyncio.sleep(0.12)
    assert not [entry for entry in caller.emulator.ledger.entries[1:] if entry.responded]


async def test_a_slow_create_request_is_accepted_after_the_client_disconnects(serve: Serve) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [Fault(kind="slow", seconds=1.0)])
    with pytest.raises(TimeoutError):
        await caller.request(
            "POST", GENERATION_PATH, json=create_body(prompt="x"), timeout=aiohttp.ClientTimeout(total=0.5)
        )
    await until(lambda: caller.emulator.ledger.entries)
    entry = caller.emulator.ledger.entries[0]
    assert (entry.outcome, entry.responded) == ("accepted", False)


async def test_a_create_request_with_half_a_body_is_recorded_as_cut(serve: Serve) -> None:
    caller = await serve()
    writer = await begin_create(caller)
    writer.write(b'{"model"')
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    await writer.wait_closed()
    with anyio.fail_after(2):
        while not caller.emulator.ledger.cut:
            await asyncio.sleep(0.005)
    assert caller.emulator.ledger.entries[0].reason == "body-lost"

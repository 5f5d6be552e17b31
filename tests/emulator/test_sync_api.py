from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from emulator_support import GENERATION_PATH, create_body

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from emulator_support import ManualTime, Serve

pytestmark = pytest.mark.anyio


def parse_events(body: bytes) -> list[tuple[str, Any]]:
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", body.decode())
    return [(name, json.loads(data)) for name, data in found]


async def test_sync_waits_for_the_end_of_the_task(serve: Serve) -> None:
    caller = await serve(service_time=0.02)
    reply = await caller.request("POST", f"{GENERATION_PATH}/sync", json=create_body(prompt="x"))
    assert (reply.status, reply.json["status"]) == (200, "completed")


async def test_sync_times_out_with_the_task_id(serve: Serve) -> None:
    caller = await serve(service_time=10, sync_wait=0.01)
    reply = await caller.request("POST", f"{GENERATION_PATH}/sync", json=create_body(prompt="x"))
    assert (reply.status, reply.json["error"]["code"]) == (504, "SYNC_TIMEOUT")
    assert (await caller.get_status(reply.json["id"])).status == 200


async def test_sync_streams_events_on_request(serve: Serve) -> None:
    caller = await serve(service_time=0.02)
    caller.emulator.faults.script("stream", [None, "unavailable", "cut-halfway"])
    options = {"json": create_body(prompt="x"), "headers": {"Accept": "text/event-stream"}}
    reply = await caller.request("POST", f"{GENERATION_PATH}/sync", **options)
    names = [name for name, _ in parse_events(reply.body)]
    assert names == ["output"] * 4 + ["done"]
    assert (await caller.request("POST", f"{GENERATION_PATH}/sync", **options)).status == 503
    with pytest.raises(aiohttp.ClientPayloadError):
        await caller.request("POST", f"{GENERATION_PATH}/sync", **options)
    assert caller.emulator.ledger.billed == 3


async def test_a_stream_follows_a_task_and_resumes(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10, stream_keepalive=1)
    task_id = (await caller.create()).json["id"]
    clock.advance(6)
    path = f"{GENERATION_PATH}/task/{task_id}/stream"
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(caller.request("GET", f"{path}?cursor=1"))
        for _ in range(2):
            await asyncio.sleep(0.07)
            clock.advance(1.5)
        await asyncio.sleep(0.07)
        clock.advance(1.5)
    body = reading.result().body
    assert body.startswith(b": keepalive\n\n")
    assert body.count(b": keepalive") >= 2
    assert [data.get("cursor") for name, data in parse_events(body)] == [2, 3, 4, None]
    assert parse_events(body)[-1][1]["status"] == "completed"
    assert parse_events(body)[2][1]["output"][0]["content"][0]["url"]
    resumed = parse_events((await caller.request("GET", f"{path}?cursor=4")).body)
    assert [name for name, _ in resumed] == ["done"]
    assert (await caller.request("GET", f"{path}?cursor=-1")).status == 400


async def test_a_stream_of_a_failed_task_ends_with_an_error(serve: Serve) -> None:
    caller = await serve(service_time=0.01)
    caller.emulator.faults.script("create", [Fault(kind="task-fails", code="9", message="no")])
    task_id = (await caller.create()).json["id"]
    name, data = parse_events((await caller.request("GET", f"{GENERATION_PATH}/task/{task_id}/stream")).body)[-1]
    assert (name, data["error"]["code"]) == ("error", "9")


async def test_a_fault_cuts_the_stream_of_a_completed_task(serve: Serve) -> None:
    caller = await serve()
    task_id = (await caller.create()).json["id"]
    caller.emulator.faults.script("stream", ["cut-halfway"])
    with pytest.raises(aiohttp.ClientPayloadError):
        await caller.request("GET", f"{GENERATION_PATH}/task/{task_id}/stream?cursor=9")

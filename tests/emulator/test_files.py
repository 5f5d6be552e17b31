from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from emulator_support import ManualTime, Serve

pytestmark = pytest.mark.anyio


async def test_range_requests_return_parts_of_a_file(serve: Serve) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    whole = await caller.request("GET", url)
    etag = whole.headers["ETag"]
    part = await caller.request("GET", url, headers={"Range": "bytes=100-199", "If-Range": etag})
    assert part.status == 206
    assert part.body == whole.body[100:200]
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(whole.body)}"
    assert (await caller.request("GET", url, headers={"Range": "bytes=100-", "If-Range": '"old"'})).status == 200
    assert (await caller.request("GET", url, headers={"Range": "bytes=9999999-"})).status == 416
    head = await caller.request("HEAD", url)
    assert head.body == b""
    assert int(head.headers["Content-Length"]) == len(whole.body)
    caller.emulator.faults.script("download", ["no-ranges"])
    ignored = await caller.request("GET", url, headers={"Range": "bytes=100-199"})
    assert (ignored.status, len(ignored.body)) == (200, len(whole.body))
    assert "Accept-Ranges" not in ignored.headers


async def test_result_urls_expire_and_new_ones_work(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock, url_lifetime=60, expired_status=410)
    created = (await caller.create()).json
    url = created["output"][0]["content"][0]["url"]
    clock.advance(60)
    assert (await caller.request("GET", url)).status == 410
    fresh = (await caller.get_status(created["id"])).json["output"][0]["content"][0]["url"]
    assert (await caller.request("GET", fresh)).status == 200
    assert (await caller.request("GET", fresh.replace(created["id"], "x"))).status == 403
    for name in ("x.jpeg", "0.gif"):
        assert (await caller.request("GET", fresh.replace("0.jpeg", name))).status == 404


async def test_an_unfinished_task_has_no_image(serve: Serve, clock: ManualTime) -> None:
    caller = await serve(clock=clock)
    url = await caller.create_image_url()
    clock.advance(-1)
    assert (await caller.request("GET", url)).status == 404


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
async def test_faults_damage_downloads(serve: Serve, fault: Fault, outcome: int | str | bytes | None) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    whole = (await caller.request("GET", url)).body
    caller.emulator.faults.script("download", [fault] * 2)  # aiohttp retries on a connection that it has used before
    if outcome is None:
        with pytest.raises(aiohttp.ClientError):
            await caller.request("GET", url)
        return
    reply = await caller.request("GET", url)
    if isinstance(outcome, int):
        assert reply.status == outcome
    elif outcome == "html":
        assert (reply.status, reply.headers["Content-Type"][:9]) == (200, "text/html")
    else:
        bodies: dict[str | bytes, bytes] = {"half": whole[: len(whole) // 2], "whole": whole, b"": b""}
        assert (reply.status, reply.body) == (200, bodies[outcome])


async def test_a_fault_stalls_a_download_halfway(serve: Serve) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    caller.emulator.faults.script("download", ["stall-halfway"])
    with pytest.raises(TimeoutError):
        await caller.request("GET", url, timeout=aiohttp.ClientTimeout(total=0.05))

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
from blockbuster import blockbuster_ctx
from emulator_support import GENERATION_PATH, begin_create, create_body, make_image_text

from kontext_async.emulator import Emulator, Faults, RequestRecord

if TYPE_CHECKING:
    from emulator_support import Serve

pytestmark = pytest.mark.anyio


async def test_requests_are_logged_without_secrets(serve: Serve) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    await caller.request("GET", url)
    create, download = caller.emulator.requests
    assert isinstance(create, RequestRecord)
    assert (create.method, create.path, create.origin) == ("POST", GENERATION_PATH, "api")
    assert create.headers["authorization"] == "Bearer emulator-key"
    assert "emulator-key" not in repr(create)
    assert (download.origin, "Authorization" in download.headers, "?" in download.path) == ("files", False, False)


async def test_the_ledger_is_served_over_http(serve: Serve) -> None:
    caller = await serve()
    await caller.create()
    whole = (await caller.request("GET", "/_emulator/ledger", headers={"Authorization": ""})).json
    assert (whole["billed"], whole["spent"], len(whole["entries"])) == (1, "0.04", 1)
    assert "entries" not in (await caller.request("GET", "/_emulator/ledger?entries=0")).json
    assert (await caller.request("GET", "/_emulator/health")).json == {"status": "ok"}


async def test_closing_ends_open_requests_fast_and_leaves_no_tasks() -> None:
    before = asyncio.all_tasks()
    emulator = Emulator(service_time=100, faults=Faults({"stall": 1.0}))
    async with aiohttp.ClientSession() as http, emulator:
        emulator.faults.clear()
        emulator.faults.script("create", [None])
        headers = {"Authorization": "Bearer emulator-key"}
        url = emulator.base_url + GENERATION_PATH
        async with http.post(url, json=create_body(prompt="x"), headers=headers) as reply:
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


async def test_closing_is_fast_during_a_half_sent_body(serve: Serve) -> None:
    caller = await serve()
    writer = await begin_create(caller)
    await asyncio.sleep(0.02)
    start = time.perf_counter()
    await caller.emulator.aclose()
    assert time.perf_counter() - start < 0.8
    writer.close()


async def test_a_restarted_emulator_keeps_its_tasks_and_ports(serve: Serve) -> None:
    caller = await serve(service_time=100)
    url, files = caller.emulator.base_url, caller.emulator.files_url
    task_id = (await caller.create()).json["id"]
    with pytest.raises(RuntimeError, match="running"):
        await caller.emulator.start()
    await caller.emulator.aclose()
    await caller.emulator.start()
    assert (caller.emulator.base_url, caller.emulator.files_url) == (url, files)
    assert (await caller.get_status(task_id)).status == 200


async def test_a_port_in_use_is_an_error_and_nothing_stays_open(serve: Serve) -> None:
    caller = await serve()
    second = Emulator(port=int(caller.emulator.base_url.rpartition(":")[2]))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    assert not second.is_running


async def test_nothing_blocks_the_loop(serve: Serve) -> None:
    caller = await serve(pixels=200 * 200)
    with blockbuster_ctx():
        url = await caller.create_image_url(input_image=make_image_text())
        assert (await caller.request("GET", url)).status == 200


def test_an_emulator_has_no_address_before_its_start() -> None:
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
        ("bill_cancelled", 1),
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
def test_errors_name_the_invalid_argument(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"seconds|" + name):
        Emulator(**{name: value})  # type: ignore[arg-type]

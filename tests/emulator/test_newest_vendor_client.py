"""The vendor's newest client, async and in the queue dialect, against the emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import seacloud_sdk
from seacloud_sdk.core import default_base_urls
from seacloud_sdk.resources import generation

from kontext_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio
MODEL = "flux_kontext_pro"
PARAMS = {"prompt": "a red fox", "seed": 1, "aspect_ratio": "16:9"}


@pytest.fixture
async def emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    """Start an emulator, and make it the client's gateway: its addresses are constants of the package."""
    monkeypatch.setattr(generation, "INITIAL_POLL_INTERVAL_SECONDS", 0.02)
    async with Emulator(service_time=0.05, pixels=4096) as running:
        for name in default_base_urls.DEFAULT_BASE_URLS:
            monkeypatch.setitem(default_base_urls.DEFAULT_BASE_URLS, name, running.base_url)
        yield running


@pytest.fixture
def client(emulator: Emulator) -> seacloud_sdk.SeaCloud:
    return seacloud_sdk.SeaCloud(api_key=emulator.api_key, timeout=10_000)


async def test_the_newest_client_creates_a_task_and_waits(client: seacloud_sdk.SeaCloud, emulator: Emulator) -> None:
    result = await client.run_sync(MODEL, PARAMS, contract="strict")
    assert (result["id"], result["status"], result["model"]) == (emulator.ledger.task_ids[0], "completed", MODEL)
    assert [url.startswith(emulator.files_url) for url in result["output"]["urls"]] == [True]
    paths = [record.path for record in emulator.requests]
    assert paths[0] == f"/api/v1/skill/model-contracts/{MODEL}"
    assert paths[1] == f"/model/v1/queue/{MODEL}"
    assert paths[2].endswith("/status")
    assert paths[-1].endswith("/response")
    assert emulator.requests[1].headers["User-Agent"].startswith("seacloud-sdk-python/")
    assert emulator.ledger.entries[0].prompt == "a red fox"


async def test_the_newest_client_polls_by_itself(client: seacloud_sdk.SeaCloud, emulator: Emulator) -> None:
    task = await client.run(MODEL, PARAMS)
    assert (task["status"], task["queuePosition"]) == ("queued", 0)
    status = await client.tasks.get(task["id"], endpoint=MODEL)
    assert status["status"] in {"in_queue", "in_progress", "completed"}
    assert (await client.tasks.get(task["id"], statusUrl=task["statusUrl"]))["id"] == task["id"]


async def test_the_newest_client_reports_a_failed_task(client: seacloud_sdk.SeaCloud, emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind="task-fails", message="the prompt was refused")])
    result = await client.run_sync(MODEL, PARAMS)
    assert result["status"] == "failed"
    assert result["error"]["message"] == "the prompt was refused"
    task = await client.tasks.get_response(result["id"], endpoint=MODEL)
    assert (task["status"], task["error"]["message"]) == ("failed", "the prompt was refused")


async def test_the_newest_client_reports_a_refusal(client: seacloud_sdk.SeaCloud, emulator: Emulator) -> None:
    with pytest.raises(seacloud_sdk.SeaCloudError, match="seed") as caught:
        await client.run(MODEL, PARAMS | {"seed": "one"})
    assert caught.value.status_code == 422
    assert caught.value.request_id
    assert emulator.ledger.refused == 1


async def test_the_newest_client_reports_a_wrong_key(emulator: Emulator) -> None:
    with pytest.raises(seacloud_sdk.AuthError, match="invalid") as caught:
        await seacloud_sdk.SeaCloud(api_key="wrong").run(MODEL, PARAMS)
    assert caught.value.status_code == 401


async def test_the_newest_client_reports_a_low_balance(client: seacloud_sdk.SeaCloud, emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind="balance-too-low", status=402)])
    with pytest.raises(seacloud_sdk.BalanceError, match="balance"):
        await client.run(MODEL, PARAMS)


async def test_the_newest_client_reports_an_unknown_model(client: seacloud_sdk.SeaCloud, emulator: Emulator) -> None:
    with pytest.raises(seacloud_sdk.ModelNotFoundError):
        await client.run("other_model", PARAMS, contract="strict")
    assert emulator.ledger.entries == ()


async def test_the_newest_client_reads_the_contract_and_lists_the_models(
    client: seacloud_sdk.SeaCloud, emulator: Emulator
) -> None:
    spec = await client.models.get_spec(MODEL)
    assert (spec["protocol"], spec["bodyMode"]) == ("queue", "raw_json")
    assert spec["inputSchema"]["required"] == ["prompt"]
    assert [model["id"] for model in (await client.models.list())["models"]] == [MODEL, "flux_kontext_max"]
    with pytest.raises(seacloud_sdk.ValidationError, match="prompt"):
        await client.run(MODEL, {"seed": 1})
    assert emulator.ledger.entries == ()


async def test_the_newest_client_retries_a_poll_that_was_cut(client: seacloud_sdk.SeaCloud, emulator: Emulator) -> None:
    emulator.faults.script("status", ["cut", "unavailable"])
    assert (await client.run_sync(MODEL, PARAMS))["status"] == "completed"
    assert not emulator.faults.waiting("status")

"""The vendor's own client against the emulator, which must respond as that client expects."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import seaart_sdk as sa
from anyio import to_thread

from kontext_async.emulator import Emulator, Fault

pytestmark = pytest.mark.anyio
REQUEST = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": "a red fox", "seed": 1}}]}
FAST_POLLING = (sa.with_poll_interval(0.01), sa.with_poll_timeout(5.0))


@pytest.fixture
async def emulator(request: pytest.FixtureRequest) -> AsyncIterator[Emulator]:
    async with Emulator(service_time=getattr(request, "param", 0.03), pixels=4096) as running:
        yield running


async def run_in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await to_thread.run_sync(partial(work, *arguments))


def create_client(emulator: Emulator, key: str = "emulator-key") -> Any:
    base = emulator.base_url
    return sa.Client(sa.ClientConfig(api_key=key, base_url=base, model_base_url=f"{base}/model"))


@pytest.mark.parametrize("emulator", [0.5], indirect=True)  # on a slow machine, too, the first poll comes earlier
async def test_the_vendor_client_creates_a_task_and_waits(emulator: Emulator) -> None:
    modal = create_client(emulator).modal
    task = await run_in_thread(modal.create, REQUEST)
    assert task.status == "in_progress"
    seen: list[tuple[str, float]] = []
    done = await run_in_thread(
        task.wait, *FAST_POLLING, sa.with_poll_callback(lambda status, progress: seen.append((status, progress)))
    )
    assert done.status == "completed"
    assert done.urls()[0].startswith(emulator.files_url)
    assert done.output[0].content[0].job_id
    assert done.usage.cost_float64() == 0.04
    assert done.metadata.completed_at >= done.metadata.in_queue_at > 0
    assert [status for status, _ in seen][-1] == "completed"
    assert seen[0][0] == "in_progress"
    assert emulator.requests[0].headers["User-Agent"].startswith("sa-python/")
    assert emulator.ledger.billed == 1


async def test_the_vendor_client_polls_once(emulator: Emulator) -> None:
    modal = create_client(emulator).modal
    task = await run_in_thread(modal.create, REQUEST)
    again = await run_in_thread(modal.get, task.id)
    assert (again.id, again.model) == (task.id, "flux_kontext_pro")


async def test_the_vendor_client_reports_a_failed_task(emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind="task-fails", message="the image was refused")])
    modal = create_client(emulator).modal
    task = await run_in_thread(modal.create, REQUEST)
    with pytest.raises(sa.SeaArtError, match="task failed: the image was refused") as caught:
        await run_in_thread(task.wait, *FAST_POLLING)
    assert (caught.value.kind, caught.value.task_id) == ("task_failed", task.id)


@pytest.mark.parametrize(
    ("request_body", "status", "text"),
    [
        ({"model": "flux_kontext_pro", "input": [{"params": {"prompt": " "}}]}, 422, "prompt"),
        ({"model": "flux_kontext_pro", "parameters": {}}, 400, "parameters"),
    ],
)
async def test_the_vendor_client_reports_a_refusal(
    emulator: Emulator, request_body: dict[str, Any], status: int, text: str
) -> None:
    with pytest.raises(sa.SeaArtError, match=text) as caught:
        await run_in_thread(create_client(emulator).modal.create, request_body)
    assert (caught.value.status, emulator.ledger.refused) == (status, 1)


async def test_the_vendor_client_reports_a_wrong_key(emulator: Emulator) -> None:
    with pytest.raises(sa.SeaArtError, match="invalid") as caught:
        await run_in_thread(create_client(emulator, "wrong").modal.create, REQUEST)
    assert (caught.value.kind, caught.value.status) == ("auth", 401)


async def test_the_vendor_client_reports_a_rate_limit(emulator: Emulator) -> None:
    emulator.faults.script("create", ["rate-limited"])
    with pytest.raises(sa.SeaArtError) as caught:
        await run_in_thread(create_client(emulator).modal.create, REQUEST)
    assert (caught.value.kind, caught.value.status) == ("quota", 429)


async def test_the_vendor_client_retries_a_poll_that_was_cut(emulator: Emulator) -> None:
    modal = create_client(emulator).modal
    task = await run_in_thread(modal.create, REQUEST)
    emulator.faults.script("status", ["cut", "cut", Fault(kind="odd-status", variant="Pending")])
    assert (await run_in_thread(modal.wait, task.id, *FAST_POLLING)).status.lower() == "completed"


async def test_the_vendor_client_loses_a_billed_create_request(emulator: Emulator) -> None:
    emulator.faults.script("create", ["cut-after-accept"])
    with pytest.raises(sa.SeaArtError) as caught:
        await run_in_thread(create_client(emulator).modal.create, REQUEST)
    assert caught.value.kind == "network"
    assert emulator.ledger.billed == 1


async def test_the_vendor_client_reports_a_missing_task_id(emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind="wrong-types", variant="no-id")])
    with pytest.raises(sa.SeaArtError, match="no task ID"):
        await run_in_thread(create_client(emulator).modal.create, REQUEST)

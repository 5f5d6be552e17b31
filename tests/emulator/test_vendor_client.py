"""The vendor's own client against the emulator: what it understands, the emulator says rightly."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import seaart_sdk as sa
from anyio import to_thread

from kontext_async.emulator import Emulator, Fault

pytestmark = pytest.mark.anyio
REQUEST = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": "a red fox", "seed": 1}}]}
QUICKLY = (sa.with_poll_interval(0.01), sa.with_poll_timeout(5.0))


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(service_time=0.03, pixels=4096) as running:
        yield running


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    return await to_thread.run_sync(partial(work, *arguments))


def client(emulator: Emulator, key: str = "emulator-key") -> Any:
    base = emulator.base_url
    return sa.Client(sa.ClientConfig(api_key=key, base_url=base, model_base_url=f"{base}/model"))


async def test_it_creates_and_waits(emulator: Emulator) -> None:
    modal = client(emulator).modal
    task = await in_thread(modal.create, REQUEST)
    assert task.status == "in_progress"
    seen: list[tuple[str, float]] = []
    done = await in_thread(
        task.wait, *QUICKLY, sa.with_poll_callback(lambda status, progress: seen.append((status, progress)))
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


async def test_it_polls_once(emulator: Emulator) -> None:
    modal = client(emulator).modal
    task = await in_thread(modal.create, REQUEST)
    again = await in_thread(modal.get, task.id)
    assert (again.id, again.model) == (task.id, "flux_kontext_pro")


async def test_it_sees_a_task_fail(emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind="task-fails", message="the picture was refused")])
    modal = client(emulator).modal
    task = await in_thread(modal.create, REQUEST)
    with pytest.raises(sa.SeaArtError, match="task failed: the picture was refused") as caught:
        await in_thread(task.wait, *QUICKLY)
    assert (caught.value.kind, caught.value.task_id) == ("task_failed", task.id)


@pytest.mark.parametrize(
    ("request_body", "status", "words"),
    [
        ({"model": "flux_kontext_pro", "input": [{"params": {"prompt": " "}}]}, 422, "prompt"),
        ({"model": "flux_kontext_pro", "parameters": {}}, 400, "parameters"),
    ],
)
async def test_it_is_refused(emulator: Emulator, request_body: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(sa.SeaArtError, match=words) as caught:
        await in_thread(client(emulator).modal.create, request_body)
    assert (caught.value.status, emulator.ledger.refused) == (status, 1)


async def test_it_has_the_wrong_key(emulator: Emulator) -> None:
    with pytest.raises(sa.SeaArtError, match="invalid") as caught:
        await in_thread(client(emulator, "wrong").modal.create, REQUEST)
    assert (caught.value.kind, caught.value.status) == ("auth", 401)


async def test_it_is_limited(emulator: Emulator) -> None:
    emulator.faults.script("create", ["rate-limited"])
    with pytest.raises(sa.SeaArtError) as caught:
        await in_thread(client(emulator).modal.create, REQUEST)
    assert (caught.value.kind, caught.value.status) == ("quota", 429)


async def test_it_asks_again_when_a_poll_is_cut(emulator: Emulator) -> None:
    modal = client(emulator).modal
    task = await in_thread(modal.create, REQUEST)
    emulator.faults.script("status", ["cut", "cut", Fault(kind="odd-status", variant="Pending")])
    assert (await in_thread(modal.wait, task.id, *QUICKLY)).status.lower() == "completed"


async def test_it_loses_a_create_that_was_billed(emulator: Emulator) -> None:
    emulator.faults.script("create", ["cut-after-accept"])
    with pytest.raises(sa.SeaArtError) as caught:
        await in_thread(client(emulator).modal.create, REQUEST)
    assert caught.value.kind == "network"
    assert emulator.ledger.billed == 1


async def test_it_finds_no_id(emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind="wrong-types", variant="no-id")])
    with pytest.raises(sa.SeaArtError, match="no task ID"):
        await in_thread(client(emulator).modal.create, REQUEST)

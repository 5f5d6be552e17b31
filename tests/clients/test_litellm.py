"""Black Forest Labs in litellm, unmodified, against the emulator."""

from __future__ import annotations

import base64
import io
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread
from session_support import encode_png

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kontext_async.emulator import Emulator

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it loads prices from the network when it is imported
litellm: Any = pytest.importorskip("litellm", reason="there is no litellm")

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

MODEL = "black_forest_labs/flux-kontext-pro"


@pytest.fixture(autouse=True)
def _with_fresh_connections(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BFL_API_KEY", str(emulator.api_key))
    monkeypatch.delenv("BFL_API_BASE", raising=False)
    litellm.in_memory_llm_clients_cache.flush_cache()
    yield
    litellm.in_memory_llm_clients_cache.flush_cache()


async def generate(**options: Any) -> Any:
    work = partial(litellm.image_generation, model=MODEL, prompt="a red fox", **options)
    return await to_thread.run_sync(work)


async def test_litellm_creates_a_task_and_waits(emulator: Emulator) -> None:
    response = await generate(extra_body={"seed": 7})
    assert response.data[0].url.startswith(emulator.files_url)
    assert (emulator.ledger.entries[0].prompt, emulator.ledger.billed) == ("a red fox", 1)
    create, *polls = (record for record in emulator.requests if record.origin == "api")
    assert (create.path, create.headers["Host"]) == ("/v1/flux-kontext-pro", "api.bfl.ai")
    assert {(poll.path, poll.headers["Host"]) for poll in polls} == {("/v1/get_result", "api.us1.bfl.ai")}
    assert {record.headers["x-key"] for record in (create, *polls)} == {emulator.api_key}


async def test_litellm_creates_a_task_and_waits_on_the_event_loop(emulator: Emulator) -> None:
    response = await litellm.aimage_generation(model=MODEL, prompt="a red fox")
    assert response.data[0].url.startswith(emulator.files_url)
    assert emulator.ledger.billed == 1


async def test_litellm_edits_an_image(emulator: Emulator) -> None:
    image = io.BytesIO(encode_png())
    image.name = "fox.png"
    response = await to_thread.run_sync(partial(litellm.image_edit, model=MODEL, prompt="make it dusk", image=image))
    assert response.data[0].url or base64.b64decode(response.data[0].b64_json)
    assert (emulator.ledger.entries[0].prompt, emulator.ledger.billed) == ("make it dusk", 1)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(kind="task-fails", message="out of memory"), "Error"),
        (Fault(kind="task-moderated", variant="request"), "Request Moderated"),
        (Fault(kind="task-moderated", variant="content"), "Content Moderated"),
    ],
    ids=["fails", "request-moderated", "content-moderated"],
)
async def test_litellm_reports_a_failed_task(emulator: Emulator, fault: Fault, status: str) -> None:
    emulator.faults.script("create", [fault])
    with pytest.raises(litellm.BadRequestError, match=f"Image generation failed: {status}"):
        await generate()


async def test_litellm_reports_errors_within_a_success(emulator: Emulator) -> None:
    emulator.faults.script("create", ["errors-in-success"])
    with pytest.raises(Exception, match="BFL error"):
        await generate()
    assert emulator.ledger.billed == 0


async def test_litellm_reports_a_refusal(emulator: Emulator) -> None:
    with pytest.raises(Exception, match=r"BFL initial request failed|Request failed"):
        await generate(safety_tolerance=9)
    assert (emulator.ledger.refused, emulator.ledger.billed) == (1, 0)


async def test_litellm_reports_a_wrong_key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BFL_API_KEY", "bfl_wrong")
    with pytest.raises(Exception, match=r"BFL initial request failed|Request failed"):
        await generate()
    assert emulator.ledger.billed == 0


@pytest.mark.parametrize("region", ["https://api.evil.example"])
async def test_litellm_sends_the_key_to_no_other_host(emulator: Emulator) -> None:
    with pytest.raises(Exception, match="host is not within the bfl"):
        await generate()
    assert emulator.ledger.billed == 1

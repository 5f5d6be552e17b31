"""The provider of Black Forest Labs in huggingface_hub, unmodified, against the emulator."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kontext_async.emulator import Emulator

huggingface_hub: Any = pytest.importorskip("huggingface_hub", reason="there is no huggingface_hub")
provider: Any = pytest.importorskip(
    "huggingface_hub.inference._providers.black_forest_labs", reason="there is no provider in this huggingface_hub"
)
providers: Any = pytest.importorskip("huggingface_hub.inference._providers._common")

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

MODEL = "black-forest-labs/FLUX.1-Kontext-pro"


@pytest.fixture(autouse=True)
def _with_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Name the model, which the package looks up at its own site otherwise, and poll sooner."""
    mapping = huggingface_hub.hf_api.InferenceProviderMapping(
        hf_model_id=MODEL,
        providerId="flux-kontext-pro",
        task="text-to-image",
        status="live",
        provider=provider.__name__,
    )
    monkeypatch.setitem(providers.HARDCODED_MODEL_INFERENCE_MAPPING, "black-forest-labs", {MODEL: mapping})
    monkeypatch.setattr(provider, "POLLING_INTERVAL", 0.05)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


async def generate(key: str | None, prompt: str = "a red fox", **options: Any) -> Any:
    client = huggingface_hub.InferenceClient(provider="black-forest-labs", api_key=key)
    return await to_thread.run_sync(partial(client.text_to_image, prompt, model=MODEL, **options))


async def test_huggingface_creates_a_task_and_waits(emulator: Emulator) -> None:
    image = await generate(emulator.api_key, seed=7)
    assert image.format == "PNG"
    [entry] = emulator.ledger.entries
    assert (entry.prompt, emulator.ledger.billed) == ("a red fox", 1)
    paths = [record.path for record in emulator.requests if record.origin == "api"]
    assert paths[0] == "/v1/flux-kontext-pro"
    assert set(paths[1:]) == {"/v1/get_result"}
    assert emulator.requests[0].headers["Host"] == "api.us1.bfl.ai"
    assert emulator.requests[0].headers["X-Key"] == emulator.api_key
    assert "X-Key" not in emulator.requests[1].headers


async def test_huggingface_waits_for_a_failed_task_in_vain(emulator: Emulator) -> None:
    """It knows no status but Ready."""
    emulator.faults.script("create", [Fault(kind="task-fails", message="out of memory")])
    with pytest.raises(TimeoutError, match="Failed to get the image"):
        await generate(emulator.api_key)
    assert emulator.ledger.entries[0].task_id


async def test_huggingface_reports_a_refusal(emulator: Emulator) -> None:
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as caught:
        await generate(emulator.api_key, seed="seven")
    assert caught.value.response.status_code == 422
    assert (emulator.ledger.refused, emulator.ledger.billed) == (1, 0)


async def test_huggingface_reports_a_wrong_key(emulator: Emulator) -> None:
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as caught:
        await generate("bfl_wrong")
    assert caught.value.response.status_code in {401, 403, 422}
    assert emulator.ledger.billed == 0


async def test_huggingface_loses_a_task_that_its_first_poll_does_not_find(emulator: Emulator) -> None:
    emulator.faults.script("status", ["not-found"])
    with pytest.raises(Exception, match="404 Not Found"):
        await generate(emulator.api_key)
    assert emulator.ledger.billed == 1

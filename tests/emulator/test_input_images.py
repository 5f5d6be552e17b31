from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from emulator_support import make_image_text
from PIL import Image

from kontext_async.emulator.http.request_body import is_loopback

if TYPE_CHECKING:
    from emulator_support import ManualTime, Serve

pytestmark = pytest.mark.anyio


async def test_input_images_of_every_origin_are_accepted(serve: Serve) -> None:
    caller = await serve(service_time=0)
    own = await caller.create_image_url(aspect_ratio="2:1")
    reply = await caller.create(
        input_image=own,
        input_image_2="https://example.com/fox.jpg",
        input_image_3=make_image_text(),
        input_image_4=make_image_text(),
    )
    assert reply.status == 200
    url = reply.json["output"][0]["content"][0]["url"]
    width, height = Image.open(io.BytesIO((await caller.request("GET", url)).body)).size
    assert width / height == pytest.approx(2, rel=0.05), "the ratio follows the first image"


async def test_loopback_urls_are_fetched(serve: Serve, clock: ManualTime) -> None:
    caller, other = await serve(clock=clock), await serve(clock=clock)
    url = await other.create_image_url()
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


async def test_a_loopback_file_that_is_too_large_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    caller, other = await serve(), await serve()
    url = await other.create_image_url()
    for module in ("http.request_body", "validation"):
        monkeypatch.setattr(f"kontext_async.emulator.{module}.MAX_IMAGE_BYTES", 10)
    assert (await caller.create(input_image=url)).status == 422


async def test_urls_of_missing_own_images_are_refused(serve: Serve) -> None:
    caller = await serve()
    url = await caller.create_image_url()
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
def test_loopback_hosts_are_recognized(url: str, expected: bool) -> None:  # noqa: FBT001
    assert is_loopback(url) is expected


async def test_ratios_of_wide_and_tall_first_images_are_limited(serve: Serve) -> None:
    caller = await serve(pixels=40_000)
    for size, ratio in (((900, 100), 21 / 9), ((100, 900), 9 / 21)):
        url = await caller.create_image_url(input_image=make_image_text(size=size))
        width, height = Image.open(io.BytesIO((await caller.request("GET", url)).body)).size
        assert width / height == pytest.approx(ratio, rel=0.05)

from __future__ import annotations

import base64
import io
import resource
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from emulator_support import make_image_text
from PIL import Image

from kontext_async.emulator.http.request_body import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

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


BOMB_SIDE = 13_000


def make_png_bomb() -> bytes:
    """Return a PNG of few bytes and 169 million pixels."""
    compressor = zlib.compressobj(9)
    row = bytes(1 + BOMB_SIDE // 8)
    data = b"".join(compressor.compress(row) for _ in range(BOMB_SIDE)) + compressor.flush()
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 1, 0, 0, 0, 0), b"IDAT" + data, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def make_gif_bomb() -> bytes:
    """Return a GIF of few bytes with a screen of 65,535 x 65,535 pixels."""
    return b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2\x4c\1\0;"


def make_webp_bomb() -> bytes:
    """Return an animated WebP of few bytes with a canvas of 16,384 x 16,384 pixels."""
    first = io.BytesIO()
    frames = [Image.new("RGB", (1, 1), color) for color in ("red", "blue")]
    frames[0].save(first, "WEBP", save_all=True, append_images=frames[1:])
    data = bytearray(first.getvalue())
    place = data.index(b"VP8X") + 12
    data[place : place + 6] = (16_383).to_bytes(3, "little") * 2
    return bytes(data)


@pytest.mark.parametrize("make", [make_png_bomb, make_gif_bomb, make_webp_bomb])
async def test_decompression_bombs_are_refused_before_they_are_decoded(serve: Serve, make: Callable[[], bytes]) -> None:
    bomb = make()
    assert len(bomb) < 100_000
    caller = await serve()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reply = await caller.create(input_image=base64.b64encode(bomb).decode())
    assert reply.status == 422
    assert "pixels" in reply.json["error"]["message"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024, "kilobytes of Linux"


async def test_a_gif_of_ten_thousand_frames_is_read_like_one_of_one_frame(serve: Serve) -> None:
    frame = b",\0\0\0\0\1\0\1\0\0\2\2\x4c\1\0"
    gif = b"GIF89a\1\0\1\0\x80\0\0\xff\xff\xff\0\0\0" + frame * 10_000 + b";"
    caller = await serve()
    assert (await caller.create(input_image=base64.b64encode(gif).decode())).status == 200


async def test_the_largest_image_is_still_decoded(serve: Serve) -> None:
    caller = await serve()
    image = make_image_text("JPEG", size=(7071, 7071))
    assert (await caller.create(input_image=image)).status == 200


async def test_ratios_of_wide_and_tall_first_images_are_limited(serve: Serve) -> None:
    caller = await serve(pixels=40_000)
    for size, ratio in (((900, 100), 21 / 9), ((100, 900), 9 / 21)):
        url = await caller.create_image_url(input_image=make_image_text(size=size))
        width, height = Image.open(io.BytesIO((await caller.request("GET", url)).body)).size
        assert width / height == pytest.approx(ratio, rel=0.05)

"""`images.fit`: makes a large image fit, and keeps its orientation, colors and transparency."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageChops, ImageCms

from kontext_async import images
from kontext_async.errors import ConfigurationError, InvalidRequest
from kontext_async.images import detect_format

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def make_noise(mode: str = "RGB", size: tuple[int, int] = (160, 120)) -> Image.Image:
    bands = [Image.effect_noise(size, 90) for _ in "RGB"]
    return Image.merge("RGB", bands).convert(mode)


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def fit(source: Any, **bounds: Any) -> Image.Image:
    data = asyncio.run(images.fit(source, **bounds))
    assert len(data) <= bounds.get("max_bytes", images.MAX_IMAGE_BYTES)
    images.check(data, "it")
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_fit_returns_an_image_that_fits_unchanged(image_format: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = (
        encode(make_noise(), image_format, exif=exif) if image_format == "JPEG" else encode(make_noise(), image_format)
    )
    (tmp_path / "fox").write_bytes(data)
    for source in (data, tmp_path / "fox", io.BytesIO(data)):
        assert asyncio.run(images.fit(source, max_side=160, max_bytes=len(data))) == data


def test_fit_limits_the_longest_side() -> None:
    assert fit(encode(make_noise(), "JPEG"), max_side=80).size == (80, 60)
    assert fit(make_noise(size=(100, 1)), max_side=10).size == (10, 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(900, 40_000), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]))
def test_fit_limits_the_size_in_bytes(max_bytes: int, image_format: str) -> None:
    fit(encode(make_noise(), image_format), max_bytes=max_bytes)


def test_fit_reduces_the_quality_before_the_pixels() -> None:
    data = encode(make_noise(size=(400, 300)), "JPEG", quality=100)
    gentle = asyncio.run(images.fit(data, max_bytes=len(data) * 2 // 5))
    assert Image.open(io.BytesIO(gentle)).size == (400, 300)
    assert len(gentle) > len(data) * 2 // 5 * 0.85
    assert fit(data, max_bytes=len(data) // 20).size < (300, 225)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fit_applies_the_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (64, 32), "white")
    image.paste("black", (0, 0, 16, 16))
    turned = fit(encode(image, "JPEG", exif=exif, quality=95), max_side=63)
    assert turned.size == ((63, 32) if orientation < 5 else (32, 63))
    assert turned.getexif().get(0x0112, 1) == 1
    corners = {
        "left top": (4, 4),
        "right top": (turned.width - 5, 4),
        "right bottom": (turned.width - 5, turned.height - 5),
        "left bottom": (4, turned.height - 5),
    }
    dark = [name for name, place in corners.items() if sum(turned.convert("RGB").getpixel(place)) < 380]  # type: ignore[arg-type] # three bands
    assert dark == [list(corners)[(orientation - 1) % 4]]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_fit_keeps_the_color_profile(image_format: str) -> None:
    data = encode(make_noise(), image_format, icc_profile=PROFILE)
    assert fit(data, max_side=100).info["icc_profile"] == PROFILE
    assert fit(data, max_bytes=10_000).info["icc_profile"] == PROFILE


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_fit_keeps_transparency(mode: str) -> None:
    image = make_noise("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size).point([0] * 128 + [255] * 128))
    source: Any = image.convert(mode) if mode in ("RGBA", "LA") else encode(image.quantize(64), "PNG")
    if mode == "PA":
        source = image.convert("P")
        source.putalpha(image.getchannel("A"))
        assert source.mode == "PA"
    for bounds in ({"max_side": 60}, {"max_bytes": 6000}):
        alpha = fit(source, **bounds).convert("RGBA").getchannel("A")
        assert alpha.getextrema() == (0, 255)


@pytest.mark.parametrize(
    ("image", "image_format"),
    [
        (make_noise("CMYK"), "jpeg"),
        (make_noise("L"), "jpeg"),
        (make_noise("RGB"), "jpeg"),
        (make_noise("RGBA"), "webp"),
        (Image.new("I;16", (300, 300), 50_000), "png"),
        (Image.new("F", (300, 300), 50.0), "png"),
        (make_noise("LAB"), "jpeg"),
        (make_noise("1"), "png"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.mode,
)
def test_fit_chooses_the_format_by_mode_and_transparency(image: Image.Image, image_format: str) -> None:
    data = asyncio.run(images.fit(image, max_bytes=9000))
    assert detect_format(data) == image_format


def test_fit_scales_sixteen_bit_values_to_eight_bits() -> None:
    image = Image.frombytes("I;16", (200, 200), os.urandom(80_000))
    fitted = fit(encode(image, "PNG"), max_bytes=20_000)
    assert fitted.format == "JPEG"
    assert 60 < sum(i * n for i, n in enumerate(fitted.convert("L").histogram())) / (fitted.width * fitted.height) < 200


def test_fit_keeps_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "green")]
    fitted = fit(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), max_side=20).convert("RGB")
    assert ImageChops.difference(fitted, Image.new("RGB", (20, 20), "red")).getextrema() == ((0, 0),) * 3


def test_fit_reads_the_source_in_a_thread() -> None:
    threads = []

    class RecordingFile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            threads.append(threading.current_thread())
            return super().read(size)

    fit(RecordingFile(encode(make_noise(), "PNG")), max_side=50)
    assert threads
    assert threading.main_thread() not in threads


def test_fit_reads_an_async_reader() -> None:
    class Upload:
        def __init__(self) -> None:
            self.file = io.BytesIO(encode(make_noise(size=(700, 500)), "PNG"))

        async def read(self, size: int = -1) -> bytes:
            return self.file.read(size)

    assert fit(Upload(), max_side=50).size == (50, 36)


@pytest.mark.parametrize(
    ("source", "bounds", "rule"),
    [
        (b"plain text", {}, "that Pillow can open"),
        (encode(make_noise(), "PNG")[:3000], {"max_side": 10}, "that Pillow can open"),
        ("http://host/fox.jpg", {}, "the gateway downloads"),
        ("no/such/file.jpg", {}, "must be readable"),
        (7, {}, "it must be a path"),
        (make_noise(), {"max_bytes": 20}, "no image is that small"),
        (make_noise(), {"max_bytes": 0}, "integer of at least 1"),
        (make_noise(), {"max_side": True}, "integer of at least 1"),
        (make_noise(), {"max_side": 1.5}, "integer of at least 1"),
    ],
)
def test_fit_refuses_a_source_that_it_cannot_make_fit(source: Any, bounds: Any, rule: str) -> None:
    with pytest.raises(InvalidRequest, match=rule):
        asyncio.run(images.fit(source, **bounds))


def test_fit_refuses_a_decompression_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InvalidRequest, match="that Pillow can open"):
        asyncio.run(images.fit(encode(Image.new("L", (50, 50)), "PNG"), max_side=10))


def test_fit_raises_configuration_error_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(ConfigurationError, match="needs Pillow"):
        asyncio.run(images.fit(b"GIF89a" + bytes(20)))

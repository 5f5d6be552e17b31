"""Pillow images as input images."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from source_support import NAME, catch_load_error, load_and_close

from kontext_async.images import check, detect_format

MODES = [
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "La",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I",
    "I;16",
    "F",
]


@pytest.mark.parametrize("mode", MODES)
def test_a_pillow_image_of_any_mode_becomes_a_png(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    check(image, NAME)
    data = load_and_close(image).read()
    assert detect_format(data) == "png"
    with Image.open(io.BytesIO(data)) as read:
        assert read.size == (3, 2)


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "RGBa", "La"])
def test_a_pillow_image_keeps_its_transparency(mode: str) -> None:
    data = load_and_close(Image.new(mode, (3, 2))).read()
    with Image.open(io.BytesIO(data)) as read:
        assert read.convert("RGBA").getpixel((0, 0)) == (0, 0, 0, 0)


def test_load_refuses_a_pillow_image_without_pixels() -> None:
    assert "readable" in catch_load_error(Image.new("RGB", (0, 0))).rule


def test_load_refuses_a_truncated_pillow_image() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    with Image.open(io.BytesIO(buffer.getvalue()[:800])) as image:
        assert "truncated" in catch_load_error(image).rule

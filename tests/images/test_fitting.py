"""`images.fit`: a picture that is too large becomes one that is not, and stays the picture that it was."""

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


def noise(mode: str = "RGB", size: tuple[int, int] = (160, 120)) -> Image.Image:
    bands = [Image.effect_noise(size, 90) for _ in "RGB"]
    return Image.merge("RGB", bands).convert(mode)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def fit(source: Any, **bounds: Any) -> Image.Image:
    data = asyncio.run(images.fit(source, **bounds))
    assert len(data) <= bounds.get("max_bytes", images.MAX_IMAGE_BYTES)
    images.check(data, "it")
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_what_fits_is_left_as_it_is(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(noise(), kind, exif=exif) if kind == "JPEG" else saved(noise(), kind)
    (tmp_path / "fox").write_bytes(data)
    for source in (data, tmp_path / "fox", io.BytesIO(data)):
        assert asyncio.run(images.fit(source, max_side=160, max_bytes=len(data))) == data


def test_the_longest_side_is_kept_to() -> None:
    assert fit(saved(noise(), "JPEG"), max_side=80).size == (80, 60)
    assert fit(noise(size=(100, 1)), max_side=10).size == (10, 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(900, 40_000), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]))
def test_the_size_is_kept_to(max_bytes: int, kind: str) -> None:
    fit(saved(noise(), kind), max_bytes=max_bytes)


def test_no_more_is_given_up_than_must_be() -> None:
    data = saved(noise(size=(400, 300)), "JPEG", quality=100)
    gentle = asyncio.run(images.fit(data, max_bytes=len(data) * 2 // 5))
    assert Image.open(io.BytesIO(gentle)).size == (400, 300)
    assert len(gentle) > len(data) * 2 // 5 * 0.85
    assert fit(data, max_bytes=len(data) // 20).size < (300, 225)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_its_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (64, 32), "white")
    picture.paste("black", (0, 0, 16, 16))
    turned = fit(saved(picture, "JPEG", exif=exif, quality=95), max_side=63)
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_colour_profile_is_kept(kind: str) -> None:
    data = saved(noise(), kind, icc_profile=PROFILE)
    assert fit(data, max_side=100).info["icc_profile"] == PROFILE
    assert fit(data, max_bytes=10_000).info["icc_profile"] == PROFILE


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_is_kept(mode: str) -> None:
    picture = noise("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size).point([0] * 128 + [255] * 128))
    source: Any = picture.convert(mode) if mode in ("RGBA", "LA") else saved(picture.quantize(64), "PNG")
    if mode == "PA":
        source = picture.convert("P")
        source.putalpha(picture.getchannel("A"))
        assert source.mode == "PA"
    for bounds in ({"max_side": 60}, {"max_bytes": 6000}):
        alpha = fit(source, **bounds).convert("RGBA").getchannel("A")
        assert alpha.getextrema() == (0, 255)


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (noise("CMYK"), "jpeg"),
        (noise("L"), "jpeg"),
        (noise("RGB"), "jpeg"),
        (noise("RGBA"), "webp"),
        (Image.new("I;16", (300, 300), 50_000), "png"),
        (Image.new("F", (300, 300), 50.0), "png"),
        (noise("LAB"), "jpeg"),
        (noise("1"), "png"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.mode,
)
def test_the_kind_is_what_the_picture_needs(picture: Image.Image, kind: str) -> None:
    data = asyncio.run(images.fit(picture, max_bytes=9000))
    assert detect_format(data) == kind


def test_sixteen_bits_become_eight_and_not_white() -> None:
    picture = Image.frombytes("I;16", (200, 200), os.urandom(80_000))
    fitted = fit(saved(picture, "PNG"), max_bytes=20_000)
    assert fitted.format == "JPEG"
    assert 60 < sum(i * n for i, n in enumerate(fitted.convert("L").histogram())) / (fitted.width * fitted.height) < 200


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green")]
    fitted = fit(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), max_side=20).convert("RGB")
    assert ImageChops.difference(fitted, Image.new("RGB", (20, 20), "red")).getextrema() == ((0, 0),) * 3


def test_it_works_off_the_loop() -> None:
    threads = []

    class Told(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            threads.append(threading.current_thread())
            return super().read(size)

    fit(Told(saved(noise(), "PNG")), max_side=50)
    assert threads
    assert threading.main_thread() not in threads


def test_an_async_reader_is_read_too() -> None:
    class Upload:
        def __init__(self) -> None:
            self.file = io.BytesIO(saved(noise(size=(700, 500)), "PNG"))

        async def read(self, size: int = -1) -> bytes:
            return self.file.read(size)

    assert fit(Upload(), max_side=50).size == (50, 36)


@pytest.mark.parametrize(
    ("source", "bounds", "words"),
    [
        (b"just words", {}, "that Pillow can open"),
        (saved(noise(), "PNG")[:3000], {"max_side": 10}, "that Pillow can open"),
        ("http://host/fox.jpg", {}, "fetched by the gateway"),
        ("no/such/file.jpg", {}, "must be readable"),
        (7, {}, "it must be a path"),
        (noise(), {"max_bytes": 20}, "no picture is so small"),
        (noise(), {"max_bytes": 0}, "integer of at least 1"),
        (noise(), {"max_side": True}, "integer of at least 1"),
        (noise(), {"max_side": 1.5}, "integer of at least 1"),
    ],
)
def test_what_cannot_be_made_to_fit_is_refused(source: Any, bounds: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        asyncio.run(images.fit(source, **bounds))


def test_a_picture_that_is_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InvalidRequest, match="that Pillow can open"):
        asyncio.run(images.fit(saved(Image.new("L", (50, 50)), "PNG"), max_side=10))


def test_without_pillow_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(ConfigurationError, match="needs Pillow"):
        asyncio.run(images.fit(b"GIF89a" + bytes(20)))

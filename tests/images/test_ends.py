"""The end of an image, found by its structure: with anything after it, and not in a truncated one."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, strategies as st
from PIL import Image, ImageCms

from kontext_async.images import WITHOUT_END, detect_any_format, find_end

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encode(image_format: str, mode: str = "RGB", **options: Any) -> bytes:
    image = Image.effect_noise((90, 70), 80).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def encode_animation(image_format: str) -> bytes:
    frames = [Image.effect_noise((40, 40), 80).convert("RGB") for _ in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


WHOLE = {
    "JPEG": encode("JPEG"),
    "JPEG, progressive": encode("JPEG", progressive=True),
    "JPEG, restart markers": encode("JPEG", restart_marker_blocks=1),
    "JPEG, gray": encode("JPEG", "L"),
    "JPEG, CMYK": encode("JPEG", "CMYK"),
    "JPEG, with a profile, a comment and a thumbnail": encode(
        "JPEG", icc_profile=PROFILE, comment=b"\xff\xd9" * 9000, exif=b"Exif\0\0" + encode("JPEG")
    ),
    "PNG": encode("PNG"),
    "PNG, palette": encode("PNG", "P"),
    "PNG, animated": encode_animation("PNG"),
    "GIF": encode("GIF"),
    "GIF, animated": encode_animation("GIF"),
    "WebP": encode("WEBP"),
    "WebP, lossless": encode("WEBP", lossless=True),
    "WebP, animated": encode_animation("WEBP"),
    "BMP": encode("BMP"),
    "JPEG 2000": encode("JPEG2000"),
    "AVIF": box(b"ftyp", b"mif1\0\0\0\0mif1avif") + box(b"meta", bytes(90)) + box(b"mdat", bytes(999)),
    "HEIC": box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(90)) + box(b"mdat", bytes(999)),
    "HEIC, long box": box(b"ftyp", b"heic\0\0\0\0mif1heic")
    + box(b"meta", bytes(90))
    + b"\0\0\0\1mdat"
    + (16 + 500).to_bytes(8, "big")
    + bytes(500),
}
TRAILERS = {"nothing": b"", "zeros": bytes(5000), "a footer": b"\xff\xd9\x3bIEND" * 700, "a line end": b"\r\n"}


def end_of(data: bytes) -> int | None:
    return find_end(str(detect_any_format(data[:64])), data)


@pytest.mark.parametrize("name", WHOLE)
def test_the_end_is_found_whatever_follows(name: str) -> None:
    data = WHOLE[name]
    for trailer in TRAILERS.values():
        assert end_of(data + trailer) == len(data), trailer[:10]


@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_image_has_no_end(name: str) -> None:
    data = WHOLE[name]
    for size in {*range(64, len(data), 97), len(data) - 1, len(data) - 2}:
        assert end_of(data[:size]) is None, size


@pytest.mark.parametrize("image_format", [*sorted(WITHOUT_END), "unknown"])
def test_a_format_whose_end_does_not_show_has_none(image_format: str) -> None:
    assert find_end(image_format, bytes(100)) is None


def test_a_box_that_reaches_to_the_end_of_the_file_ends_there() -> None:
    data = box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(90)) + b"\0\0\0\0mdat" + bytes(100)
    assert end_of(data) == len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0junk\0\0\0\0" * 400_000,
        b"\xff\xd8\xff" + b"\xe0\0\2\xff" * 400_000,
        b"GIF89a" + bytes(400_000),
        b"GIF89a" + bytes(7) + b"\x21\xff" + b"\1x" * 400_000,
        box(b"ftyp", b"heic") + box(b"free", b"") * 400_000,
    ],
    ids=["png", "jpeg", "gif", "blocks", "boxes"],
)
def test_the_search_is_bounded(data: bytes) -> None:
    assert end_of(data) is None


@given(
    st.sampled_from(["jpeg", "png", "gif", "webp", "avif", "heic", "jp2", "bmp"]),
    st.binary(max_size=400),
)
def test_no_bytes_raise_anything(image_format: str, data: bytes) -> None:
    end = find_end(image_format, data)
    assert end is None or 0 <= end <= len(data)


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 3000), st.binary(min_size=1, max_size=8))
def test_a_damaged_image_raises_nothing(name: str, at: int, damage: bytes) -> None:
    data = WHOLE[name]
    find_end(str(detect_any_format(data[:64])), data[:at] + damage + data[at + len(damage) :])

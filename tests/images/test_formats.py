"""The formats of input images: how they are detected, which are accepted, and why the others are refused."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageCms
from source_support import GIF, JPEG, NAME, PNG, WEBP

from kontext_async.errors import InvalidRequest
from kontext_async.images import (
    EXTENSIONS,
    MAX_IMAGE_BYTES,
    check,
    detect_any_format,
    detect_format,
    is_complete,
    load,
    seems_complete,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("data", "image_format"),
    [
        (JPEG, "jpeg"),
        (PNG, "png"),
        (GIF, "gif"),
        (b"GIF87a" + bytes(6), "gif"),
        (WEBP, "webp"),
        (b"", None),
        (b"\xff\xd8", None),
        (b"\x89PNG\r\n\x1a", None),
        (b"GIF88a", None),
        (b"RIFF\x10\x00\x00\x00WAVE", None),
        (b"RIFF\x10\x00\x00\x00WEB", None),
        (b"<html></html>", None),
        (b"\x00" * 12, None),
    ],
)
def test_detect_format_reads_the_signature(data: bytes, image_format: str | None) -> None:
    assert detect_format(data) == image_format
    assert detect_format(memoryview(data)) == image_format


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_file_written_by_pillow_is_detected_and_complete(image_format: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, image_format)
    data = buffer.getvalue()
    assert detect_format(data) == image_format.lower()
    assert is_complete(image_format.lower(), data[-4096:])


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF"])
def test_a_truncated_image_is_not_complete(image_format: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, image_format)
    data = buffer.getvalue()
    assert not is_complete(image_format.lower(), data[: len(data) // 2][-4096:])


def test_an_image_with_bytes_after_its_end_marker_is_complete() -> None:
    assert is_complete("jpeg", b"...\xff\xd9\x00\x00appended")


@pytest.mark.parametrize(
    ("head", "image_format"),
    [
        (JPEG, "jpeg"),
        (WEBP, "webp"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x1cftyphevc\0\0\0\0", "heic"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
        (b"BM\x36\x03\0\0\0\0\0\0\x36\0", "bmp"),
        (b"BMW is closed today", None),
        (b"BM", None),
        (b"II*\0\x08\0\0\0", "tiff"),
        (b"%PDF-1.7", None),
        (b"<html></html>", None),
        (b"", None),
    ],
)
def test_any_format_with_an_extension_is_detected(head: bytes, image_format: str | None) -> None:
    assert detect_any_format(head) == image_format
    assert image_format is None or EXTENSIONS[image_format]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF"])
def test_an_image_that_ends_with_its_marker_seems_complete(image_format: str) -> None:
    data = encode_gradient(image_format)
    assert seems_complete(image_format.lower(), data[-4096:])
    assert not seems_complete(image_format.lower(), data[-4096:-1])
    assert not seems_complete("webp", data[-4096:])


def test_a_format_without_an_end_marker_counts_as_complete() -> None:
    assert is_complete("webp", b"anything")


def encode_gradient(image_format: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


def encode_animation(image_format: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


def encode_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode_gradient("JPEG", exif=exif)


def encode_sixteen_bit() -> bytes:
    buffer = io.BytesIO()
    Image.new("I;16", (20, 20), 40_000).save(buffer, "PNG")
    return buffer.getvalue()


def zip_image() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("fox.jpg", encode_gradient("JPEG"))
    return buffer.getvalue()


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WHOLE_JPEG = encode_gradient("JPEG")
FIRST_SEGMENT = WHOLE_JPEG[: WHOLE_JPEG.index(b"\xff\xdb")]

ACCEPTED: dict[str, tuple[bytes, str]] = {
    "JPEG": (WHOLE_JPEG, "jpeg"),
    "JPEG, progressive": (encode_gradient("JPEG", progressive=True), "jpeg"),
    "JPEG, CMYK": (encode_gradient("JPEG", "CMYK"), "jpeg"),
    "JPEG, gray": (encode_gradient("JPEG", "L"), "jpeg"),
    "JPEG, rotated by its EXIF": (encode_rotated(), "jpeg"),
    "JPEG, with a color profile and a comment": (
        encode_gradient("JPEG", icc_profile=PROFILE, comment=b"fox" * 20_000),
        "jpeg",
    ),
    "JPEG, cut after its header": (encode_gradient("JPEG", size=(400, 400))[:-200], "jpeg"),
    "JPEG, one pixel": (encode_gradient("JPEG", size=(1, 1)), "jpeg"),
    "JPEG, fill bytes before a marker": (WHOLE_JPEG[:2] + b"\xff" * 9 + WHOLE_JPEG[2:], "jpeg"),
    "PNG": (encode_gradient("PNG"), "png"),
    "PNG, 16 bits": (encode_sixteen_bit(), "png"),
    "PNG, palette": (encode_gradient("PNG", "P"), "png"),
    "PNG, one bit": (encode_gradient("PNG", "1"), "png"),
    "PNG, transparent": (encode_gradient("PNG", "RGBA"), "png"),
    "PNG, animated": (encode_animation("PNG"), "png"),
    "GIF": (encode_gradient("GIF"), "gif"),
    "GIF, animated": (encode_animation("GIF"), "gif"),
    "WebP": (encode_gradient("WEBP"), "webp"),
    "WebP, lossless": (encode_gradient("WEBP", "RGBA", lossless=True), "webp"),
    "WebP, animated": (encode_animation("WEBP"), "webp"),
    "20 MiB exactly": (WHOLE_JPEG.ljust(MAX_IMAGE_BYTES, b"\0"), "jpeg"),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "one byte more": (WHOLE_JPEG.ljust(MAX_IMAGE_BYTES + 1, b"\0"), "at most 20971520 bytes"),
    "zero bytes": (b"", "must not be empty"),
    "text": (b"just a few words", "it must hold an image: JPEG, PNG, WebP or GIF"),
    "a zip renamed": (zip_image(), "this is a zip archive"),
    "a BMP": (encode_gradient("BMP"), "this is a BMP"),
    "a TIFF": (encode_gradient("TIFF"), "this is a TIFF"),
    "an AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0", "this is an AVIF"),
    "a HEIC": (b"\0\0\0\x1cftypheic\0\0\0\0", "this is a HEIC"),
    "a PDF": (b"%PDF-1.7\n%....", "this is a PDF"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "this is an SVG"),
    "a page": (b"<!DOCTYPE html><html></html>", "this is a page of HTML"),
    "RIFF, but audio": (b"RIFF\x10\0\0\0WAVEfmt ", "it must hold an image"),
    "two bytes of a JPEG": (WHOLE_JPEG[:2], "an image, cut in its header"),
    "three bytes of a JPEG": (WHOLE_JPEG[:3], "a JPEG, cut in its header"),
    "a JPEG, cut between segments": (FIRST_SEGMENT, "a JPEG, cut in its header"),
    "a JPEG, cut in a segment": (FIRST_SEGMENT[:-4], "a JPEG, cut in its header"),
    "a JPEG, cut in its frame": (WHOLE_JPEG[: WHOLE_JPEG.index(b"\xff\xc0") + 6], "a JPEG, cut in its header"),
    "a PNG, cut in its header": (encode_gradient("PNG")[:20], "a PNG, cut in its header"),
    "a GIF, cut in its header": (encode_gradient("GIF")[:10], "a GIF, cut in its header"),
    "a WebP, cut in its header": (encode_gradient("WEBP")[:20], "a WebP, cut in its header"),
}


def write_file(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


MAKE_SOURCE: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda data, _: data,
    "a file": write_file,
    "an open file": lambda data, _: io.BufferedReader(io.BytesIO(data)),
}


@pytest.mark.parametrize("source_type", MAKE_SOURCE)
@pytest.mark.parametrize("name", ACCEPTED)
def test_an_image_in_an_accepted_format_is_loaded_unchanged(name: str, source_type: str, tmp_path: Path) -> None:
    data, image_format = ACCEPTED[name]
    source = MAKE_SOURCE[source_type](data, tmp_path / "wrong.extension.txt")
    check(source, NAME)
    with closing(load(source, NAME)) as image:
        assert image.size == len(data)
        assert image.read() == data
    assert detect_format(data) == image_format


@pytest.mark.parametrize("source_type", MAKE_SOURCE)
@pytest.mark.parametrize("name", REFUSED)
def test_any_other_content_is_refused_with_the_reason(name: str, source_type: str, tmp_path: Path) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(InvalidRequest) as caught:
        load(MAKE_SOURCE[source_type](data, tmp_path / "fox.jpg"), NAME)
    assert reason in caught.value.rule
    assert caught.value.field == NAME
    assert not caught.value.may_be_charged
    assert len(json.dumps(str(caught.value))) < 500


def test_the_search_for_a_jpeg_frame_stops_after_1000_segments() -> None:
    with closing(load(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000, NAME)) as image:
        assert image.size == 4_000_002


def test_the_search_for_a_jpeg_frame_skips_standalone_markers() -> None:
    with pytest.raises(InvalidRequest, match="cut in its header"):
        load(b"\xff\xd8\xff\xd0\xff\x01\xff\xd7", NAME)

"""A set of odd images: each is taken or refused from its own bytes, with words that say why."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageCms

from kontext_async.errors import InvalidRequest
from kontext_async.images import MAX_IMAGE_BYTES, check, detect_format, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "input_images[0]"


def made(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return made("JPEG", exif=exif)


def sixteen_bit() -> bytes:
    buffer = io.BytesIO()
    Image.new("I;16", (20, 20), 40_000).save(buffer, "PNG")
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("fox.jpg", made("JPEG"))
    return buffer.getvalue()


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WHOLE = made("JPEG")
FIRST_SEGMENT = WHOLE[: WHOLE.index(b"\xff\xdb")]

TAKEN: dict[str, tuple[bytes, str]] = {
    "JPEG": (WHOLE, "jpeg"),
    "JPEG, progressive": (made("JPEG", progressive=True), "jpeg"),
    "JPEG, CMYK": (made("JPEG", "CMYK"), "jpeg"),
    "JPEG, grey": (made("JPEG", "L"), "jpeg"),
    "JPEG, turned by its EXIF": (rotated(), "jpeg"),
    "JPEG, with a colour profile and a comment": (made("JPEG", icc_profile=PROFILE, comment=b"fox" * 20_000), "jpeg"),
    "JPEG, cut behind its header": (made("JPEG", size=(400, 400))[:-200], "jpeg"),
    "JPEG, one pixel": (made("JPEG", size=(1, 1)), "jpeg"),
    "JPEG, filled up before a marker": (WHOLE[:2] + b"\xff" * 9 + WHOLE[2:], "jpeg"),
    "PNG": (made("PNG"), "png"),
    "PNG, 16 bits": (sixteen_bit(), "png"),
    "PNG, palette": (made("PNG", "P"), "png"),
    "PNG, one bit": (made("PNG", "1"), "png"),
    "PNG, transparent": (made("PNG", "RGBA"), "png"),
    "PNG, animated": (animated("PNG"), "png"),
    "GIF": (made("GIF"), "gif"),
    "GIF, animated": (animated("GIF"), "gif"),
    "WebP": (made("WEBP"), "webp"),
    "WebP, lossless": (made("WEBP", "RGBA", lossless=True), "webp"),
    "WebP, animated": (animated("WEBP"), "webp"),
    "20 MiB exactly": (WHOLE.ljust(MAX_IMAGE_BYTES, b"\0"), "jpeg"),
}
REFUSED: dict[str, tuple[bytes, str]] = {
    "one byte more": (WHOLE.ljust(MAX_IMAGE_BYTES + 1, b"\0"), "at most 20971520 bytes"),
    "zero bytes": (b"", "must not be empty"),
    "text": (b"just a few words", "it must hold an image: JPEG, PNG, WebP or GIF"),
    "a zip renamed": (zipped(), "this is a zip archive"),
    "a BMP": (made("BMP"), "this is a BMP"),
    "a TIFF": (made("TIFF"), "this is a TIFF"),
    "an AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0", "this is an AVIF"),
    "a HEIC": (b"\0\0\0\x1cftypheic\0\0\0\0", "this is a HEIC"),
    "a PDF": (b"%PDF-1.7\n%....", "this is a PDF"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "this is an SVG"),
    "a page": (b"<!DOCTYPE html><html></html>", "this is a page of HTML"),
    "RIFF, but a sound": (b"RIFF\x10\0\0\0WAVEfmt ", "it must hold an image"),
    "two bytes of a JPEG": (WHOLE[:2], "an image, cut in its header"),
    "three bytes of a JPEG": (WHOLE[:3], "a JPEG, cut in its header"),
    "a JPEG, cut between segments": (FIRST_SEGMENT, "a JPEG, cut in its header"),
    "a JPEG, cut in a segment": (FIRST_SEGMENT[:-4], "a JPEG, cut in its header"),
    "a JPEG, cut in its frame": (WHOLE[: WHOLE.index(b"\xff\xc0") + 6], "a JPEG, cut in its header"),
    "a PNG, cut in its header": (made("PNG")[:20], "a PNG, cut in its header"),
    "a GIF, cut in its header": (made("GIF")[:10], "a GIF, cut in its header"),
    "a WebP, cut in its header": (made("WEBP")[:20], "a WebP, cut in its header"),
}


def in_file(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


WAYS: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda data, _: data,
    "a file": in_file,
    "an open file": lambda data, _: io.BufferedReader(io.BytesIO(data)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TAKEN)
def test_it_is_taken_as_it_is(name: str, way: str, tmp_path: Path) -> None:
    data, kind = TAKEN[name]
    source = WAYS[way](data, tmp_path / "wrong.extension.txt")
    check(source, NAME)
    with closing(load(source, NAME)) as image:
        assert image.size == len(data)
        assert image.read() == data
    assert detect_format(data) == kind


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_told_why(name: str, way: str, tmp_path: Path) -> None:
    data, words = REFUSED[name]
    with pytest.raises(InvalidRequest) as caught:
        load(WAYS[way](data, tmp_path / "fox.jpg"), NAME)
    assert words in caught.value.rule
    assert caught.value.field == NAME
    assert not caught.value.may_be_charged
    assert len(json.dumps(str(caught.value))) < 500


def test_a_header_of_endless_segments_is_not_gone_through() -> None:
    with closing(load(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000, NAME)) as image:
        assert image.size == 4_000_002


def test_markers_that_stand_alone_are_passed_over() -> None:
    with pytest.raises(InvalidRequest, match="cut in its header"):
        load(b"\xff\xd8\xff\xd0\xff\x01\xff\xd7", NAME)

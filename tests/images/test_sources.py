from __future__ import annotations

import array
import base64
import codecs
import ctypes
import hashlib
import io
import os
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, strategies as st
from PIL import Image

from kontext_async import images
from kontext_async.errors import InvalidRequest
from kontext_async.images import MAX_IMAGE_BYTES, LoadedImage, check, detect_format, is_complete

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(60))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)
GIF = b"GIF89a" + bytes(20)
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "
NAME = "input_images[2]"


def load(source: Any, name: str, limit: int = MAX_IMAGE_BYTES) -> LoadedImage:
    """What was loaded, read and closed again."""
    with closing(images.load(source, name, limit)) as image:
        return image if image.url else LoadedImage.of_bytes(image.read())


def refused_by_check(source: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check(source, NAME)
    assert caught.value.field == NAME
    return caught.value


def refused_by_load(source: Any, limit: int = MAX_IMAGE_BYTES) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        load(source, NAME, limit)
    assert caught.value.field == NAME
    assert len(str(caught.value)) < 1000
    return caught.value


@pytest.mark.parametrize(
    ("data", "kind"),
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
def test_the_kind_is_told_by_content(data: bytes, kind: str | None) -> None:
    assert detect_format(data) == kind
    assert detect_format(memoryview(data)) == kind


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "WEBP"])
def test_what_pillow_writes_is_known_and_whole(fmt: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, fmt)
    data = buffer.getvalue()
    assert detect_format(data) == fmt.lower()
    assert is_complete(fmt.lower(), data[-4096:])


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF"])
def test_what_was_cut_is_not_whole(fmt: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, fmt)
    data = buffer.getvalue()
    assert not is_complete(fmt.lower(), data[: len(data) // 2][-4096:])


def test_a_few_bytes_after_the_end_do_no_harm() -> None:
    assert is_complete("jpeg", b"...\xff\xd9\x00\x00appended")


def test_a_kind_without_an_end_marker_counts_as_whole() -> None:
    assert is_complete("webp", b"anything")


def data_uri(data: bytes = PNG) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


class FileOfMyOwn:
    """A binary file as the type asks for it, but with `read` alone."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = chunks

    def read(self, size: int = -1) -> Any:
        assert size > 0
        return self.chunks.pop(0) if self.chunks else b""

    def seekable(self) -> bool:
        return False


class Located:
    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path


@pytest.mark.parametrize(
    "source",
    [
        JPEG,
        bytearray(JPEG),
        memoryview(JPEG),
        memoryview(JPEG).cast("B", (8, 8)),
        memoryview(array.array("I", JPEG)),
        data_uri(JPEG),
        "DATA:;BASE64," + base64.b64encode(JPEG).decode(),
        "data:image/jpeg," + quote_from_bytes(JPEG),
        io.BytesIO(JPEG),
        io.BufferedReader(io.BytesIO(JPEG)),
    ],
)
def test_each_source_of_bytes_gives_the_same_image(source: Any) -> None:
    check(source, NAME)
    assert load(source, NAME) == LoadedImage.of_bytes(JPEG)


@pytest.mark.parametrize("wrap", [str, Path, Located])
def test_a_path_is_read(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "no.extension"
    path.write_bytes(PNG)
    check(wrap(str(path)), NAME)
    assert load(wrap(str(path)), NAME).read() == PNG


def test_a_url_is_left_to_the_gateway() -> None:
    url = "HTTPS://host/fox.jpg?signature=secret"
    check(url, NAME)
    loaded = load(url, NAME)
    assert loaded == LoadedImage(url=url, digest=hashlib.sha256(url.encode()).hexdigest())
    assert "secret" not in repr(loaded)


def test_a_loaded_image_does_not_show_its_bytes() -> None:
    assert "PNG" not in repr(load(PNG, NAME))


@pytest.mark.parametrize("source", ["http://", "https:///path", "https://ho st/a", "https://[::1", "https://host/a\nb"])
def test_a_url_without_a_host_is_refused(source: str) -> None:
    assert "host" in refused_by_check(source).rule


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("data:", "comma"),
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,", "must not be empty"),
        ("data:image/png;base64,A", "base64 is invalid"),
        ("data:image/png;base64,AA AA", "base64 is invalid"),
        ("data:image/png;base64,ää==", "base64 is invalid"),
        ("data:image/png;base64,\ud800", "must decode"),
        ("data:text/html;base64," + base64.b64encode(b"<html></html>").decode(), "it must hold an image"),
        ("data:,hello", "it must hold an image"),
    ],
)
def test_a_data_uri_must_hold_an_image(source: str, rule: str) -> None:
    assert rule in refused_by_check(source).rule


@pytest.mark.parametrize("source", [b"", bytearray(), memoryview(b"")])
def test_an_empty_image_is_refused(source: Any) -> None:
    assert refused_by_check(source).rule == "an image must not be empty"
    assert refused_by_load(source).rule == "an image must not be empty"


@pytest.mark.parametrize(
    "source",
    [
        b"<html></html>",
        bytearray(b"plain text, no image"),
        memoryview(JPEG)[::2],
        memoryview((ctypes.c_uint8 * 64).from_buffer_copy(JPEG))[::-1],
    ],
)
def test_bytes_that_are_no_image_are_refused(source: Any) -> None:
    assert "JPEG, PNG, WebP or GIF" in refused_by_check(source).rule


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_a_text_that_is_no_path_is_refused(source: str) -> None:
    assert "it must be a path" in refused_by_check(source).rule


def test_base64_without_its_prefix_is_told_from_a_path() -> None:
    error = refused_by_check(base64.b64encode(PNG * 200).decode())
    assert "data: URI" in error.rule
    assert "iVBOR" not in str(error)


@pytest.mark.parametrize("source", [7, None, object(), ["a"], 1.5, {"a": 1}])
def test_anything_else_is_refused(source: object) -> None:
    assert "it must be a path, bytes" in refused_by_check(source).rule


def test_a_file_in_text_mode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    with path.open() as file:
        assert "a binary file" in refused_by_check(file).rule
    assert "a binary file" in refused_by_check(io.StringIO("text")).rule


def test_a_file_that_gives_text_is_refused_when_it_is_read() -> None:
    source = codecs.getreader("ascii")(io.BytesIO(b"text"))
    check(source, NAME)
    assert "must give bytes, not str" in refused_by_load(source).rule


@pytest.mark.parametrize("nothing", [None, 7, "text"])
def test_a_file_that_gives_no_bytes_is_refused_when_it_is_read(nothing: object) -> None:
    refused_by_load(FileOfMyOwn([nothing]))


@pytest.mark.parametrize("position", [0, 3])
def test_a_file_is_read_from_where_it_stands_and_put_back(tmp_path: Path, position: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"xyz"[:position] + GIF)
    with path.open("rb") as file:
        file.seek(position)
        assert load(file, NAME).read() == GIF
        assert file.tell() == position
        assert load(file, NAME).read() == GIF


def test_a_file_is_put_back_even_when_it_is_too_large() -> None:
    file = io.BytesIO(GIF)
    file.seek(0)
    refused_by_load(file, 5)
    assert file.tell() == 0


def test_a_pipe_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as source, open(writer, "wb") as sink:  # noqa: PTH123 # descriptors
        sink.write(PNG)
        sink.close()
        assert load(source, NAME).read() == PNG


def test_a_file_that_gives_little_at_a_time_is_read_to_its_end() -> None:
    assert load(FileOfMyOwn([JPEG[:5], JPEG[5:6], JPEG[6:]]), NAME).read() == JPEG


def test_a_file_that_never_ends_is_read_to_the_limit_only() -> None:
    class Endless(FileOfMyOwn):
        def read(self, size: int = -1) -> bytes:
            return JPEG[: min(size, len(JPEG))]

    assert "at most 1000 bytes" in refused_by_load(Endless([]), 1000).rule


def test_a_spooled_file_is_a_file() -> None:
    with tempfile.SpooledTemporaryFile() as file:
        file.write(JPEG)
        file.seek(0)
        check(file, NAME)
        assert load(file, NAME).read() == JPEG


class Raising:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self, size: int = -1) -> NoReturn:
        raise self.error.with_traceback(None)

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize(
    "source",
    [
        "no/such/fox.jpg",
        ".",
        "x" * 4000,
        Located(b"bytes"),
        Located(7),
        Raising(OSError("unplugged")),
        Raising(RuntimeError("mine")),
        Raising(ValueError("I/O operation on closed file")),
    ],
)
def test_what_cannot_be_read_is_an_invalid_request(source: Any) -> None:
    assert "it must be readable" in refused_by_load(source).rule


def test_a_closed_file_is_an_invalid_request() -> None:
    file = io.BytesIO(JPEG)
    file.close()
    assert "closed" in refused_by_load(file).rule


def test_a_released_memoryview_is_an_invalid_request() -> None:
    view = memoryview(JPEG)
    check(view, NAME)
    view.release()
    assert "released" in str(refused_by_load(view))


def sources_of(data: bytes, path: Path) -> list[Any]:
    path.write_bytes(data)
    return [data, memoryview(data), path, io.BytesIO(data)]


def test_twenty_mebibytes_are_taken_and_one_byte_more_is_not(tmp_path: Path) -> None:
    largest = JPEG.ljust(MAX_IMAGE_BYTES, b"\0")
    assert MAX_IMAGE_BYTES == 20 * 1024 * 1024
    for source in sources_of(largest, tmp_path / "a"):
        check(source, NAME)
        assert len(load(source, NAME).read()) == MAX_IMAGE_BYTES
    for source in sources_of(largest + b"\0", tmp_path / "a"):
        assert refused_by_load(source).rule == f"an image may have at most {MAX_IMAGE_BYTES} bytes"
    assert "at most" in refused_by_check(largest + b"\0").rule


@given(st.integers(16, 200), st.integers(1, 200))
def test_a_smaller_limit_is_kept_exactly(size: int, limit: int) -> None:
    data = GIF.ljust(size, b"\0")[:size]
    for source in (data, io.BytesIO(data), data_uri(data)):
        if len(data) <= limit:
            assert load(source, NAME, limit).read() == data
        else:
            assert f"at most {limit} bytes" in refused_by_load(source, limit).rule


def test_a_refused_source_is_shown_as_it_was_passed(tmp_path: Path) -> None:
    path = tmp_path / "fox.jpg"
    path.write_bytes(b"<html></html>")
    assert "fox.jpg" in refused_by_load(path).value


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
    data = load(image, NAME).read()
    assert detect_format(data) == "png"
    with Image.open(io.BytesIO(data)) as read:
        assert read.size == (3, 2)


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "RGBa", "La"])
def test_a_pillow_image_keeps_its_transparency(mode: str) -> None:
    data = load(Image.new(mode, (3, 2)), NAME).read()
    with Image.open(io.BytesIO(data)) as read:
        assert read.convert("RGBA").getpixel((0, 0)) == (0, 0, 0, 0)


def test_a_pillow_image_without_pixels_is_an_invalid_request() -> None:
    assert "readable" in refused_by_load(Image.new("RGB", (0, 0))).rule


def test_a_cut_pillow_image_is_an_invalid_request() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    with Image.open(io.BytesIO(buffer.getvalue()[:800])) as image:
        assert "truncated" in refused_by_load(image).rule


def test_without_pillow_its_images_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (2, 2))
    monkeypatch.delitem(sys.modules, "PIL.Image")
    assert "it must be a path" in refused_by_check(image).rule

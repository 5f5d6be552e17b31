"""`images.load`: which sources it reads, how far, and which errors it raises."""

from __future__ import annotations

import array
import base64
import codecs
import hashlib
import io
import os
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, strategies as st
from source_support import (
    GIF,
    JPEG,
    NAME,
    PNG,
    ChunkReader,
    PathLikeOf,
    catch_check_error,
    catch_load_error,
    load_and_close,
    make_data_uri,
)

from kontext_async import InvalidRequest, images
from kontext_async.images import MAX_IMAGE_BYTES, LoadedImage, check
from kontext_async.images.spooling import SPOOL_AT


@pytest.mark.parametrize(
    "source",
    [
        JPEG,
        bytearray(JPEG),
        memoryview(JPEG),
        memoryview(JPEG).cast("B", (8, 8)),
        memoryview(array.array("I", JPEG)),
        make_data_uri(JPEG),
        "DATA:;BASE64," + base64.b64encode(JPEG).decode(),
        "data:image/jpeg," + quote_from_bytes(JPEG),
        io.BytesIO(JPEG),
        io.BufferedReader(io.BytesIO(JPEG)),
    ],
)
def test_all_sources_of_the_same_bytes_load_the_same_image(source: Any) -> None:
    check(source, NAME)
    assert load_and_close(source) == LoadedImage.of_bytes(JPEG)


@pytest.mark.parametrize("wrap", [str, Path, PathLikeOf])
def test_load_reads_a_path(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "no.extension"
    path.write_bytes(PNG)
    check(wrap(str(path)), NAME)
    assert load_and_close(wrap(str(path))).read() == PNG


def test_load_keeps_a_url_and_hides_its_query() -> None:
    url = "HTTPS://host/fox.jpg?signature=secret"
    check(url, NAME)
    loaded = load_and_close(url)
    assert loaded == LoadedImage(url=url, digest=hashlib.sha256(url.encode()).hexdigest())
    assert "secret" not in repr(loaded)


def test_the_repr_of_a_loaded_image_hides_its_bytes() -> None:
    assert "PNG" not in repr(load_and_close(PNG))


def test_load_refuses_a_reader_that_returns_text() -> None:
    source = codecs.getreader("ascii")(io.BytesIO(b"text"))
    check(source, NAME)
    assert "must return bytes, not str" in catch_load_error(source).rule


@pytest.mark.parametrize("nothing", [None, 7, "text"])
def test_load_refuses_a_reader_that_returns_no_bytes_object(nothing: object) -> None:
    catch_load_error(ChunkReader([nothing]))


@pytest.mark.parametrize("position", [0, 3])
def test_load_reads_a_file_from_its_position_and_restores_it(tmp_path: Path, position: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"xyz"[:position] + GIF)
    with path.open("rb") as file:
        file.seek(position)
        assert load_and_close(file).read() == GIF
        assert file.tell() == position
        assert load_and_close(file).read() == GIF


def test_load_restores_the_position_of_a_file_that_is_too_large() -> None:
    file = io.BytesIO(GIF)
    file.seek(0)
    catch_load_error(file, 5)
    assert file.tell() == 0


def test_load_reads_an_open_pipe_to_its_end() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as source, open(writer, "wb") as sink:  # noqa: PTH123 # descriptors
        sink.write(PNG)
        sink.close()
        assert load_and_close(source).read() == PNG


def test_load_reads_a_reader_with_small_chunks_to_its_end() -> None:
    assert load_and_close(ChunkReader([JPEG[:5], JPEG[5:6], JPEG[6:]])).read() == JPEG


def test_load_stops_reading_an_endless_reader_at_the_limit() -> None:
    class Endless(ChunkReader):
        def read(self, size: int = -1) -> bytes:
            return JPEG[: min(size, len(JPEG))]

    assert "at most 1000 bytes" in catch_load_error(Endless([]), 1000).rule


def test_load_reads_a_spooled_temporary_file() -> None:
    with tempfile.SpooledTemporaryFile() as file:
        file.write(JPEG)
        file.seek(0)
        check(file, NAME)
        assert load_and_close(file).read() == JPEG


class FailingReader:
    """A reader that raises an error."""

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
        PathLikeOf(b"bytes"),
        PathLikeOf(7),
        FailingReader(OSError("unplugged")),
        FailingReader(RuntimeError("broken")),
        FailingReader(ValueError("I/O operation on closed file")),
    ],
)
def test_load_refuses_an_unreadable_source(source: Any) -> None:
    assert "it must be readable" in catch_load_error(source).rule


def test_load_refuses_a_closed_file() -> None:
    file = io.BytesIO(JPEG)
    file.close()
    assert "closed" in catch_load_error(file).rule


def test_load_refuses_a_released_memoryview() -> None:
    view = memoryview(JPEG)
    check(view, NAME)
    view.release()
    assert "released" in str(catch_load_error(view))


def make_sources(data: bytes, path: Path) -> list[Any]:
    path.write_bytes(data)
    return [data, memoryview(data), path, io.BytesIO(data)]


def test_load_accepts_exactly_twenty_mebibytes(tmp_path: Path) -> None:
    largest = JPEG.ljust(MAX_IMAGE_BYTES, b"\0")
    assert MAX_IMAGE_BYTES == 20 * 1024 * 1024
    for source in make_sources(largest, tmp_path / "a"):
        check(source, NAME)
        assert len(load_and_close(source).read()) == MAX_IMAGE_BYTES
    for source in make_sources(largest + b"\0", tmp_path / "a"):
        assert catch_load_error(source).rule == f"an image may have at most {MAX_IMAGE_BYTES} bytes"
    assert "at most" in catch_check_error(largest + b"\0").rule


@given(st.integers(16, 200), st.integers(1, 200))
def test_load_enforces_a_smaller_limit_to_the_byte(size: int, limit: int) -> None:
    data = GIF.ljust(size, b"\0")[:size]
    for source in (data, io.BytesIO(data), make_data_uri(data)):
        if len(data) <= limit:
            assert load_and_close(source, limit).read() == data
        else:
            assert f"at most {limit} bytes" in catch_load_error(source, limit).rule


def test_the_error_of_load_shows_the_source_as_passed(tmp_path: Path) -> None:
    path = tmp_path / "fox.jpg"
    path.write_bytes(b"<html></html>")
    assert "fox.jpg" in catch_load_error(path).value


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("data", [GIF, GIF + bytes(SPOOL_AT)], ids=len)
def test_load_reads_the_path_of_a_pipe_once_and_keeps_the_bytes(pipe: Path, data: bytes) -> None:
    writer = threading.Thread(target=lambda: pipe.write_bytes(data))
    writer.start()
    with closing(images.load(pipe, NAME)) as image:
        assert image.on_disk is (len(data) > SPOOL_AT)
        assert image.read() == image.read() == data
    writer.join()


def test_load_refuses_a_pipe_with_too_many_bytes(pipe: Path) -> None:
    def write() -> None:
        with pytest.raises(BrokenPipeError):
            pipe.write_bytes(GIF + bytes(1_000_000))

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(InvalidRequest, match="at most 1000 bytes"):
        images.load(pipe, NAME, 1000)
    writer.join()


def test_load_refuses_an_async_reader() -> None:
    class Upload:
        async def read(self, size: int = -1) -> bytes:
            raise AssertionError(size)

    with pytest.raises(InvalidRequest, match="it must be awaited"):
        images.load(images.normalize(Upload()), NAME)

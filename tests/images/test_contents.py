"""Where the bytes of an image are: opened once, closed once, whoever is still reading."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from kontext_async import InvalidRequest, images
from kontext_async.engine.uploads import RequestImages
from kontext_async.images.contents import FileContent, LoadedImage, MemoryContent
from kontext_async.images.spooling import SPOOL_AT, Spool, TooLarge

if TYPE_CHECKING:
    from pathlib import Path

GIF = b"GIF89a" + bytes(20)
NAME = "input_images[0]"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("data", [GIF, GIF + bytes(SPOOL_AT)], ids=len)
def test_the_path_of_a_pipe_is_read_once_and_kept(pipe: Path, data: bytes) -> None:
    writer = threading.Thread(target=lambda: pipe.write_bytes(data))
    writer.start()
    with closing(images.load(pipe, NAME)) as image:
        assert image.on_disk is (len(data) > SPOOL_AT)
        assert image.read() == image.read() == data
    writer.join()


def test_a_pipe_that_gives_too_much_is_refused(pipe: Path) -> None:
    def write() -> None:
        with pytest.raises(BrokenPipeError):
            pipe.write_bytes(GIF + bytes(1_000_000))

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(InvalidRequest, match="at most 1000 bytes"):
        images.load(pipe, NAME, 1000)
    writer.join()


def test_an_async_reader_is_not_loaded_without_being_awaited() -> None:
    class Upload:
        async def read(self, size: int = -1) -> bytes:
            raise AssertionError(size)

    with pytest.raises(InvalidRequest, match="it must be awaited"):
        images.load(images.normalize(Upload()), NAME)


def test_a_file_that_is_closed_while_it_is_read_is_closed_by_its_reader(tmp_path: Path) -> None:
    reading, go = threading.Event(), threading.Event()

    class Slow:
        closed = False

        def seek(self, offset: int) -> None:
            assert offset == 0

        def read(self, length: int) -> bytes:
            reading.set()
            go.wait()
            assert not self.closed
            return bytes(length)

        def close(self) -> None:
            self.closed = True

    file: Any = Slow()
    content = FileContent(file, 10)
    reader = threading.Thread(target=content.read_at, args=(0, 10))
    reader.start()
    reading.wait()
    content.close()
    assert not file.closed
    go.set()
    reader.join()
    assert file.closed
    content.close()


def test_an_image_that_comes_too_late_is_closed() -> None:
    class Told(MemoryContent):
        closed: int = 0

        def close(self) -> None:
            self.closed += 1

    request_images = RequestImages()
    first, late = Told(GIF), Told(GIF)
    request_images.add(LoadedImage.of_content(first))
    request_images.acquire()
    request_images.release()
    before = first.closed
    request_images.release()
    assert (before, first.closed) == (0, 1)
    request_images.add(LoadedImage.of_content(late))
    assert late.closed == 1


def test_a_url_has_no_bytes() -> None:
    image = LoadedImage.of_url("http://host/fox.jpg?signature=secret")
    assert image.read() == b""
    assert image.size == 0
    assert not image.on_disk
    assert "secret" not in repr(image)
    image.close()


@pytest.mark.parametrize("size", [0, 1, SPOOL_AT, SPOOL_AT + 1, 3 * SPOOL_AT])
def test_a_spool_gives_back_what_it_took(size: int) -> None:
    data = os.urandom(size)
    spool = Spool(size)
    for start in range(0, size, 100_000):
        assert spool.room == size - start + 1
        spool.write(data[start : start + 100_000])
    content = spool.finish()
    spool.close()
    assert content.on_disk is (size > SPOOL_AT)
    assert b"".join(content.chunks(77_777)) == data
    with pytest.raises(TooLarge):
        Spool(size).write(data + b"x")
    content.close()


def test_nothing_of_a_source_is_copied() -> None:
    data = bytearray(GIF)
    content = MemoryContent(data)
    data[-1] = 7
    assert bytes(content.read_at(0, len(data))) == data
    assert not content.settled
    assert MemoryContent(GIF).settled
    content.close()
    data.clear()

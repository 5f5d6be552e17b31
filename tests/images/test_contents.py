"""The bytes of a loaded image: read without copies, and closed exactly once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from source_support import GIF

from kontext_async.engine.uploads import RequestImages
from kontext_async.images.contents import FileContent, LoadedImage, MemoryContent

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_closed_during_a_read_is_closed_by_the_reading_thread(tmp_path: Path) -> None:
    is_reading, may_continue = threading.Event(), threading.Event()

    class SlowFile:
        closed = False

        def seek(self, offset: int) -> None:
            assert offset == 0

        def read(self, length: int) -> bytes:
            is_reading.set()
            may_continue.wait()
            assert not self.closed
            return bytes(length)

        def close(self) -> None:
            self.closed = True

    file: Any = SlowFile()
    content = FileContent(file, 10)
    reader = threading.Thread(target=content.read_at, args=(0, 10))
    reader.start()
    is_reading.wait()
    content.close()
    assert not file.closed
    may_continue.set()
    reader.join()
    assert file.closed
    content.close()


def test_an_image_added_after_the_last_release_is_closed() -> None:
    class CloseCounter(MemoryContent):
        closed: int = 0

        def close(self) -> None:
            self.closed += 1

    request_images = RequestImages()
    first, late = CloseCounter(GIF), CloseCounter(GIF)
    request_images.add(LoadedImage.of_content(first))
    request_images.acquire()
    request_images.release()
    before = first.closed
    request_images.release()
    assert (before, first.closed) == (0, 1)
    request_images.add(LoadedImage.of_content(late))
    assert late.closed == 1


def test_the_image_of_a_url_has_no_bytes() -> None:
    image = LoadedImage.of_url("http://host/fox.jpg?signature=secret")
    assert image.read() == b""
    assert image.size == 0
    assert not image.on_disk
    assert "secret" not in repr(image)
    image.close()


def test_memory_content_does_not_copy_its_bytes() -> None:
    data = bytearray(GIF)
    content = MemoryContent(data)
    data[-1] = 7
    assert bytes(content.read_at(0, len(data))) == data
    assert not content.immutable
    assert MemoryContent(GIF).immutable
    content.close()
    data.clear()

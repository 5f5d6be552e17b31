"""Image sources for tests, and the errors that `images.check` and `images.load` raise for them."""

from __future__ import annotations

import base64
from contextlib import closing
from typing import Any

import pytest

from kontext_async import images
from kontext_async.errors import InvalidRequest
from kontext_async.images import MAX_IMAGE_BYTES, LoadedImage, check

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(60))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)
GIF = b"GIF89a" + bytes(20)
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 "
NAME = "input_images[2]"


def load_and_close(source: Any, limit: int = MAX_IMAGE_BYTES) -> LoadedImage:
    """Load a source, close it, and return the image as bytes in memory."""
    with closing(images.load(source, NAME, limit)) as image:
        return image if image.url else LoadedImage.of_bytes(image.read())


def catch_check_error(source: Any) -> InvalidRequest:
    """Return the error that `images.check` raises for a source."""
    with pytest.raises(InvalidRequest) as caught:
        check(source, NAME)
    assert caught.value.field == NAME
    return caught.value


def catch_load_error(source: Any, limit: int = MAX_IMAGE_BYTES) -> InvalidRequest:
    """Return the error that `images.load` raises for a source."""
    with pytest.raises(InvalidRequest) as caught:
        load_and_close(source, limit)
    assert caught.value.field == NAME
    assert len(str(caught.value)) < 1000
    return caught.value


def make_data_uri(data: bytes = PNG) -> str:
    """Return a data URI with base64."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


class PathLikeOf:
    """A path-like object; its path may be invalid."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        return self.path


class ChunkReader:
    """A binary file of the user's own class: it has nothing but `read` and returns one chunk at a time."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = chunks

    def read(self, size: int = -1) -> Any:
        """Return the next chunk; no bytes at the end."""
        assert size > 0
        return self.chunks.pop(0) if self.chunks else b""

    def seekable(self) -> bool:
        """Return False."""
        return False

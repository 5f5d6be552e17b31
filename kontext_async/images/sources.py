"""The types of an input image, and the checks that need no I/O.

Rules: PROTOCOL.md, "Create: the request" (an http(s) URL, or the bytes of an image of at most 20 MB, counted before
base64 against 20 x 1024 x 1024).
"""

from __future__ import annotations

import inspect
import io
import os
import sys
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, TypeGuard
from urllib.parse import urlsplit

from attrs import define, field

from kontext_async.base_errors import InvalidRequest
from kontext_async.images.data_uris import decode_payload, is_data_uri, parse_data_uri
from kontext_async.images.formats import (
    ACCEPTED_FORMATS,
    MAX_IMAGE_BYTES,
    SIGNATURE_LENGTH,
    describe_other_format,
    detect_format,
)
from kontext_async.redaction import safe_repr

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = [
    "AsyncReader",
    "ImageSource",
    "OneShotReader",
    "PartReader",
    "SupportsSave",
    "check",
    "check_head",
    "check_type",
    "is_async_reader",
    "is_pillow",
    "is_reader",
    "is_url",
    "normalize",
]

MAX_PATH_LENGTH = 4096
"""Linux's PATH_MAX. A longer text is not a path, but most likely base64 without its ``data:`` prefix."""

CHECKED_BYTES = 64 * 1024
"""Bytes of a data URI that are decoded when a request is created; the rest is decoded when it is submitted."""

READ_METHODS = ("read", "read_chunk")

SOURCES = "a path, bytes, a memoryview, a binary file, an async reader, an http(s) URL, a data URI or a Pillow image"


class SupportsSave(Protocol):
    """The method of ``PIL.Image.Image`` that this library needs."""

    def save(self, fp: IO[bytes], format: str | None = None, **params: Any) -> None:  # noqa: A002 # Pillow's name
        """Write the image to `fp`."""
        ...


class AsyncReader(Protocol):
    """A binary reader with an async ``read``: files of anyio, streams of aiohttp and asyncio, uploads of Starlette."""

    def read(self, size: int = -1, /) -> Awaitable[bytes]:
        """Read up to `size` bytes, and return no bytes at the end."""
        ...


class PartReader(Protocol):
    """A part of a multipart request, such as ``aiohttp.BodyPartReader``."""

    def read_chunk(self, size: int = 8192) -> Awaitable[bytes]:
        """Read up to `size` bytes, and return no bytes at the end."""
        ...


ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | AsyncReader | PartReader | SupportsSave
)
"""A path, bytes, a binary file, an async reader, an http(s) URL, a data URI or a Pillow image.

A string is a URL if it starts with ``http://`` or ``https://``, a data URI if it starts with ``data:``, and otherwise a
path. A binary file is read from its current position, which is restored afterwards if the file can seek. An async
reader is read once, when the request is submitted, so the request cannot be submitted again. Bytes are not copied: do
not change a ``bytearray`` before the request is accepted.
"""


@define(eq=False)
class OneShotReader:
    """An async reader in a request. It can be read only once.

    Attributes:
        reader: The user's reader.
        used: True once reading has begun.
    """

    reader: Any = field(repr=safe_repr)
    used: bool = field(default=False, init=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OneShotReader) and other.reader is self.reader

    def __hash__(self) -> int:
        return id(self.reader)


def normalize(source: Any) -> Any:
    """Return the source as a request stores it: an async reader wrapped in `OneShotReader`, any other one unchanged."""
    return OneShotReader(source) if is_async_reader(source) else source


def check(source: object, name: str) -> None:
    """Check that a source can be an input image, as far as this is known without I/O.

    Args:
        source: The user's source.
        name: The field name, for the error.

    Raises:
        InvalidRequest: It cannot. The error has `name`, the value and the rule.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        _check_bytes(source, name)
    elif isinstance(source, str) and is_data_uri(source):
        _check_data_uri(source, name)
    else:
        check_type(source, name)


def check_type(source: object, name: str) -> None:
    """Check only the type of a source, not its contents.

    Raises:
        InvalidRequest: As `check`.
    """
    if isinstance(source, str):
        _check_text(source, name)
    elif not (
        isinstance(source, bytes | bytearray | memoryview | os.PathLike | OneShotReader)
        or is_async_reader(source)
        or _is_binary_file(source)
        or is_pillow(source)
    ):
        raise InvalidRequest(name, source, f"it must be {SOURCES}")


def check_head(head: bytes | memoryview, size: int, name: str, limit: int, source: object) -> None:
    """Check the size and the format of an image.

    Args:
        head: The first 12 bytes.
        size: The size of the image, in bytes.
        name: The field name, for the error.
        limit: The largest allowed size, in bytes.
        source: The user's source, for the error.

    Raises:
        InvalidRequest: The image is empty, too large, or not in an accepted format.
    """
    if not size:
        raise InvalidRequest(name, source, "an image must not be empty")
    if size > limit:
        raise InvalidRequest(name, source, f"an image may have at most {limit} bytes")
    if detect_format(head) is None:
        actual = describe_other_format(head)
        note = f"; this is {actual}" if actual else ""
        raise InvalidRequest(name, source, f"it must hold an image: {ACCEPTED_FORMATS}{note}")


def is_url(text: object) -> TypeGuard[str]:
    """Return True for a URL. The gateway downloads the image itself."""
    return isinstance(text, str) and text[:8].lower().startswith(("http://", "https://"))


def is_reader(source: object) -> bool:
    """Return True for a source with a read method, synchronous or not. Such a source may be iterable too."""
    return isinstance(source, OneShotReader) or any(callable(getattr(source, name, None)) for name in READ_METHODS)


def is_async_reader(source: object) -> bool:
    """Return True for a source with an async read method."""
    return any(inspect.iscoroutinefunction(getattr(source, name, None)) for name in READ_METHODS)


def is_pillow(source: object) -> TypeGuard[SupportsSave]:
    """Return True for a Pillow image. If Pillow was never imported, there can be none."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(source, pillow.Image)


def _check_text(source: str, name: str) -> None:
    if is_url(source):
        if not _has_host(source):
            raise InvalidRequest(name, source, "a URL must name a host and hold no spaces")
    elif len(source) > MAX_PATH_LENGTH and not is_data_uri(source):
        raise InvalidRequest(name, f"{len(source)} characters", "it is too long for a path; base64 needs a data: URI")
    elif not source.strip() or "\0" in source:
        raise InvalidRequest(name, source, f"it must be {SOURCES}")


def _check_bytes(data: bytes | bytearray | memoryview, name: str) -> None:
    view = memoryview(data)
    head = view.cast("B")[:SIGNATURE_LENGTH] if view.c_contiguous and view.nbytes else b""
    check_head(head, view.nbytes, name, MAX_IMAGE_BYTES, data)


def _check_data_uri(source: str, name: str) -> None:
    """Check a small data URI in full, and of a large one the start and the size, so that the caller does not wait."""
    try:
        payload = parse_data_uri(source)
        if isinstance(payload, bytes) or payload.size <= CHECKED_BYTES:
            data = decode_payload(payload)
            head, size = data[:SIGNATURE_LENGTH], len(data)
        else:
            head, size = payload.read_at(0, CHECKED_BYTES)[:SIGNATURE_LENGTH], payload.size
    except ValueError as error:
        raise InvalidRequest(name, source, f"a data URI must decode: {error}") from None
    check_head(head, size, name, MAX_IMAGE_BYTES, source)


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False


def _is_binary_file(source: object) -> bool:
    return callable(getattr(source, "read", None)) and not isinstance(source, io.TextIOBase)

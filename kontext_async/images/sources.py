"""What may be passed as an input image, and what is refused without any I/O.

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
from kontext_async.images.data_uris import decoded, is_data_uri, payload_of
from kontext_async.images.formats import KINDS, MAX_IMAGE_BYTES, SIGNATURE, detect_format, named_kind
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
"""Linux's PATH_MAX. A longer text is no path, but most likely base64 without its ``data:`` prefix."""

CHECKED_AT_ONCE = 64 * 1024
"""Characters of a data URI that are decoded when a request is made; the rest is when it is submitted."""

READING = ("read", "read_chunk")

SOURCES = "a path, bytes, a memoryview, a binary file, an async reader, an http(s) URL, a data URI or a PIL image"


class SupportsSave(Protocol):
    """The part of ``PIL.Image.Image`` that is used here."""

    def save(self, fp: IO[bytes], format: str | None = None, **params: Any) -> None:  # noqa: A002 # Pillow's name
        """Write the image to `fp`."""
        ...


class AsyncReader(Protocol):
    """A binary reader that is awaited: ``anyio`` files, ``aiohttp`` and ``asyncio`` streams, Starlette's uploads."""

    def read(self, size: int = -1, /) -> Awaitable[bytes]:
        """Read up to `size` bytes; nothing at the end."""
        ...


class PartReader(Protocol):
    """A part of a multipart request, as ``aiohttp.web`` has it."""

    def read_chunk(self, size: int = 8192) -> Awaitable[bytes]:
        """Read up to `size` bytes; nothing at the end."""
        ...


ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | AsyncReader | PartReader | SupportsSave
)
"""A path, bytes, a binary file, an async reader, an http(s) URL, a data URI or a PIL image.

A string is a URL when it starts with ``http://`` or ``https://``, a data URI when it starts with ``data:``, and a
path otherwise. A binary file is read from where it stands, and put back there if it can seek. An async reader is read
once, when the request is submitted: the request cannot be submitted again. Bytes are not copied: do not change a
``bytearray`` before the request is accepted.
"""


@define(eq=False)
class OneShotReader:
    """An async reader in a request: what it gives, it gives once.

    Attributes:
        reader: What the user passed.
        used: Whether it was read already.
    """

    reader: Any = field(repr=safe_repr)
    used: bool = field(default=False, init=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OneShotReader) and other.reader is self.reader

    def __hash__(self) -> int:
        return id(self.reader)


def normalize(source: Any) -> Any:
    """What a request holds for a source: itself, but for an async reader, which can be used once."""
    return OneShotReader(source) if is_async_reader(source) else source


def check(source: object, name: str) -> None:
    """Refuse what cannot be an input image, as far as that is known without I/O.

    Args:
        source: What the user passed.
        name: The field's name, for the error.

    Raises:
        InvalidRequest: With `name`, the value and the rule.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        _check_bytes(source, name)
    elif isinstance(source, str) and is_data_uri(source):
        _check_data_uri(source, name)
    else:
        check_type(source, name)


def check_type(source: object, name: str) -> None:
    """Refuse what cannot be read as an image, whatever it holds.

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


def check_head(head: bytes | memoryview, size: int, name: str, limit: int, shown: object) -> None:
    """Refuse what is too small, too large, or no image of a kind that is taken.

    Args:
        head: The first 12 bytes.
        size: How many there are.
        name: The field's name, for the error.
        limit: How many there may be.
        shown: What the user passed, for the error.

    Raises:
        InvalidRequest: With `name`, `shown` and the rule.
    """
    if not size:
        raise InvalidRequest(name, shown, "an image must not be empty")
    if size > limit:
        raise InvalidRequest(name, shown, f"an image may have at most {limit} bytes")
    if detect_format(head) is None:
        actual = named_kind(head)
        raise InvalidRequest(name, shown, f"it must hold an image: {KINDS}" + (f"; this is {actual}" if actual else ""))


def is_url(text: object) -> TypeGuard[str]:
    """Whether a source is a URL, which the gateway fetches itself."""
    return isinstance(text, str) and text[:8].lower().startswith(("http://", "https://"))


def is_reader(source: object) -> bool:
    """Whether a source can be read, with or without being awaited: such a thing may also be iterable."""
    return isinstance(source, OneShotReader) or any(callable(getattr(source, name, None)) for name in READING)


def is_async_reader(source: object) -> bool:
    """Whether a source must be awaited to be read."""
    return any(inspect.iscoroutinefunction(getattr(source, name, None)) for name in READING)


def is_pillow(source: object) -> TypeGuard[SupportsSave]:
    """Whether a source is an image of Pillow's, which cannot be there without it."""
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
    head = view.cast("B")[:SIGNATURE] if view.c_contiguous and view.nbytes else b""
    check_head(head, view.nbytes, name, MAX_IMAGE_BYTES, data)


def _check_data_uri(source: str, name: str) -> None:
    """All of a small one; of a large one, its beginning and its size, so that nobody waits."""
    try:
        payload = payload_of(source)
        if isinstance(payload, bytes) or payload.size <= CHECKED_AT_ONCE:
            data = decoded(payload)
            head, size = data[:SIGNATURE], len(data)
        else:
            head, size = payload.read_at(0, CHECKED_AT_ONCE)[:SIGNATURE], payload.size
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

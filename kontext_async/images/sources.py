"""The types of an input image, and the checks that need no I/O.

Rules: PROTOCOL.md, "Create: the request" (an http(s) URL, or the bytes of an image of at most 20 MB, counted before
base64 against 20 x 1024 x 1024).
"""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections.abc import Mapping
from numbers import Number
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, TypeGuard

from attrs import define, field

from kontext_async.base_errors import InvalidRequest
from kontext_async.foreign_values import to_plain
from kontext_async.images.data_uris import data_uri_size, decode_start, is_data_uri
from kontext_async.images.formats import (
    ACCEPTED_FORMATS,
    MAX_IMAGE_BYTES,
    SIGNATURE_LENGTH,
    describe_other_format,
    detect_format,
)
from kontext_async.images.urls import has_scheme, is_file_url, is_url, parse_file_url, rule_against_url
from kontext_async.redaction import safe_repr, strip_query

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = [
    "AsyncReader",
    "ImageSource",
    "OneShotReader",
    "Openable",
    "PartReader",
    "SupportsSave",
    "SyncReader",
    "check",
    "check_head",
    "check_type",
    "is_async_reader",
    "is_openable",
    "is_path",
    "is_pillow",
    "is_reader",
    "is_single",
    "normalize",
    "refuse",
]

MAX_PATH_LENGTH = 4096
"""Linux's PATH_MAX. A longer text is not a path, but most likely base64 without its ``data:`` prefix."""

CHECKED_CHARACTERS = 84 * 1024
"""Characters of a data URI that are decoded when a request is created; the rest is decoded when it is submitted."""

READ_METHODS = ("read", "read_chunk")

NUMBER_KINDS = "biufc"
"""The kinds of NumPy's number types (https://numpy.org/doc/stable/reference/generated/numpy.dtype.kind.html)."""

SHOWN_MODULES = {"builtins", "_io", "posix"}
"""Modules whose classes have a repr that is safe to show."""

SOURCES = "a path, bytes, a memoryview, a binary file, an async reader, an http(s) URL, a data URI or a Pillow image"
ARRAY_RULE = (
    "an array must be passed as a Pillow image (PIL.Image.fromarray), or as the bytes of an encoded image (tobytes)"
)
TEXT_MODE_RULE = "it must be a binary file: open it with open(path, 'rb'), or pass the `buffer` of a text file"


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


class SyncReader(Protocol):
    """An object with a ``read`` and nothing else: responses of urllib and boto3, entries of archives."""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes, and return no bytes at the end."""
        ...


class Openable(Protocol):
    """An object that opens like a path: `zipfile.Path`, or a resource of `importlib.resources`."""

    def open(self, mode: Any = "r", /) -> IO[Any]:
        """Open the file."""
        ...

    def read_bytes(self) -> bytes:
        """Return the bytes of the file."""
        ...


ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | os.PathLike[bytes]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | SyncReader
    | AsyncReader
    | PartReader
    | Openable
    | SupportsSave
)
"""A path, bytes, a binary file, an async reader, an http(s) URL, a data URI or a Pillow image.

A string is a URL if it starts with ``http://`` or ``https://``, the URL of a file if it starts with ``file:/``, a data
URI if it starts with ``data:``, and otherwise a path, in which a leading ``~`` stands for the home directory. A binary
file is read from its current position, which is restored afterwards if the file can seek; at its end it is refused. An
object that cannot seek is read once, and an async reader too, when the request is submitted, so the request cannot be
submitted again. Bytes are not copied: do not change a ``bytearray`` before the request is accepted.
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
    rule = _rule_against_text(source) if isinstance(source, str) else _rule_against_type(source)
    if rule:
        raise refuse(name, source, rule)


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
        raise refuse(name, source, "an image must not be empty")
    if size > limit:
        raise refuse(name, source, f"an image may have at most {limit} bytes")
    if detect_format(head) is None:
        actual = describe_other_format(head)
        note = f"; this is {actual}" if actual else ""
        raise refuse(name, source, f"it must hold an image: {ACCEPTED_FORMATS}{note}")


def is_reader(source: object) -> bool:
    """Return True for a source with a read method, synchronous or not. Such a source may be iterable too."""
    return isinstance(source, OneShotReader) or any(callable(getattr(source, name, None)) for name in READ_METHODS)


def is_async_reader(source: object) -> bool:
    """Return True for a source with an async read method."""
    return any(inspect.iscoroutinefunction(getattr(source, name, None)) for name in READ_METHODS)


def is_openable(source: object) -> TypeGuard[Openable]:
    """Return True for an object that opens like a path but is none, such as `zipfile.Path`."""
    return not isinstance(source, os.PathLike) and all(
        callable(getattr(source, name, None)) for name in ("open", "read_bytes")
    )


def is_path(source: object) -> bool:
    """Return True for a source that names a file: a path-like object, or text that is a path or the URL of a file."""
    if isinstance(source, str):
        return (is_file_url(source) or not (is_data_uri(source) or has_scheme(source))) and not _rule_against_text(
            source
        )
    return isinstance(source, os.PathLike)


def is_single(value: object) -> bool:
    """Return True for a value that is one source, valid or not, although it may be iterable."""
    if isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | Mapping):
        return True
    return is_reader(value) or is_openable(value) or _is_array(value)


def is_pillow(source: object) -> TypeGuard[SupportsSave]:
    """Return True for a Pillow image. If Pillow was never imported, there can be none."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(source, pillow.Image)


def refuse(name: str, source: object, rule: str) -> InvalidRequest:
    """Return the error for a source. It shows no query of a URL: not even one in the repr of an object."""
    shown: object
    if isinstance(source, str):
        shown = _shown_text(source)
    elif type(source).__module__ in SHOWN_MODULES or isinstance(source, PurePath | Number):
        shown = source
    else:
        shown = _Named(type(source).__name__)
    return InvalidRequest(name, shown, rule)


@define
class _Named:
    """A stand-in for a value in an error, with its class only."""

    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"


def _shown_text(source: str) -> str:
    if is_data_uri(source):
        return source  # the error shows its size
    if has_scheme(source):
        return strip_query(source.strip())
    return source if len(source) <= MAX_PATH_LENGTH else f"{len(source)} characters"


def _rule_against_text(source: str) -> str | None:
    if is_data_uri(source):
        return None
    if is_url(source):
        return rule_against_url(source)
    if is_file_url(source):
        try:
            return _rule_against_path(parse_file_url(source))
        except ValueError as error:
            return str(error)
    if has_scheme(source):
        return "a URL must begin with http://, https:// or file://; download any other, and pass its bytes"
    return _rule_against_path(source) if source.strip() else f"it must be {SOURCES}"


def _rule_against_path(path: str) -> str | None:
    if len(path) > MAX_PATH_LENGTH:
        return "it is too long for a path; base64 needs a data: URI"
    return "a path must not contain NUL characters" if "\0" in path else None


def _rule_against_type(source: object) -> str | None:
    if isinstance(source, io.TextIOBase):
        return TEXT_MODE_RULE
    if isinstance(source, PurePath):
        return _rule_against_path(str(source))
    if isinstance(source, bytes | bytearray | memoryview | os.PathLike) or is_reader(source) or is_openable(source):
        return None
    if is_pillow(source):
        return None
    if to_plain(source) is None:
        return "a missing value is not an image; leave it out"
    return ARRAY_RULE if _is_array(source) else f"it must be {SOURCES}"


def _is_array(source: object) -> bool:
    """Return True for an array of numbers: of NumPy, of pandas, of PyTorch, or of the standard library."""
    if is_pillow(source):
        return False
    dimensions = getattr(source, "ndim", None)
    if isinstance(dimensions, int):
        kind = getattr(getattr(source, "dtype", None), "kind", None)
        is_numeric = kind in NUMBER_KINDS if isinstance(kind, str) else hasattr(source, "__dlpack__")
        return dimensions > 1 or (dimensions == 1 and is_numeric)
    try:
        return memoryview(source).ndim > 0  # type: ignore[arg-type] # a TypeError for most
    except (TypeError, ValueError, BufferError):
        return False


def _check_bytes(data: bytes | bytearray | memoryview, name: str) -> None:
    try:
        view = memoryview(data)
        head = view.cast("B")[:SIGNATURE_LENGTH] if view.c_contiguous and view.nbytes else b""
    except (TypeError, ValueError) as error:  # it was released, or its items are no numbers
        raise refuse(name, data, f"it must be readable: {error}") from error
    check_head(head, view.nbytes, name, MAX_IMAGE_BYTES, data)


def _check_data_uri(source: str, name: str) -> None:
    """Check a small data URI in full, and of a large one the start and the size, so that the caller does not wait."""
    try:
        head = decode_start(source, CHECKED_CHARACTERS)
        size = data_uri_size(source, MAX_IMAGE_BYTES) if head else 0
    except ValueError as error:
        raise refuse(name, source, f"a data URI must decode: {error}") from None
    check_head(head[:SIGNATURE_LENGTH], size, name, MAX_IMAGE_BYTES, source)

"""What may be passed as an input image: its bytes, its size and its kind, told by content and not by file name.

`check` looks at what is known without I/O, when a request is made. `load` reads the source and may block: the
engine runs it in a thread. Rules: PROTOCOL.md, "Create: the request" (an http(s) URL, or the bytes of an image of
at most 20 MB, counted before base64 against 20 x 1024 x 1024).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, TypeGuard, cast
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import field, frozen

from kontext_async.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

__all__ = ["MAX_IMAGE_BYTES", "ImageSource", "LoadedImage", "check", "is_whole", "kind_of", "load"]

MAX_IMAGE_BYTES = 20 * 1024 * 1024
"""The largest image that the gateway takes, in bytes before base64 (PROTOCOL.md)."""

KINDS = "JPEG, PNG, WebP or GIF"
SOURCES = "a path, bytes, a memoryview, a binary file, an http(s) URL, a data URI or a PIL image"


class SavesItself(Protocol):
    """The part of ``PIL.Image.Image`` that is used here."""

    def save(self, fp: IO[bytes], format: str | None = None, **params: Any) -> None:  # noqa: A002 # Pillow's name
        """Write the image to `fp`."""
        ...


ImageSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | SavesItself
"""A path, bytes, a binary file, an http(s) URL, a data URI or a PIL image.

A string is a URL when it starts with ``http://`` or ``https://``, a data URI when it starts with ``data:``, and a
path otherwise. A binary file is read from where it stands, and put back there if it can seek.
"""


@frozen(kw_only=True)
class LoadedImage:
    """An input image, ready to be sent: either a URL, or the bytes themselves.

    Attributes:
        url: Where the gateway shall fetch the image, None where the bytes are sent.
        data: The image's bytes, empty where a URL is sent.
        digest: The SHA-256 of the bytes or, for a URL, of its text, in hexadecimal.
    """

    url: str | None = None
    data: bytes = field(default=b"", repr=False)
    digest: str


def kind_of(head: bytes | memoryview) -> str | None:
    """The kind of an image by its first 12 bytes: ``jpeg``, ``png``, ``webp``, ``gif``, or None for anything else."""
    start = bytes(head[:12])
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    return None


def check(source: object, name: str) -> None:
    """Refuse what cannot be an input image, as far as that is known without I/O.

    Args:
        source: What the user passed.
        name: The field's name, for the error.

    Raises:
        InvalidRequest: With `name`, the value and the rule.
    """
    if isinstance(source, str):
        _check_text(source, name)
    elif isinstance(source, bytes | bytearray | memoryview):
        _check_bytes(source, name, MAX_IMAGE_BYTES)
    elif not (isinstance(source, os.PathLike) or _is_binary_file(source) or _is_pillow(source)):
        raise InvalidRequest(name, source, f"it must be {SOURCES}")


def load(source: ImageSource, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> LoadedImage:
    """Read a source and check its size and kind. Blocks: paths and files are read, PIL images are encoded as PNG.

    Args:
        source: What `check` has let through.
        name: The field's name, for the error.
        max_bytes: The largest size that is taken, in bytes.

    Raises:
        InvalidRequest: The source cannot be read, is too large, is empty, or is not an image of a known kind.
    """
    if isinstance(source, str) and _is_url(source):
        return LoadedImage(url=source, digest=hashlib.sha256(source.encode()).hexdigest())
    try:
        data = _reader(source)(max_bytes)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(name, source, f"it must be readable: {error}") from error
    _check_bytes(data, name, max_bytes, shown=source)
    return LoadedImage(data=data, digest=hashlib.sha256(data).hexdigest())


def _reader(source: ImageSource) -> Callable[[int], bytes]:
    """How to read `source`: a function of the size limit, which may return one byte more than that."""
    if isinstance(source, str) and _is_data_uri(source):
        return lambda _limit: _decode_data_uri(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return lambda _limit: bytes(source)
    if isinstance(source, str | os.PathLike):
        return lambda limit: _read_path(Path(source), limit)
    if _is_pillow(source):
        return lambda _limit: _encode_pillow(source)
    return lambda limit: _read_file(cast("BinaryIO", source), limit)


def _read_path(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)


def _read_file(file: BinaryIO, limit: int) -> bytes:
    if not file.seekable():
        return file.read(limit + 1)
    start = file.tell()
    try:
        return file.read(limit + 1)
    finally:
        file.seek(start)


def _encode_pillow(image: SavesItself) -> bytes:
    drawable = cast("Image.Image", image)
    if drawable.mode not in {"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"}:
        drawable = drawable.convert("RGB")
    buffer = io.BytesIO()
    drawable.save(buffer, "PNG")
    return buffer.getvalue()


def _check_text(source: str, name: str) -> None:
    if _is_url(source):
        if not _has_host(source):
            raise InvalidRequest(name, source, "a URL must name a host and hold no spaces")
    elif _is_data_uri(source):
        try:
            data = _decode_data_uri(source)
        except ValueError as error:
            raise InvalidRequest(name, source, f"a data URI must decode: {error}") from None
        _check_bytes(data, name, MAX_IMAGE_BYTES)
    elif not source.strip() or "\0" in source:
        raise InvalidRequest(name, source, f"it must be {SOURCES}")


def _check_bytes(data: bytes | bytearray | memoryview, name: str, limit: int, shown: object = None) -> None:
    view = memoryview(data)
    value = data if shown is None else shown
    if not view.nbytes:
        raise InvalidRequest(name, value, "an image must not be empty")
    if view.nbytes > limit:
        raise InvalidRequest(name, value, f"an image may have at most {limit} bytes")
    if not view.contiguous or kind_of(view.cast("B")[:12]) is None:
        raise InvalidRequest(name, value, f"it must hold an image: {KINDS}")


def _is_url(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname) and url.isprintable() and " " not in url
    except ValueError:
        return False


def _is_data_uri(text: str) -> bool:
    return text[:5].lower() == "data:"


def _decode_data_uri(uri: str) -> bytes:
    head, comma, payload = uri[5:].partition(",")
    if not comma:
        raise ValueError("it has no comma")
    raw = unquote_to_bytes(payload)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is invalid: {error}") from None


def _is_binary_file(source: object) -> bool:
    return callable(getattr(source, "read", None)) and not isinstance(source, io.TextIOBase)


def _is_pillow(source: object) -> TypeGuard[SavesItself]:
    pillow = sys.modules.get("PIL.Image")  # an image of Pillow's cannot be there without it
    return pillow is not None and isinstance(source, pillow.Image)


def is_whole(kind: str, tail: bytes) -> bool:
    """Whether an image has its end: a cut JPEG, PNG or GIF has no end marker.

    Args:
        kind: What `kind_of` says.
        tail: The last 4 KiB; some writers append a few bytes of their own after the marker.
    """
    marker = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82", "gif": b"\x3b"}.get(kind, b"")
    return marker in tail

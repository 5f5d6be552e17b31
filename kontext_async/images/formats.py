"""The kind of an image, and whether it has its header and its end: told by content and not by file name. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "KINDS",
    "KIND_NAMES",
    "MAX_IMAGE_BYTES",
    "SIGNATURE",
    "detect_format",
    "has_header",
    "is_complete",
    "named_kind",
]

MAX_IMAGE_BYTES = 20 * 1024 * 1024
"""The largest image that the gateway takes, in bytes before base64 (PROTOCOL.md)."""

KINDS = "JPEG, PNG, WebP or GIF"
KIND_NAMES = {"jpeg": "a JPEG", "png": "a PNG", "webp": "a WebP", "gif": "a GIF"}

SIGNATURE = 12
"""Bytes that tell the kind."""

HEADERS = {"png": 33, "gif": 13, "webp": 30}
"""Bytes of a header of fixed length: signature and IHDR; screen descriptor; RIFF and the sizes in its first chunk."""

OTHERS = (
    ("a BMP", 0, b"BM"),
    ("a TIFF", 0, b"II*\0"),
    ("a TIFF", 0, b"MM\0*"),
    ("an AVIF", 4, b"ftypavi"),
    ("a HEIC", 4, b"ftyphei"),
    ("a HEIC", 4, b"ftypmif"),
    ("a JPEG XL", 0, b"\xff\x0a"),
    ("a JPEG XL", 4, b"JXL \r\n"),
    ("a JPEG 2000", 4, b"jP  \r\n"),
    ("a Photoshop file", 0, b"8BPS"),
    ("an icon", 0, b"\0\0\1\0"),
    ("a PDF", 0, b"%PDF-"),
    ("a zip archive", 0, b"PK\3\4"),
    ("a gzip file", 0, b"\x1f\x8b"),
    ("an SVG", 0, b"<svg"),
    ("a page of HTML", 0, b"<html"),
    ("a page of HTML", 0, b"<!doctype h"),
)
"""What is passed by mistake, and its first bytes (https://en.wikipedia.org/wiki/List_of_file_signatures)."""

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF")

START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
MAX_SEGMENTS = 1000
"""Segments before a JPEG's frame that are looked at; a colour profile has 255 at most."""


def detect_format(head: bytes | memoryview) -> str | None:
    """The kind of an image by its first 12 bytes: ``jpeg``, ``png``, ``webp``, ``gif``, or None for anything else."""
    start = bytes(head[:SIGNATURE])
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    return None


def named_kind(head: bytes | memoryview) -> str | None:
    """What something is that is no image that is taken, in words for a message; None where that is not known."""
    start = bytes(head[:SIGNATURE])
    for name, offset, magic in OTHERS:
        if start[offset:].lower().startswith(magic.lower()):
            return name
    if start and len(start) < SIGNATURE and any(signature.startswith(start) for signature in SIGNATURES):
        return "an image, cut in its header"
    return None


def has_header(kind: str, size: int, read_at: Callable[[int, int], bytes | memoryview]) -> bool:
    """Whether an image goes at least to the end of its header, which tells width and height.

    Args:
        kind: What `detect_format` says.
        size: The size of the whole, in bytes.
        read_at: Gives so many bytes at an offset.
    """
    if kind == "jpeg":
        return _has_frame(size, read_at)
    return size >= HEADERS[kind]


def _has_frame(size: int, read_at: Callable[[int, int], bytes | memoryview]) -> bool:
    """Go from segment to segment, to the start of the frame (ITU-T T.81, annex B). What is no segment is not judged."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > size:
            return False
        filler, marker, high, low = bytes(read_at(at, 4))
        if filler != 0xFF:  # noqa: PLR2004 # the byte that begins a marker
            return True
        if marker == 0xFF:  # noqa: PLR2004 # any number of them may stand before a marker
            at += 1
            continue
        if marker in STANDALONE:
            at += 2
            continue
        length = high * 256 + low
        if marker in START_OF_FRAME:
            return at + 2 + length <= size
        if marker == 0 or length < 2:  # noqa: PLR2004 # the length counts its own two bytes
            return True
        at += 2 + length
    return True


def is_complete(kind: str, tail: bytes) -> bool:
    """Whether an image has its end: a cut JPEG, PNG or GIF has no end marker.

    Args:
        kind: What `detect_format` says.
        tail: The last 4 KiB; some writers append a few bytes of their own after the marker.
    """
    marker = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82", "gif": b"\x3b"}.get(kind, b"")
    return marker in tail

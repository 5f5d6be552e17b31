"""The format of an image, its extension, and checks for its header and its end, all from its bytes. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ACCEPTED_FORMATS",
    "EXTENSIONS",
    "FORMAT_NAMES",
    "MAX_IMAGE_BYTES",
    "SIGNATURE_LENGTH",
    "describe_other_format",
    "detect_any_format",
    "detect_format",
    "has_header",
    "is_complete",
    "seems_complete",
]

MAX_IMAGE_BYTES = 20 * 1024 * 1024
"""The largest input image, in bytes before base64 (PROTOCOL.md, "Create: the request")."""

ACCEPTED_FORMATS = "JPEG, PNG, WebP or GIF"
FORMAT_NAMES = {
    "jpeg": "a JPEG",
    "png": "a PNG",
    "webp": "a WebP",
    "gif": "a GIF",
    "avif": "an AVIF",
    "heic": "a HEIC",
    "jxl": "a JPEG XL",
    "jp2": "a JPEG 2000",
    "bmp": "a BMP",
    "tiff": "a TIFF",
}

SIGNATURE_LENGTH = 12
"""Bytes from the start of an image that identify its format."""

EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg"),
    "png": (".png",),
    "webp": (".webp",),
    "gif": (".gif",),
    "avif": (".avif",),
    "heic": (".heic", ".heif"),
    "jxl": (".jxl",),
    "jp2": (".jp2",),
    "bmp": (".bmp",),
    "tiff": (".tiff", ".tif"),
}
"""The extensions of each format; the first is the usual one."""

OTHER_IMAGES = {FORMAT_NAMES[each]: each for each in ("avif", "heic", "jxl", "jp2", "bmp", "tiff")}
"""The formats that the gateway does not accept, but that a server may send."""

END_MARKERS = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82", "gif": b"\0\x3b"}
"""The last bytes of an image: EOI, the chunk IEND, and the trailer after the terminator of the last block."""

HEADER_LENGTHS = {"png": 33, "gif": 13, "webp": 30}
"""Bytes of a header of fixed length: signature and IHDR; screen descriptor; RIFF and the sizes in its first chunk."""

OTHER_SIGNATURES = (
    ("a BMP", 0, b"BM"),
    ("a TIFF", 0, b"II*\0"),
    ("a TIFF", 0, b"MM\0*"),
    ("an AVIF", 4, b"ftypavi"),
    ("a HEIC", 4, b"ftyphei"),
    ("a HEIC", 4, b"ftyphev"),
    ("a HEIC", 4, b"ftypmif"),
    ("a HEIC", 4, b"ftypmsf"),
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
"""Formats that users pass by mistake: name, offset and bytes of the signature
(https://en.wikipedia.org/wiki/List_of_file_signatures)."""

SIGNATURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF")

START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
MAX_SEGMENTS = 1000
"""The most segments of a JPEG to read in search of its frame. A color profile has at most 255."""


def detect_format(head: bytes | memoryview) -> str | None:
    """Detect the format from the first 12 bytes: ``jpeg``, ``png``, ``webp``, ``gif``; None for anything else."""
    start = bytes(head[:SIGNATURE_LENGTH])
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    return None


def detect_any_format(head: bytes) -> str | None:
    """Detect the format of any image that has an extension in `EXTENSIONS`; None for anything else.

    Args:
        head: The first bytes. The first 12 identify most formats; the rest may distinguish an AVIF from a HEIC.
    """
    known = detect_format(head)
    if known:
        return known
    other = OTHER_IMAGES.get(describe_other_format(head) or "")
    if other == "heic" and b"avif" in head[8:]:  # a generic major brand; the specific one is among the compatible
        return "avif"
    return other


def describe_other_format(head: bytes | memoryview) -> str | None:
    """Name a format that is not accepted, for an error message; None if it is unknown."""
    start = bytes(head[:SIGNATURE_LENGTH])
    for name, offset, magic in OTHER_SIGNATURES:
        if start[offset:].lower().startswith(magic.lower()) and not _is_text(start, magic):
            return name
    if start and len(start) < SIGNATURE_LENGTH and any(signature.startswith(start) for signature in SIGNATURE_STARTS):
        return "an image, cut in its header"
    return None


def _is_text(start: bytes, magic: bytes) -> bool:
    """Return True for a text that begins with BM: in a BMP, reserved bytes are zero."""
    return magic == b"BM" and start[6:10] != bytes(4)


def has_header(image_format: str, size: int, read_at: Callable[[int, int], bytes | memoryview]) -> bool:
    """Return True if an image contains its whole header, which has its width and height.

    Args:
        image_format: The format that `detect_format` returned.
        size: The size of the image, in bytes.
        read_at: Returns bytes, given an offset and a length.
    """
    if image_format == "jpeg":
        return _has_frame(size, read_at)
    return size >= HEADER_LENGTHS[image_format]


def _has_frame(size: int, read_at: Callable[[int, int], bytes | memoryview]) -> bool:
    """Read segment after segment up to the start of the frame (ITU-T T.81, annex B).

    Return True for data that is not a segment: only a header that was cut off is refused.
    """
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > size:
            return False
        filler, marker, high, low = bytes(read_at(at, 4))
        if filler != 0xFF:  # noqa: PLR2004 # the first byte of a marker
            return True
        if marker == 0xFF:  # noqa: PLR2004 # any number of fill bytes may precede a marker
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


def is_complete(image_format: str, tail: bytes) -> bool:
    """Return True if an image has its end: a truncated JPEG, PNG or GIF has no end marker.

    Args:
        image_format: The format that `detect_any_format` returned.
        tail: The last 4 KiB; some programs append a few bytes of their own after the marker.
    """
    return END_MARKERS.get(image_format, b"") in tail


def seems_complete(image_format: str, tail: bytes) -> bool:
    """Return True if the last bytes of an image are the end marker of its format. Few truncated images do that."""
    return image_format in END_MARKERS and tail.endswith(END_MARKERS[image_format])

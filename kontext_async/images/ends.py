"""Finds the end of an image by its structure, so that a truncated image is recognized, whatever follows. No I/O.

An end marker alone proves little: the bytes of a JPEG's end stand in its thumbnail too, and a GIF's is a semicolon.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["WITHOUT_END", "find_end"]

WITHOUT_END = frozenset({"tiff", "jxl"})
"""Formats whose end does not show: the parts of a TIFF may stand in any order, and a JPEG XL is a bare stream."""

MAX_PARTS = 300_000
"""The most chunks, segments or blocks to read: those of a GIF of 64 MiB, which has 255 bytes in each."""

JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A marker that has a segment, or ends the image: none of TEM, RST0 to RST7 and SOI (ITU-T T.81, table B.1)."""
JPEG_END = 0xD9

GIF_HEADER = 13
GIF_EXTENSION, GIF_IMAGE, GIF_TRAILER = 0x21, 0x2C, 0x3B
GIF_DESCRIPTOR = 10
GIF_TABLE_FOLLOWS = 0x80

BOX_WITH_IMAGE = frozenset({b"mdat", b"idat", b"jp2c"})
BOX_WITH_HEADER = frozenset({b"meta", b"moov", b"jp2h"})
BOX_HEADER, LONG_BOX_HEADER = 8, 16


def find_end(image_format: str, data: bytes) -> int | None:
    """Return the offset of the first byte after an image; None if it is truncated, or its end does not show.

    Args:
        image_format: The format that `detect_any_format` returned.
        data: The image, and whatever follows it.
    """
    find = FINDERS.get(image_format)
    end = find(data) if find else None
    return end if end is not None and end <= len(data) else None


def _end_of_png(data: bytes) -> int | None:
    """Read chunk after chunk (https://www.w3.org/TR/png-3/#5Chunk-layout)."""
    at = 8
    for _ in range(MAX_PARTS):
        if at + 12 > len(data):
            return None
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IEND":
            return end
        at = end
    return None


def _end_of_jpeg(data: bytes) -> int | None:
    """Read segment after segment; in a scan, a byte 0xFF is followed by 0 unless it begins a marker."""
    at = 2
    for _ in range(MAX_PARTS):
        found = JPEG_MARKER.search(data, at)
        if found is None:
            return None
        at = found.end()
        if data[at - 1] == JPEG_END:
            return at
        at += int.from_bytes(data[at : at + 2], "big")
    return None


def _end_of_gif(data: bytes) -> int | None:
    """Read block after block (GIF89a specification, appendix B)."""
    at: int | None = GIF_HEADER + _color_table(data, 10)
    parts = iter(range(MAX_PARTS))
    for _ in parts:
        if at is None or at >= len(data):
            return None
        kind = data[at]
        if kind == GIF_TRAILER:
            return at + 1
        if kind == GIF_EXTENSION:
            at = _end_of_blocks(data, at + 2, parts)
        elif kind == GIF_IMAGE:
            at = _end_of_blocks(data, at + GIF_DESCRIPTOR + _color_table(data, at + 9) + 1, parts)
        else:  # a stray terminator of blocks; anything else is no GIF
            at = at + 1 if kind == 0 else None
    return None


def _color_table(data: bytes, flags_at: int) -> int:
    """Return the size of the color table that the flags announce."""
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & GIF_TABLE_FOLLOWS else 0


def _end_of_blocks(data: bytes, at: int, parts: Iterator[int]) -> int | None:
    for _ in parts:
        if at >= len(data):
            return None
        length = data[at]
        at += 1 + length
        if length == 0:
            return at
    return None


def _end_of_webp(data: bytes) -> int:
    """Read the size in the RIFF header."""
    return int.from_bytes(data[4:8], "little") + 8


def _end_of_boxes(data: bytes) -> int | None:
    """Read box after box (ISO/IEC 14496-12, section 4.2), up to the first place behind a header and image data."""
    at = 0
    seen: set[bytes] = set()
    for _ in range(MAX_PARTS):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = max(int.from_bytes(data[at + BOX_HEADER : at + LONG_BOX_HEADER], "big"), LONG_BOX_HEADER)
        elif size == 0:  # up to the end of the file
            size = len(data) - at
        if size < BOX_HEADER:
            return None
        seen.add(data[at + 4 : at + BOX_HEADER])
        at += size
        if at > len(data):
            return None
        if seen & BOX_WITH_IMAGE and seen & BOX_WITH_HEADER:
            return at
    return None


def _end_of_bmp(data: bytes) -> int:
    return int.from_bytes(data[2:6], "little")


FINDERS: dict[str, Callable[[bytes], int | None]] = {
    "png": _end_of_png,
    "jpeg": _end_of_jpeg,
    "gif": _end_of_gif,
    "webp": _end_of_webp,
    "avif": _end_of_boxes,
    "heic": _end_of_boxes,
    "jp2": _end_of_boxes,
    "bmp": _end_of_bmp,
}

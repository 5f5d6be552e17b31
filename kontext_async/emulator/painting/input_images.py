"""Reads input images, and keeps a thumbnail of each."""

from __future__ import annotations

import io
import struct

from attrs import field, frozen
from PIL import Image, ImageOps

from kontext_async.emulator.painting.encoding import encode
from kontext_async.emulator.painting.palette import WHITE

MAX_IMAGE_BYTES = 20 * 1024 * 1024
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
THUMBNAIL_SIDE = 512
ORIENTATION_TAG = 0x0112
LAST_UPRIGHT_ORIENTATION = 4
"""The EXIF orientations above this one swap width and height."""

MAX_PIXELS = 50_000_000
"""The largest image that is decoded. An image of a few kilobytes can have a hundred times as many pixels."""

TOO_MANY_PIXELS = f"must have at most {MAX_PIXELS:,} pixels"


class UnreadableImage(ValueError):
    """The bytes are not an image of an accepted format."""


@frozen(kw_only=True)
class InputImage:
    """An input image that was read.

    Attributes:
        image_format: `JPEG`, `PNG`, `WEBP` or `GIF`.
        width: Pixels, after its EXIF orientation is applied.
        height: Pixels, after its EXIF orientation is applied.
        thumbnail: A small JPEG of it; the full image is not kept.
    """

    image_format: str
    width: int
    height: int
    thumbnail: bytes = field(repr=False)


def read_image(data: bytes) -> InputImage:
    """Read an input image and keep a thumbnail of it.

    Raises:
        UnreadableImage: It is no JPEG, PNG, WebP or GIF, is damaged, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(image)  # before anything decodes it, as reading the EXIF of a PNG does
            image_format = image.format or ""
            swaps_sides = image.getexif().get(ORIENTATION_TAG, 1) > LAST_UPRIGHT_ORIENTATION
            width, height = image.size[::-1] if swaps_sides else image.size
            thumbnail = _make_thumbnail(image)
    except UnreadableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(TOO_MANY_PIXELS) from None
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, LookupError, TypeError, MemoryError):
        raise UnreadableImage("must be a JPEG, PNG, WebP or GIF that can be opened") from None
    return InputImage(image_format=image_format, width=width, height=height, thumbnail=thumbnail)


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(TOO_MANY_PIXELS)


def _make_thumbnail(image: Image.Image) -> bytes:
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))  # first of all, so that no large copy is made
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    flat = Image.new("RGB", upright.size, WHITE)
    flat.paste(upright, mask=upright)
    return encode(flat, "jpeg")

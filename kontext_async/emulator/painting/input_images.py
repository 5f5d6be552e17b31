"""Reads input images, and keeps a thumbnail of each."""

from __future__ import annotations

import io

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
            image_format = image.format or ""
            swaps_sides = image.getexif().get(ORIENTATION_TAG, 1) > LAST_UPRIGHT_ORIENTATION
            width, height = ImageOps.exif_transpose(image).size if swaps_sides else image.size
            image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            thumbnail = _make_thumbnail(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage("must be a JPEG, PNG, WebP or GIF that can be opened") from None
    return InputImage(image_format=image_format, width=width, height=height, thumbnail=thumbnail)


def _make_thumbnail(image: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(image).convert("RGBA")
    upright.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    flat = Image.new("RGB", upright.size, WHITE)
    flat.paste(upright, mask=upright)
    return encode(flat, "jpeg")

"""What is made of Pillow's images. Pillow is an extra: it is imported when it is needed."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from PIL import Image

    from kontext_async.images.spooling import Spool

__all__ = ["apply_orientation", "profile_of", "with_mode_of", "write_png"]

ORIENTATION = 0x0112
PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}
NEAREST_MODE = {"PA": "RGBA", "I": "I;16"}
"""What modes of Pillow's become that a format does not have, where that is not ``RGB``."""

COLOURS_OF_THEIR_OWN = frozenset({"CMYK", "YCbCr", "HSV", "LAB"})
"""Modes whose colour profile does not fit what they become, if they become another."""


def apply_orientation(image: Image.Image) -> Image.Image:
    """The picture as it is to be seen: turned as its EXIF orientation says."""
    if image.getexif().get(ORIENTATION, 1) == 1:
        return image
    from PIL import ImageOps  # noqa: PLC0415 # an extra

    return ImageOps.exif_transpose(image)


def with_mode_of(image: Image.Image, modes: frozenset[str]) -> Image.Image:
    """The picture in one of `modes`, with its transparency if they have it."""
    if image.mode in PREMULTIPLIED:
        image = image.convert(PREMULTIPLIED[image.mode])
    if image.mode in modes:
        return image
    nearest = NEAREST_MODE.get(image.mode, "")
    if nearest not in modes:
        nearest = "RGBA" if image.has_transparency_data and "RGBA" in modes else "RGB"
    if image.mode.startswith("I;16") and nearest == "RGB":
        image = image.point(lambda value: value / 256, "L")
    return image.convert(nearest)


def profile_of(image: Image.Image, mode: str) -> bytes | None:
    """The colour profile of `image`, where it still fits when its mode has become `mode`."""
    if mode != image.mode and image.mode in COLOURS_OF_THEIR_OWN:
        return None
    return image.info.get("icc_profile")


def write_png(image: Image.Image, spool: Spool) -> None:
    """Write a picture as a PNG, apply_orientation, with its colour profile."""
    image = apply_orientation(image)
    drawable = with_mode_of(image, PNG_MODES)
    drawable.save(cast("IO[bytes]", spool), "PNG", icc_profile=profile_of(image, drawable.mode))

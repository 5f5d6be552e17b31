"""Conversion of Pillow images. Pillow is an extra, and is imported when it is needed."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from PIL import Image

    from kontext_async.images.spooling import Spool

__all__ = ["apply_orientation", "convert_to_mode", "find_icc_profile", "write_png"]

ORIENTATION = 0x0112
PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}
NEAREST_MODE = {"PA": "RGBA", "I": "I;16"}
"""The mode to convert to if a format does not support the mode and RGB is not the nearest one."""

OWN_COLOR_SPACE = frozenset({"CMYK", "YCbCr", "HSV", "LAB"})
"""Modes whose color profile is wrong after a conversion to another mode."""


def apply_orientation(image: Image.Image) -> Image.Image:
    """Return the image rotated and mirrored as its EXIF orientation says."""
    if image.getexif().get(ORIENTATION, 1) == 1:
        return image
    from PIL import ImageOps  # noqa: PLC0415 # an extra

    return ImageOps.exif_transpose(image)


def convert_to_mode(image: Image.Image, modes: frozenset[str]) -> Image.Image:
    """Return the image in one of `modes`. It keeps its transparency if one of them supports it."""
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


def find_icc_profile(image: Image.Image, mode: str) -> bytes | None:
    """Return the color profile of `image`; None if there is none, or if it is wrong after a conversion to `mode`."""
    if mode != image.mode and image.mode in OWN_COLOR_SPACE:
        return None
    return image.info.get("icc_profile")


def write_png(image: Image.Image, spool: Spool) -> None:
    """Write an image as a PNG, with its EXIF orientation applied and its color profile."""
    image = apply_orientation(image)
    converted = convert_to_mode(image, PNG_MODES)
    converted.save(cast("IO[bytes]", spool), "PNG", icc_profile=find_icc_profile(image, converted.mode))

"""Encodes images as JPEG, PNG or WebP."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def encode(image: Image.Image, output_format: str) -> bytes:
    """Encode an image as `jpeg`, `png` or `webp`."""
    buffer = io.BytesIO()
    if output_format == "png":
        image.save(buffer, "PNG", compress_level=1)
    elif output_format == "webp":
        image.save(buffer, "WEBP", quality=86, method=0)
    else:
        image.save(buffer, "JPEG", quality=86)
    return buffer.getvalue()

"""Images for tests."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def make_image(image_format: str = "PNG", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """Return a small image of one color; `options` go to Pillow."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 60, 60)).save(buffer, image_format, **options)
    return buffer.getvalue()


def is_image_file(path: Path) -> bool:
    """True for a name that the tests' images have."""
    return path.suffix in (".jpg", ".png")

"""`fit`: makes an image small enough for the gateway. Needs Pillow."""

from __future__ import annotations

import io
import math
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from attrs import frozen

from kontext_async.base_errors import ConfigurationError, InvalidRequest
from kontext_async.images.formats import MAX_IMAGE_BYTES, SIGNATURE_LENGTH, detect_format
from kontext_async.images.loading import open_content, read_content
from kontext_async.images.pillow import apply_orientation, convert_to_mode, find_icc_profile
from kontext_async.images.sources import OneShotReader, check_type, is_pillow, normalize, refuse
from kontext_async.images.urls import is_url

if TYPE_CHECKING:
    from PIL import Image

    from kontext_async.images.contents import Content
    from kontext_async.images.sources import ImageSource

__all__ = ["fit"]

NAME = "source"
MAX_SOURCE_BYTES = 1 << 30
MIN_QUALITY, MAX_QUALITY = 70, 95
"""The range of qualities for JPEG and WebP. Below it, an image with fewer pixels looks better."""

SIZE_MARGIN = 0.95
"""The factor below the size limit at which a scaled image aims: sizes do not shrink in proportion to pixels."""

LANCZOS = 1
"""Pillow's number for the Lanczos filter."""

MAX_SIDE = 16383
"""The longest side that WebP supports, in pixels."""


@frozen
class _Format:
    """An output format: Pillow's name, the supported modes, and True in `lossy` if it has a quality."""

    name: str
    modes: frozenset[str]
    lossy: bool


PNG = _Format("PNG", frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}), lossy=False)
JPEG = _Format("JPEG", frozenset({"L", "RGB", "CMYK"}), lossy=True)
WEBP = _Format("WEBP", frozenset({"RGB", "RGBA"}), lossy=True)


async def fit(source: ImageSource, *, max_bytes: int = MAX_IMAGE_BYTES, max_side: int | None = None) -> bytes:
    """Return an image that is small enough for the gateway. The work is done in a thread.

    An image that fits already is returned unchanged, byte for byte. Otherwise the first frame is rotated as its EXIF
    orientation says, scaled down if necessary, and written as PNG, JPEG or WebP: in the source's format if that fits,
    otherwise as JPEG, or as WebP if there is transparency. The color profile is kept.

    Args:
        source: Any `ImageSource` except a URL, in any format that Pillow can open.
        max_bytes: The largest allowed size, in bytes.
        max_side: The longest allowed side, in pixels; None sets no limit.

    Returns:
        The encoded image.

    Raises:
        InvalidRequest: Pillow cannot open the source, or the image cannot be made small enough.
        ConfigurationError: Pillow is not installed.
    """
    from anyio import to_thread  # noqa: PLC0415 # 40 ms of import that a request without a session does not need

    bounds: dict[str, Any] = {"max_bytes": max_bytes, "max_side": max_side}
    for name, bound in bounds.items():
        if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool) or bound < 1):
            raise InvalidRequest(name, bound, "it must be an integer of at least 1")
    if is_url(source):
        raise refuse(NAME, source, "the gateway downloads a URL itself; pass the image")
    normalized = normalize(source)
    check_type(normalized, NAME)
    is_reader = isinstance(normalized, OneShotReader)
    content = await read_content(normalized, NAME, MAX_SOURCE_BYTES) if is_reader else None
    return await to_thread.run_sync(partial(_fit, source, content, max_bytes, max_side))


def _fit(source: ImageSource, content: Content | None, max_bytes: int, max_side: int | None) -> bytes:
    try:
        from PIL import Image  # noqa: PLC0415 # an extra
    except ImportError:
        raise ConfigurationError("images.fit needs Pillow: pip install 'kontext_async[images]'") from None
    if is_pillow(source):
        return _shrink(cast("Image.Image", source), None, max_bytes, max_side)
    content = open_content(source, NAME, MAX_SOURCE_BYTES) if content is None else content
    try:
        data = b"".join(content.chunks(1 << 20))
    finally:
        content.close()
    if not data:
        raise refuse(NAME, source, "an image must not be empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image_format = detect_format(data[:SIGNATURE_LENGTH])
            if image_format and len(data) <= max_bytes and (max_side is None or max(image.size) <= max_side):
                return data
            return _shrink(image, image_format, max_bytes, max_side)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise refuse(NAME, source, f"it must be an image that Pillow can open: {error}") from error


def _shrink(image: Image.Image, image_format: str | None, max_bytes: int, max_side: int | None) -> bytes:
    """Encode the image in one output format after the other, and then again with fewer pixels, until one fits."""
    image = apply_orientation(image)
    formats = _choose_formats(image, image_format)
    side = min(max(image.size), max_side or MAX_SIDE, MAX_SIDE)
    while True:
        scaled = _scale(image, side)
        smallest = max_bytes
        for output in formats:
            data = _encode_to_fit(scaled, output, max_bytes)
            if len(data) <= max_bytes:
                return data
            smallest = len(data)
        if side == 1:
            raise InvalidRequest("max_bytes", max_bytes, "no image is that small")
        side = max(1, min(side - 1, int(side * SIZE_MARGIN * math.sqrt(max_bytes / smallest))))


def _choose_formats(image: Image.Image, image_format: str | None) -> tuple[_Format, ...]:
    """Return the output formats to try, the best one first. The last one is lossy and becomes the smallest."""
    smallest = WEBP if image_format == "webp" or image.has_transparency_data else JPEG
    may_be_lossless = image_format not in ("jpeg", "webp") and image.mode != "CMYK"
    return (PNG, smallest) if may_be_lossless else (smallest,)


def _scale(image: Image.Image, side: int) -> Image.Image:
    longest = max(image.size)
    if side >= longest:
        return image
    width, height = (max(1, round(length * side / longest)) for length in image.size)
    if image.mode in ("1", "P", "PA"):  # these modes have no mean of two pixels
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.resize((width, height), resample=LANCZOS)


def _encode_to_fit(image: Image.Image, output: _Format, max_bytes: int) -> bytes:
    """Encode the image in the best quality that fits, or else in the lowest."""
    converted = convert_to_mode(image, output.modes)
    profile = find_icc_profile(image, converted.mode)
    if not output.lossy:
        return _encode(converted, output, profile)
    low, high = MIN_QUALITY, MAX_QUALITY
    best = _encode(converted, output, profile, quality=high)
    if len(best) <= max_bytes:
        return best
    best = _encode(converted, output, profile, quality=low)
    while len(best) <= max_bytes and high - low > 1:
        middle = (low + high) // 2
        data = _encode(converted, output, profile, quality=middle)
        if len(data) <= max_bytes:
            low, best = middle, data
        else:
            high = middle
    return best


def _encode(image: Image.Image, output: _Format, profile: bytes | None, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, output.name, icc_profile=profile, **options)
    return buffer.getvalue()

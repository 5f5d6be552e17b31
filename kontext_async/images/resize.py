"""Makes a picture small enough for the gateway, when that is asked for: `fit`. Needs Pillow."""

from __future__ import annotations

import io
import math
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from attrs import frozen

from kontext_async.base_errors import ConfigurationError, InvalidRequest
from kontext_async.images.formats import MAX_IMAGE_BYTES, SIGNATURE, detect_format
from kontext_async.images.loading import open_content, read_content
from kontext_async.images.pillow import apply_orientation, profile_of, with_mode_of
from kontext_async.images.sources import OneShotReader, check_type, is_pillow, is_url, normalize

if TYPE_CHECKING:
    from PIL import Image

    from kontext_async.images.contents import Content
    from kontext_async.images.sources import ImageSource

__all__ = ["fit"]

NAME = "source"
MAX_SOURCE_BYTES = 1 << 30
LOWEST, HIGHEST = 70, 95
"""Qualities of JPEG and WebP that are tried. Below the lowest, fewer pixels look better than coarser ones."""

AIM = 0.95
"""Where a smaller picture aims, below the goal: sizes do not shrink in proportion to pixels."""

LANCZOS = 1
"""Pillow's number for it."""

LONGEST = 16383
"""The longest side that WebP has."""


@frozen
class _Format:
    """How pictures are written: Pillow's name, the modes that it has, whether it has a quality."""

    name: str
    modes: frozenset[str]
    lossy: bool


PNG = _Format("PNG", frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}), lossy=False)
JPEG = _Format("JPEG", frozenset({"L", "RGB", "CMYK"}), lossy=True)
WEBP = _Format("WEBP", frozenset({"RGB", "RGBA"}), lossy=True)


async def fit(source: ImageSource, *, max_bytes: int = MAX_IMAGE_BYTES, max_side: int | None = None) -> bytes:
    """An image that the gateway takes, made of one that it may not take. Works in a thread.

    What fits already is returned as it is, byte for byte. Of anything else, the first frame is turned as its EXIF
    orientation says, scaled down if it must be, and written as PNG, JPEG or WebP: the kind of the source if that fits,
    otherwise JPEG, or WebP where there is transparency. The colour profile is kept.

    Args:
        source: Whatever may be an input image, but for a URL, and whatever else Pillow opens.
        max_bytes: The largest size, in bytes.
        max_side: The longest side, in pixels; None leaves it.

    Raises:
        InvalidRequest: It is no image that Pillow can open, or it cannot be made to fit.
        ConfigurationError: Pillow is not installed.
    """
    from anyio import to_thread  # noqa: PLC0415 # 40 ms of import that a request without a session does not need

    bounds: dict[str, Any] = {"max_bytes": max_bytes, "max_side": max_side}
    for name, bound in bounds.items():
        if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool) or bound < 1):
            raise InvalidRequest(name, bound, "it must be an integer of at least 1")
    if is_url(source):
        raise InvalidRequest(NAME, source, "a URL is fetched by the gateway; pass the image itself")
    adopted = normalize(source)
    check_type(adopted, NAME)
    content = await read_content(adopted, NAME, MAX_SOURCE_BYTES) if isinstance(adopted, OneShotReader) else None
    return await to_thread.run_sync(partial(_fit, source, content, max_bytes, max_side))


def _fit(source: ImageSource, content: Content | None, max_bytes: int, max_side: int | None) -> bytes:
    try:
        from PIL import Image  # noqa: PLC0415 # an extra
    except ImportError:
        raise ConfigurationError("fitting images needs Pillow: pip install 'kontext_async[images]'") from None
    if is_pillow(source):
        return _fitted(cast("Image.Image", source), None, max_bytes, max_side)
    content = open_content(source, NAME, MAX_SOURCE_BYTES) if content is None else content
    try:
        data = b"".join(content.chunks(1 << 20))
    finally:
        content.close()
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = detect_format(data[:SIGNATURE])
            if kind and len(data) <= max_bytes and (max_side is None or max(image.size) <= max_side):
                return data
            return _fitted(image, kind, max_bytes, max_side)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(NAME, source, f"it must be an image that Pillow can open: {error}") from error


def _fitted(image: Image.Image, kind: str | None, max_bytes: int, max_side: int | None) -> bytes:
    """Try the formats one after the other, and then again with fewer pixels."""
    image = apply_orientation(image)
    formats = _formats(image, kind)
    side = min(max(image.size), max_side or LONGEST, LONGEST)
    while True:
        scaled = _scaled(image, side)
        smallest = max_bytes
        for each in formats:
            data = _written(scaled, each, max_bytes)
            if len(data) <= max_bytes:
                return data
            smallest = len(data)
        if side == 1:
            raise InvalidRequest("max_bytes", max_bytes, "no picture is so small")
        side = max(1, min(side - 1, int(side * AIM * math.sqrt(max_bytes / smallest))))


def _formats(image: Image.Image, kind: str | None) -> tuple[_Format, ...]:
    """What to write, best first; the last one becomes small."""
    last = WEBP if kind == "webp" or image.has_transparency_data else JPEG
    lossless = kind not in ("jpeg", "webp") and image.mode != "CMYK"
    return (PNG, last) if lossless else (last,)


def _scaled(image: Image.Image, side: int) -> Image.Image:
    longest = max(image.size)
    if side >= longest:
        return image
    size = tuple(max(1, round(each * side / longest)) for each in image.size)
    if image.mode in ("1", "P", "PA"):  # of which no mean can be taken
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.resize((size[0], size[1]), resample=LANCZOS)


def _written(image: Image.Image, how: _Format, max_bytes: int) -> bytes:
    """The picture in the best quality that fits, or else in the lowest."""
    drawable = with_mode_of(image, how.modes)
    profile = profile_of(image, drawable.mode)
    if not how.lossy:
        return _saved(drawable, how, profile)
    low, high = LOWEST, HIGHEST
    best = _saved(drawable, how, profile, quality=high)
    if len(best) <= max_bytes:
        return best
    best = _saved(drawable, how, profile, quality=low)
    while len(best) <= max_bytes and high - low > 1:
        middle = (low + high) // 2
        data = _saved(drawable, how, profile, quality=middle)
        if len(data) <= max_bytes:
            low, best = middle, data
        else:
            high = middle
    return best


def _saved(image: Image.Image, how: _Format, profile: bytes | None, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, how.name, icc_profile=profile, **options)
    return buffer.getvalue()

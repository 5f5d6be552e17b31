"""Paints the emulator's pictures, and reads input images. With `landscape`, all that imports Pillow.

A picture is a small landscape: its colours come from the prompt's words, its shapes from prompt and seed,
its input images hang in it as prints, and a caption says what was asked. The same brief makes the same
bytes.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
from typing import TYPE_CHECKING

import attrs
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from kontext_async.emulator.landscape import Landscape, gradient
from kontext_async.emulator.palette import Colour, palette_for, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_IMAGE_BYTES = 20 * 1024 * 1024
_KINDS = ("JPEG", "PNG", "WEBP", "GIF")
_THUMBNAIL = 512
_SMALLEST_SIDE = 16
_SMALLEST_CAPTIONED = 120
_LABEL_CARD = (240, 180)
_WHITE: Colour = (255, 255, 255)


class UnreadableImageError(ValueError):
    """The bytes are no picture of a kind that is taken."""


@attrs.frozen(kw_only=True)
class InputImage:
    """An input image that was read.

    Attributes:
        kind: `JPEG`, `PNG`, `WEBP` or `GIF`.
        width: Pixels, turned as its EXIF orientation says.
        height: Pixels, turned as its EXIF orientation says.
        thumbnail: A small JPEG of it; the whole is not kept.
    """

    kind: str
    width: int
    height: int
    thumbnail: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Brief:
    """What to paint.

    Attributes:
        prompt: The prompt, which the caption shows.
        seed: The seed, which the caption shows.
        width: Pixels.
        height: Pixels.
        output_format: `jpeg` or `png`.
        digest: The digest of model and params.
        images: The input images in order: read ones, or the URL of one that was not fetched.
        number: 0 for a task's picture, more for its further ones.
    """

    prompt: str
    seed: int
    width: int
    height: int
    output_format: str = "jpeg"
    digest: str = ""
    images: tuple[InputImage | str, ...] = ()
    number: int = 0


def sides(ratio: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Width and height of that ratio with about `pixels` in all."""
    width = math.sqrt(pixels * ratio[0] / ratio[1])
    height = math.sqrt(pixels * ratio[1] / ratio[0])
    return max(_SMALLEST_SIDE, round(width)), max(_SMALLEST_SIDE, round(height))


def read_image(data: bytes) -> InputImage:
    """Read an input image and keep a thumbnail of it.

    Raises:
        UnreadableImageError: It is no JPEG, PNG, WebP or GIF, is damaged, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_KINDS) as image:
            kind = image.format or ""
            full = ImageOps.exif_transpose(image).size if image.getexif().get(0x0112, 1) > 4 else image.size  # noqa: PLR2004
            image.draft("RGB", (_THUMBNAIL, _THUMBNAIL))
            thumbnail = _thumbnail(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImageError("must be a JPEG, PNG, WebP or GIF that can be opened") from None
    return InputImage(kind=kind, width=full[0], height=full[1], thumbnail=thumbnail)


def _thumbnail(image: Image.Image) -> bytes:
    turned = ImageOps.exif_transpose(image).convert("RGBA")
    turned.thumbnail((_THUMBNAIL, _THUMBNAIL))
    flat = Image.new("RGB", turned.size, _WHITE)
    flat.paste(turned, mask=turned)
    return _encoded(flat, "jpeg")


def paint(brief: Brief) -> bytes:
    """Paint a picture and return its bytes; the same brief makes the same bytes."""
    image = Image.new("RGB", (brief.width, brief.height))
    palette = palette_for(brief.prompt, _chance(brief.prompt))
    rng = _chance(f"{brief.digest} {brief.prompt} {brief.seed} {brief.number}")
    Landscape(image, palette, rng).paint(words_of(brief.prompt))
    if brief.images:
        _hang(image, brief.images, rng)
    if min(image.size) >= _SMALLEST_CAPTIONED:
        _caption(image, brief.prompt, f"seed {brief.seed}")
    return _encoded(image, brief.output_format)


def _chance(text: str) -> random.Random:
    return random.Random(hashlib.sha256(text.encode(errors="replace")).digest())  # noqa: S311


def _encoded(image: Image.Image, output_format: str) -> bytes:
    buffer = io.BytesIO()
    if output_format == "png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=86)
    return buffer.getvalue()


def _hang(image: Image.Image, pictures: Sequence[InputImage | str], rng: random.Random) -> None:
    """Hang the input images as framed prints, side by side."""
    count = len(pictures)
    room = image.width * 0.9 / count
    largest = (max(8, round(room * 0.86)), max(8, round(image.height * (0.5 if count == 1 else 0.4))))
    for index, picture in enumerate(pictures):
        framed = _print(_inner(picture), largest).rotate(rng.uniform(-3.5, 3.5), Image.Resampling.BICUBIC, expand=True)
        x = image.width * 0.05 + room * (index + 0.5)
        y = image.height * (0.4 + rng.uniform(-0.02, 0.02))
        corner = round(x - framed.width / 2), round(y - framed.height / 2)
        image.paste(framed, corner, framed)


def _inner(picture: InputImage | str) -> Image.Image:
    if isinstance(picture, str):
        return _label_card(picture)
    with Image.open(io.BytesIO(picture.thumbnail), formats=("JPEG",)) as image:
        return image.convert("RGB")


def _print(inner: Image.Image, largest: tuple[int, int]) -> Image.Image:
    """A picture with a white border and a soft shadow, on a transparent ground."""
    fitted = ImageOps.contain(inner, largest, Image.Resampling.BILINEAR)
    border = max(2, round(max(fitted.size) * 0.03))
    card = ImageOps.expand(fitted, border, (250, 249, 246))
    soft = border * 2
    shadow = Image.new("L", (card.width + 2 * soft, card.height + 2 * soft))
    shadow.paste(120, (soft, soft + border // 2, soft + card.width, soft + card.height + border // 2))
    ground = Image.new("RGBA", shadow.size, (10, 10, 20, 0))
    ground.putalpha(shadow.filter(ImageFilter.BoxBlur(soft / 2)))
    ground.paste(card, (soft, soft))
    return ground


def _label_card(url: str) -> Image.Image:
    """A card that stands for an image that was not fetched, with the end of its URL."""
    card = gradient([(96, 108, 128), (60, 68, 84)], _LABEL_CARD)
    pen = ImageDraw.Draw(card)
    width, height = _LABEL_CARD
    pen.ellipse((width - 62, 26, width - 34, 54), fill=(214, 220, 228))
    pen.polygon([(24, 122), (84, 56), (128, 104), (152, 82), (216, 122)], fill=(150, 162, 178))
    text = _clean(url.partition("://")[2].partition("?")[0])
    font = ImageFont.load_default(15)
    lines = _wrapped(text, font, width - 32, 2)
    pen.multiline_text((width / 2, height - 28), "\n".join(lines), (236, 240, 245), font, anchor="mm", align="center")
    return card


def _clean(text: str) -> str:
    """Text that a font can draw: no surrogates, and one space for any run of blanks."""
    return " ".join(text.encode(errors="replace").decode().split())


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, most: int) -> list[str]:
    """Break text into at most `most` lines no wider than `width`; what is left over becomes an ellipsis."""
    lines: list[str] = []
    line = ""
    for word in text[:400].split(" "):
        candidate = f"{line} {word}".strip()
        if font.getlength(candidate) <= width or not line:
            line = candidate
            continue
        lines.append(line)
        line = word
    lines.append(line)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} …"]
    return [_shortened(line, font, width) for line in lines]


def _shortened(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[: -max(1, len(line) // 12)]
    return f"{line.rstrip(' …')}…"


def _caption(image: Image.Image, prompt: str, note: str) -> None:
    """Set the prompt and a note on a quiet panel at the lower edge."""
    scale = math.sqrt(image.width * image.height)
    size, margin = max(9, round(scale * 0.032)), max(6, round(scale * 0.027))
    font, small = ImageFont.load_default(size), ImageFont.load_default(max(8, round(size * 0.75)))
    lines = _wrapped(_clean(prompt), font, image.width - 4 * margin, 2)
    note = _shortened(note, small, image.width - 4 * margin)
    wide = max(*(font.getlength(line) for line in lines), small.getlength(note))
    high = round(size * 1.3) * len(lines) + round(size * 1.15)
    box = (margin, image.height - margin * 2 - high, margin * 3 + math.ceil(wide), image.height - margin)
    _panel(image, box, radius=margin // 2)
    pen = ImageDraw.Draw(image)
    y = box[1] + margin * 0.5
    for line in lines:
        pen.text((box[0] + margin, y), line, _WHITE, font)
        y += round(size * 1.3)
    pen.text((box[0] + margin, y + size * 0.15), note, (205, 212, 224), small)


def _panel(image: Image.Image, box: tuple[int, int, int, int], radius: int) -> None:
    """Darken and blur a rounded part of the picture, as frosted glass does."""
    part = image.crop(box)
    glass = part.reduce(4).filter(ImageFilter.BoxBlur(3)).resize(part.size, Image.Resampling.BILINEAR)
    glass.paste((14, 16, 26), mask=Image.new("L", part.size, 130))
    mask = Image.new("L", (part.width * 2, part.height * 2))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius * 2, fill=255)
    image.paste(glass, box[:2], mask.reduce(2))

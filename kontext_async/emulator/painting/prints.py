"""Input images as framed prints in a landscape."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from kontext_async.emulator.painting.captions import clean_text, wrap_text
from kontext_async.emulator.painting.shapes import draw_gradient

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from kontext_async.emulator.painting.input_images import InputImage

LABEL_CARD_SIZE = (240, 180)


def hang_prints(image: Image.Image, inputs: Sequence[InputImage | str], rng: random.Random) -> None:
    """Paste the input images as framed prints, side by side."""
    count = len(inputs)
    room = image.width * 0.9 / count
    largest = (max(8, round(room * 0.86)), max(8, round(image.height * (0.5 if count == 1 else 0.4))))
    for index, each in enumerate(inputs):
        card = _frame(_load_input(each), largest).rotate(rng.uniform(-3.5, 3.5), Image.Resampling.BICUBIC, expand=True)
        x = image.width * 0.05 + room * (index + 0.5)
        y = image.height * (0.4 + rng.uniform(-0.02, 0.02))
        corner = round(x - card.width / 2), round(y - card.height / 2)
        image.paste(card, corner, card)


def _load_input(each: InputImage | str) -> Image.Image:
    if isinstance(each, str):
        return _draw_label_card(each)
    with Image.open(io.BytesIO(each.thumbnail), formats=("JPEG",)) as image:
        return image.convert("RGB")


def _frame(inner: Image.Image, largest: tuple[int, int]) -> Image.Image:
    """Return an image with a white border and a soft shadow, on a transparent background."""
    fitted = ImageOps.contain(inner, largest, Image.Resampling.BILINEAR)
    border = max(2, round(max(fitted.size) * 0.03))
    card = ImageOps.expand(fitted, border, (250, 249, 246))
    soft = border * 2
    shadow = Image.new("L", (card.width + 2 * soft, card.height + 2 * soft))
    shadow.paste(120, (soft, soft + border // 2, soft + card.width, soft + card.height + border // 2))
    background = Image.new("RGBA", shadow.size, (10, 10, 20, 0))
    background.putalpha(shadow.filter(ImageFilter.BoxBlur(soft / 2)))
    background.paste(card, (soft, soft))
    return background


def _draw_label_card(url: str) -> Image.Image:
    """Return a card that stands for an image that was not fetched, with the end of its URL."""
    card = draw_gradient([(96, 108, 128), (60, 68, 84)], LABEL_CARD_SIZE)
    pen = ImageDraw.Draw(card)
    width, height = LABEL_CARD_SIZE
    pen.ellipse((width - 62, 26, width - 34, 54), fill=(214, 220, 228))
    pen.polygon([(24, 122), (84, 56), (128, 104), (152, 82), (216, 122)], fill=(150, 162, 178))
    text = clean_text(url.partition("://")[2].partition("?")[0])
    font = ImageFont.load_default(15)
    lines = wrap_text(text, font, width - 32, 2)
    pen.multiline_text((width / 2, height - 28), "\n".join(lines), (236, 240, 245), font, anchor="mm", align="center")
    return card

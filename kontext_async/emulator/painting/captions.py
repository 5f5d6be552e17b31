"""Text in an image: breaks it into lines, and draws the caption."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from kontext_async.emulator.painting.palette import WHITE

GRAY = (205, 212, 224)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def clean_text(text: str) -> str:
    """Return text that a font can draw: without surrogates, and with one space for any run of blanks."""
    return " ".join(text.encode(errors="replace").decode().split())


def wrap_text(text: str, font: Font, width: float, most: int) -> list[str]:
    """Break text into at most `most` lines no wider than `width`; an ellipsis replaces the rest."""
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
    return [shorten_line(line, font, width) for line in lines]


def shorten_line(line: str, font: Font, width: float) -> str:
    """Return the line, with an ellipsis at its end when it is wider than `width`."""
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[: -max(1, len(line) // 12)]
    return f"{line.rstrip(' …')}…"


def draw_caption(image: Image.Image, prompt: str, note: str) -> None:
    """Draw the prompt and a note on a panel at the lower edge."""
    scale = math.sqrt(image.width * image.height)
    size, margin = max(9, round(scale * 0.032)), max(6, round(scale * 0.027))
    font, small = ImageFont.load_default(size), ImageFont.load_default(max(8, round(size * 0.75)))
    lines = wrap_text(clean_text(prompt), font, image.width - 4 * margin, 2)
    note = shorten_line(note, small, image.width - 4 * margin)
    wide = max(*(font.getlength(line) for line in lines), small.getlength(note))
    high = round(size * 1.3) * len(lines) + round(size * 1.15)
    box = (margin, image.height - margin * 2 - high, margin * 3 + math.ceil(wide), image.height - margin)
    _draw_panel(image, box, radius=margin // 2)
    pen = ImageDraw.Draw(image)
    y = box[1] + margin * 0.5
    for line in lines:
        pen.text((box[0] + margin, y), line, WHITE, font)
        y += round(size * 1.3)
    pen.text((box[0] + margin, y + size * 0.15), note, GRAY, small)


def _draw_panel(image: Image.Image, box: tuple[int, int, int, int], radius: int) -> None:
    """Darken and blur a rounded part of the image, like frosted glass."""
    part = image.crop(box)
    glass = part.reduce(4).filter(ImageFilter.BoxBlur(3)).resize(part.size, Image.Resampling.BILINEAR)
    glass.paste((14, 16, 26), mask=Image.new("L", part.size, 130))
    mask = Image.new("L", (part.width * 2, part.height * 2))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius * 2, fill=255)
    image.paste(glass, box[:2], mask.reduce(2))

"""Paints the emulator's images.

An image is a small landscape: its colors follow from the words of the prompt, its shapes from prompt and seed, its
input images appear in it as prints, and a caption shows the prompt and the seed. The same brief gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import TYPE_CHECKING

from attrs import frozen
from PIL import Image

from kontext_async.emulator.painting.captions import draw_caption
from kontext_async.emulator.painting.encoding import encode
from kontext_async.emulator.painting.landscape import Landscape
from kontext_async.emulator.painting.palette import choose_palette, extract_words
from kontext_async.emulator.painting.prints import hang_prints

if TYPE_CHECKING:
    from kontext_async.emulator.painting.input_images import InputImage

SMALLEST_SIDE = 16
SMALLEST_CAPTIONED_SIDE = 120


@frozen(kw_only=True)
class Brief:
    """The description of one image to paint.

    Attributes:
        prompt: The prompt, which the caption shows.
        seed: The seed, which the caption shows.
        width: Pixels.
        height: Pixels.
        output_format: `jpeg` or `png`.
        digest: The digest of model and params.
        images: The input images in order: read ones, or the URL of one that was not fetched.
        number: 0 for a task's first image, more for its further ones.
    """

    prompt: str
    seed: int
    width: int
    height: int
    output_format: str = "jpeg"
    digest: str = ""
    images: tuple[InputImage | str, ...] = ()
    number: int = 0


def compute_sides(ratio: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Return width and height of that ratio with about `pixels` in all."""
    width = math.sqrt(pixels * ratio[0] / ratio[1])
    height = math.sqrt(pixels * ratio[1] / ratio[0])
    return max(SMALLEST_SIDE, round(width)), max(SMALLEST_SIDE, round(height))


def paint(brief: Brief) -> bytes:
    """Paint an image and return its bytes; the same brief gives the same bytes."""
    image = Image.new("RGB", (brief.width, brief.height))
    palette = choose_palette(brief.prompt, _create_rng(brief.prompt))
    rng = _create_rng(f"{brief.digest} {brief.prompt} {brief.seed} {brief.number}")
    Landscape(image, palette, rng).paint(extract_words(brief.prompt))
    if brief.images:
        hang_prints(image, brief.images, rng)
    if min(image.size) >= SMALLEST_CAPTIONED_SIDE:
        draw_caption(image, brief.prompt, f"seed {brief.seed}")
    return encode(image, brief.output_format)


def _create_rng(text: str) -> random.Random:
    return random.Random(hashlib.sha256(text.encode(errors="replace")).digest())  # noqa: S311 - no cryptography

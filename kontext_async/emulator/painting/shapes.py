"""Outlines, gradients and glows of a landscape."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from kontext_async.emulator.painting.palette import Color

Point = tuple[float, float]


def space_depths(count: int) -> list[float]:
    """Return `count` depths at equal distances, from 0 for far to 1 for near."""
    return [index / (count - 1) for index in range(count)]


def trace_fractal(rng: random.Random, rounds: int, roughness: float) -> list[float]:
    """Return a rugged line in about -1..1, by midpoint displacement."""
    line = [rng.uniform(-0.4, 0.6), rng.uniform(-0.4, 0.6)]
    swing = 0.9
    for _ in range(rounds):
        middles = [(a + b) / 2 + rng.uniform(-swing, swing) for a, b in itertools.pairwise(line)]
        line = [value for pair in zip(line, middles, strict=False) for value in pair] + [line[-1]]
        swing *= roughness
    return line


def trace_waves(rng: random.Random, points: int, waves: float) -> list[float]:
    """Return a smooth line in -1..1, a sum of a few waves."""
    parts = [
        (waves * factor, weight, rng.uniform(0, math.tau)) for factor, weight in ((1, 0.65), (2.3, 0.25), (4.1, 0.1))
    ]
    return [
        sum(weight * math.sin(math.tau * count * index / points + phase) for count, weight, phase in parts)
        for index in range(points + 1)
    ]


def grow_trees(rng: random.Random, outline: Sequence[Point], size: float, width: float) -> list[list[Point]]:
    """Return firs along an outline, each a stack of three triangles."""
    shapes: list[list[Point]] = []
    x = -rng.uniform(0, size * 0.3)
    while x < width + size:
        index = min(max(round(x / width * (len(outline) - 1)), 0), len(outline) - 1)
        base, tall = outline[index][1] + size * 0.12, size * rng.uniform(0.65, 1.25)
        for lower, upper, half in ((0.0, 0.5, 0.23), (0.25, 0.75, 0.175), (0.5, 1.0, 0.12)):
            shapes.append(
                [
                    (x - tall * half, base - tall * lower),
                    (x, base - tall * upper),
                    (x + tall * half, base - tall * lower),
                ]
            )
        x += size * rng.uniform(0.16, 0.6)
    return shapes


def draw_gradient(stops: Sequence[Color], size: tuple[int, int]) -> Image.Image:
    """Return a smooth vertical gradient over any number of colors."""
    column = Image.new("RGB", (1, len(stops)))
    column.putdata(list(stops))
    smooth = column.resize((1, max(1, size[1])), Image.Resampling.BICUBIC)
    return smooth.resize((size[0], max(1, size[1])), Image.Resampling.NEAREST)


def paste_scaled(image: Image.Image, color: Color, mask: Image.Image, center: Point, side: int) -> None:
    """Paste `color` through a mask scaled to a square around `center`; compute only the visible part."""
    left, upper = center[0] - side / 2, center[1] - side / 2
    scale = mask.width / side
    visible = (-left * scale, -upper * scale, (image.width - left) * scale, (image.height - upper) * scale)
    box = tuple(min(max(edge, 0), mask.width) for edge in visible)
    corner = max(0, round(left)), max(0, round(upper))
    size = round((box[2] - box[0]) / scale), round((box[3] - box[1]) / scale)
    if min(size) > 0:
        part = mask.resize(size, Image.Resampling.BILINEAR, box=(box[0], box[1], box[2], box[3]))
        image.paste(color, corner, part)

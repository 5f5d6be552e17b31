"""Paints a landscape: a sky with its light, and layers of land or sea before it.

The colors come from a palette, and the shapes are random. Masks are drawn at twice the size and reduced, which gives
smooth edges; gradients and glows are computed small and scaled up, which makes them cheap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFilter

from kontext_async.emulator.painting.palette import BLACK, WHITE, mix
from kontext_async.emulator.painting.shapes import (
    draw_gradient,
    grow_trees,
    paste_scaled,
    space_depths,
    trace_fractal,
    trace_waves,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from kontext_async.emulator.painting.palette import Color, Palette
    from kontext_async.emulator.painting.shapes import Point


class Landscape:
    """One landscape: a sky with its light, and layers before it, from far to near."""

    def __init__(self, image: Image.Image, palette: Palette, rng: random.Random) -> None:
        self.image = image
        self.palette = palette
        self.rng = rng
        self.width, self.height = image.size
        self.horizon = rng.uniform(0.46, 0.6) * self.height
        self.light = (rng.uniform(0.2, 0.8) * self.width, rng.uniform(0.2, 0.36) * self.height)

    def paint(self, words: Sequence[str]) -> None:
        """Paint the whole landscape; the words can choose the kind of land."""
        self._paint_sky()
        self._choose_land(words)()
        self._paint_vignette()

    def _choose_land(self, words: Sequence[str]) -> Callable[[], None]:
        lands = {
            "sea": (
                self._paint_sea,
                {"sea", "ocean", "boat", "ship", "lake", "island", "beach", "water", "lighthouse"},
            ),
            "dunes": (self._paint_dunes, {"desert", "dune", "dunes", "sand", "canyon", "wheat"}),
            "forest": (self._paint_forest, {"forest", "tree", "trees", "fox", "jungle", "garden", "owl"}),
            "peaks": (self._paint_peaks, {"mountain", "mountains", "dragon", "volcano", "glacier"}),
        }
        for land, names in lands.values():
            if names.intersection(words):
                return land
        return self.rng.choice([land for land, _ in lands.values()])

    # The sky.

    def _paint_sky(self) -> None:
        palette = self.palette
        middle = mix(palette.high, palette.low, 0.55)
        stops = [palette.high, middle, palette.low, mix(palette.low, palette.light, 0.4)]
        self.image.paste(stops[-1], (0, 0, self.width, self.height))
        self.image.paste(draw_gradient(stops, (self.width, math.ceil(self.horizon * 1.1))), (0, 0))
        if palette.is_dark:
            self._paint_stars()
        self._paint_clouds()
        self._paint_glow(radius=0.85 * max(self.width, self.height), strength=0.45)
        self._paint_disc()

    def _paint_stars(self) -> None:
        mask = Image.new("L", self.image.size)
        pen = ImageDraw.Draw(mask)
        for _ in range(90):
            x, y = self.rng.uniform(0, self.width), self.rng.uniform(0, self.horizon)
            size = self.rng.choice((0.4, 0.4, 0.8, 1.2)) * min(self.width, self.height) / 640
            pen.ellipse((x - size, y - size, x + size, y + size), fill=self.rng.randint(90, 235))
        self.image.paste(self.palette.light, mask=mask)

    def _paint_clouds(self) -> None:
        small = Image.new("L", (64, 32))
        pen = ImageDraw.Draw(small)
        for _ in range(self.rng.randint(3, 7)):
            x, y = self.rng.uniform(-8, 64), self.rng.uniform(4, 28)
            long = self.rng.uniform(10, 30)
            pen.ellipse((x, y, x + long, y + self.rng.uniform(1, 2.6)), fill=self.rng.randint(50, 120))
        size = (self.width, math.ceil(self.horizon))
        mask = small.filter(ImageFilter.GaussianBlur(1.1)).resize(size, Image.Resampling.BICUBIC)
        self.image.paste(mix(self.palette.low, self.palette.light, 0.6), (0, 0), mask)

    def _paint_glow(self, radius: float, strength: float) -> None:
        falloff = Image.radial_gradient("L").point([round((255 - value) ** 2 / 255 * strength) for value in range(256)])
        side = max(2, round(2 * radius))
        paste_scaled(self.image, self.palette.light, falloff, self.light, side)

    def _paint_disc(self) -> None:
        radius = self.rng.uniform(0.045, 0.085) * min(self.width, self.height)
        side = math.ceil(radius * 2) + 4
        mask = Image.new("L", (side * 4, side * 4))
        middle, wide = side * 2, radius * 4
        ImageDraw.Draw(mask).ellipse((middle - wide, middle - wide, middle + wide, middle + wide), fill=245)
        corner = (round(self.light[0] - side / 2), round(self.light[1] - side / 2))
        self.image.paste(mix(self.palette.light, WHITE, 0.5), corner, mask.reduce(4))

    # The land.

    def _paint_peaks(self) -> None:
        for depth in space_depths(5):
            top = self.horizon + (self.height - self.horizon) * (depth * 0.95 - 0.18)
            rough = (0.30 - 0.17 * depth) * self.height * self.rng.uniform(0.7, 1.0)
            self._paint_ridge(trace_fractal(self.rng, 7, 0.56), top, rough, depth)
        self._paint_birds()

    def _paint_dunes(self) -> None:
        for depth in space_depths(6):
            top = self.horizon + (self.height - self.horizon) * (depth * 0.98 - 0.05)
            line = trace_waves(self.rng, 96, self.rng.uniform(0.8, 1.7))
            self._paint_ridge(line, top, self.height * (0.035 + 0.05 * depth), depth, lit=True)
        self._paint_birds()

    def _paint_forest(self) -> None:
        self._paint_ridge(trace_fractal(self.rng, 7, 0.5), self.horizon, 0.2 * self.height, 0.0)
        for depth in space_depths(4)[1:]:
            top = self.horizon + (self.height - self.horizon) * (depth * 0.85 - 0.08)
            line = trace_waves(self.rng, 48, self.rng.uniform(0.8, 1.6))
            self._paint_ridge(line, top, 0.06 * self.height, depth, trees=(0.035 + 0.13 * depth) * self.height)

    def _paint_sea(self) -> None:
        self._paint_ridge(trace_fractal(self.rng, 7, 0.5), self.horizon, 0.16 * self.height, 0.1)
        self._paint_ridge(trace_fractal(self.rng, 7, 0.5), self.horizon + 2, 0.09 * self.height, 0.4)
        palette = self.palette
        top = round(self.horizon)
        stops = [mix(palette.low, palette.light, 0.35), mix(palette.low, palette.far, 0.6), palette.near]
        self.image.paste(draw_gradient(stops, (self.width, self.height - top)), (0, top))
        self._paint_glints(top)
        self._paint_boat(top)

    def _paint_glints(self, top: int) -> None:
        depth = self.height - top
        mask = Image.new("L", (self.width, depth))
        pen = ImageDraw.Draw(mask)
        for _ in range(170):
            share = self.rng.random() ** 1.5
            half = self.width * (0.008 + 0.05 * share) * self.rng.uniform(0.4, 1.2)
            x = self.light[0] + self.rng.gauss(0, 1) * self.width * (0.02 + 0.11 * share)
            y, thick = share * depth, max(0.6, self.height * 0.0035 * (0.3 + share))
            bright = round(self.rng.uniform(60, 210) * (1 - 0.55 * share))
            pen.ellipse((x - half, y - thick, x + half, y + thick), fill=bright)
        self.image.paste(self.palette.light, (0, top), mask.filter(ImageFilter.BoxBlur(0.7)))

    def _paint_boat(self, top: int) -> None:
        size = self.rng.uniform(0.035, 0.06) * self.height
        x = self.width - self.light[0] + self.rng.uniform(-0.06, 0.06) * self.width
        y = top + (self.height - top) * self.rng.uniform(0.14, 0.3)
        hull = [(x - size, y), (x + size, y), (x + size * 0.65, y + size * 0.28), (x - size * 0.65, y + size * 0.28)]
        main = [
            (x - size * 0.02, y - size * 1.9),
            (x - size * 0.02, y - size * 0.12),
            (x - size * 0.85, y - size * 0.12),
        ]
        jib = [(x + size * 0.1, y - size * 1.6), (x + size * 0.1, y - size * 0.12), (x + size * 0.75, y - size * 0.12)]
        self._paint_shapes([hull], self.palette.near)
        self._paint_shapes([main, jib], mix(self.palette.light, self.palette.far, 0.15))

    def _paint_ridge(
        self, line: Sequence[float], top: float, rough: float, depth: float, *, trees: float = 0.0, lit: bool = False
    ) -> None:
        """Paint one layer of land: `line` is its outline in -1..1; `depth` is 0 for far and 1 for near."""
        step = self.width / (len(line) - 1)
        points = [(index * step, top - value * rough) for index, value in enumerate(line)]
        highest = max(0, math.floor(min(y for _, y in points) - trees * 1.5))
        size = (self.width, self.height - highest)
        if size[1] < 1:
            return
        mask = Image.new("L", (size[0] * 2, size[1] * 2))
        pen = ImageDraw.Draw(mask)
        outline = [(x * 2, (y - highest) * 2) for x, y in points]
        pen.polygon([(0, size[1] * 2), *outline, (size[0] * 2, size[1] * 2)], fill=255)
        if trees:
            for tree in grow_trees(self.rng, outline, trees * 2, size[0] * 2):
                pen.polygon(tree, fill=255)
        self.image.paste(draw_gradient(self._choose_shades(depth, lit=lit), size), (0, highest), mask.reduce(2))

    def _choose_shades(self, depth: float, *, lit: bool) -> list[Color]:
        palette = self.palette
        body = mix(mix(palette.far, palette.low, 0.35 * (1 - depth)), palette.near, depth**1.15)
        mist = mix(body, mix(palette.low, palette.light, 0.3), 0.62 * (1 - depth) + 0.06)
        crest = mix(body, palette.light, 0.34 * (1 - 0.6 * depth)) if lit else body
        return [crest, mix(body, mist, 0.25), mist] if lit else [crest, body, mix(body, mist, 0.7), mist]

    def _paint_birds(self) -> None:
        x, y = self.rng.uniform(0.2, 0.75) * self.width, self.rng.uniform(0.14, 0.32) * self.height
        scale = min(self.width, self.height)
        shapes: list[list[Point]] = []
        for _ in range(self.rng.randint(3, 6)):
            wing = self.rng.uniform(0.010, 0.018) * scale
            shapes.append([(x - wing, y - wing * 0.5), (x, y), (x + wing, y - wing * 0.55), (x, y + wing * 0.22)])
            x += self.rng.uniform(0.02, 0.06) * scale
            y += self.rng.uniform(-0.03, 0.03) * scale
        self._paint_shapes(shapes, mix(self.palette.near, self.palette.far, 0.3))

    def _paint_shapes(self, shapes: Sequence[Sequence[Point]], color: Color) -> None:
        """Draw polygons with smooth edges, on the part of the image that they cover."""
        spots = [point for shape in shapes for point in shape]
        left, upper = (math.floor(min(spot[axis] for spot in spots)) - 1 for axis in (0, 1))
        wide, high = (math.ceil(max(spot[axis] for spot in spots)) + 1 for axis in (0, 1))
        mask = Image.new("L", ((wide - left) * 4, (high - upper) * 4))
        pen = ImageDraw.Draw(mask)
        for shape in shapes:
            pen.polygon([((x - left) * 4, (y - upper) * 4) for x, y in shape], fill=255)
        self.image.paste(color, (left, upper), mask.reduce(4))

    def _paint_vignette(self) -> None:
        edge = Image.radial_gradient("L").point([round(max(0, value - 120) * 0.5) for value in range(256)])
        self.image.paste(mix(self.palette.near, BLACK, 0.5), mask=edge.resize(self.image.size))

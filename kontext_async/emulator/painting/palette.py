"""Colors for the painter: a palette for every prompt, by its words or else at random. Pure."""

from __future__ import annotations

import colorsys
import re
from typing import TYPE_CHECKING

from attrs import astuple, frozen

if TYPE_CHECKING:
    import random

Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)


@frozen
class Palette:
    """The colors of a landscape: the upper sky, the lower sky, the light, distant land and near land."""

    high: Color
    low: Color
    light: Color
    far: Color
    near: Color

    @property
    def is_dark(self) -> bool:
        """Whether the sky is dark, with stars."""
        return sum(self.high) < 200  # noqa: PLR2004 - of 765


def _parse_palette(*codes: str) -> Palette:
    red_green_blue = (tuple(bytes.fromhex(code)) for code in codes)
    high, low, light, far, near = ((red, green, blue) for red, green, blue in red_green_blue)
    return Palette(high, low, light, far, near)


PALETTES = {
    "dawn": _parse_palette("3f4f86", "f9c9a6", "fff1d6", "a596b8", "2b2a4c"),
    "day": _parse_palette("3f86c4", "d9edf4", "ffffff", "93b9cf", "1d4a66"),
    "dusk": _parse_palette("2b2350", "f4805d", "ffe0ae", "94506f", "1d1534"),
    "ember": _parse_palette("1d1a2f", "e2603f", "ffd694", "83343f", "160f1e"),
    "night": _parse_palette("0a1030", "3a5a8c", "eef4ff", "2c4474", "060a1a"),
    "aurora": _parse_palette("07172a", "23877a", "dcffee", "1c4d5a", "03111a"),
    "snow": _parse_palette("7398bf", "edf3f8", "ffffff", "c3d5e3", "4a6884"),
    "forest": _parse_palette("6a9c92", "edf0cd", "fffbe2", "7ea58a", "12372a"),
    "rose": _parse_palette("6a5c9a", "fad2d6", "fff4ef", "bd95b6", "432c5b"),
    "desert": _parse_palette("5688ad", "f7dcae", "fff5da", "dda36c", "66311f"),
    "sea": _parse_palette("1f6391", "c4e8ea", "fffdf0", "66a9bb", "0b3350"),
    "violet": _parse_palette("231a4c", "ac80d8", "ffecfb", "61479a", "130d2d"),
}

PALETTE_WORDS = {
    "dawn": "dawn morning sunrise mist fog peach",
    "day": "day sky cloud clouds summer bird city",
    "dusk": "dusk sunset evening autumn orange fox golden",
    "ember": "fire lava volcano dragon red ember flame candle lantern",
    "night": "night midnight star stars moon owl space galaxy dark",
    "aurora": "aurora northern teal emerald neon",
    "snow": "snow winter ice arctic white frost polar glacier",
    "forest": "forest tree trees green garden leaf meadow jungle moss",
    "rose": "rose pink flower flowers spring cherry blossom love",
    "desert": "desert sand dune dunes camel canyon gold wheat",
    "sea": "sea ocean boat ship beach wave waves blue lighthouse lake river water island",
    "violet": "violet purple magic dream lavender",
}
PALETTE_BY_WORD = {word: name for name, words in PALETTE_WORDS.items() for word in words.split()}


def extract_words(prompt: str) -> list[str]:
    """Return the prompt's words in lower case."""
    return re.findall(r"[a-z]+", prompt.lower())


def choose_palette(prompt: str, rng: random.Random) -> Palette:
    """Return the palette of a prompt: by its last known word, or at random; with slightly rotated hues."""
    named = [PALETTE_BY_WORD[word] for word in extract_words(prompt) if word in PALETTE_BY_WORD]
    base = PALETTES[named[-1]] if named else PALETTES[rng.choice(sorted(PALETTES))]
    turn = rng.uniform(-0.025, 0.025)
    return Palette(*(_rotate_hue(color, turn) for color in astuple(base)))


def mix(one: Color, other: Color, share: float) -> Color:
    """Return the mixture of two colors, with `share` of the other one."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _rotate_hue(color: Color, turn: float) -> Color:
    hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in color))
    red, green, blue = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)

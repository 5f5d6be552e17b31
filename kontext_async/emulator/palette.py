"""Colours for the painter: a palette for every prompt, by its words or else by chance. Pure."""

from __future__ import annotations

import colorsys
import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import random

Colour = tuple[int, int, int]


@attrs.frozen
class Palette:
    """The colours of a landscape: of the sky above and below, of its light, of what is far and near."""

    high: Colour
    low: Colour
    light: Colour
    far: Colour
    near: Colour

    @property
    def is_dark(self) -> bool:
        """Whether it is a night's sky, with stars."""
        return sum(self.high) < 200  # noqa: PLR2004 - of 765


def _palette(*codes: str) -> Palette:
    red_green_blue = (tuple(bytes.fromhex(code)) for code in codes)
    high, low, light, far, near = ((red, green, blue) for red, green, blue in red_green_blue)
    return Palette(high, low, light, far, near)


PALETTES = {
    "dawn": _palette("3f4f86", "f9c9a6", "fff1d6", "a596b8", "2b2a4c"),
    "day": _palette("3f86c4", "d9edf4", "ffffff", "93b9cf", "1d4a66"),
    "dusk": _palette("2b2350", "f4805d", "ffe0ae", "94506f", "1d1534"),
    "ember": _palette("1d1a2f", "e2603f", "ffd694", "83343f", "160f1e"),
    "night": _palette("0a1030", "3a5a8c", "eef4ff", "2c4474", "060a1a"),
    "aurora": _palette("07172a", "23877a", "dcffee", "1c4d5a", "03111a"),
    "snow": _palette("7398bf", "edf3f8", "ffffff", "c3d5e3", "4a6884"),
    "forest": _palette("6a9c92", "edf0cd", "fffbe2", "7ea58a", "12372a"),
    "rose": _palette("6a5c9a", "fad2d6", "fff4ef", "bd95b6", "432c5b"),
    "desert": _palette("5688ad", "f7dcae", "fff5da", "dda36c", "66311f"),
    "sea": _palette("1f6391", "c4e8ea", "fffdf0", "66a9bb", "0b3350"),
    "violet": _palette("231a4c", "ac80d8", "ffecfb", "61479a", "130d2d"),
}

_WORDS = {
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
_BY_WORD = {word: name for name, words in _WORDS.items() for word in words.split()}


def words_of(prompt: str) -> list[str]:
    """The prompt's words in lower case."""
    return re.findall(r"[a-z]+", prompt.lower())


def palette_for(prompt: str, rng: random.Random) -> Palette:
    """The palette of a prompt: by its last telling word, or by chance; with its hues turned a little."""
    named = [_BY_WORD[word] for word in words_of(prompt) if word in _BY_WORD]
    base = PALETTES[named[-1]] if named else PALETTES[rng.choice(sorted(PALETTES))]
    turn = rng.uniform(-0.025, 0.025)
    return Palette(*(_turned(colour, turn) for colour in attrs.astuple(base)))


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` of the other colour in the one."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _turned(colour: Colour, turn: float) -> Colour:
    hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in colour))
    red, green, blue = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)

"""Converts the texts of options into values: paths, durations, and pairs of a name and a text."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from kontext_async.images.urls import is_file_url, parse_file_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import Token

__all__ = ["Duration", "LocalPath", "to_duration", "to_pairs", "to_path"]

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""The seconds of each unit; a number without a unit is seconds."""

DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)\s*(ms|s|min|m|h|d)", re.ASCII)
DURATION_RULE = "it must be a duration such as 30s, 30m, 1h30m, or a number of seconds"


def to_path(text: str) -> Path:
    """Return the path that a text names: a plain one, one that begins with ``~``, or a ``file://`` URL.

    A shell expands ``~`` only where a word begins with it, and not in ``--out=~/images``.

    Raises:
        ValueError: The text names no file of this computer.
    """
    if is_file_url(text):
        return Path(parse_file_url(text))
    if not text:
        raise ValueError("it must be a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user: the name of a file may begin with ~
        return Path(text)


def to_duration(text: str) -> float:
    """Return the seconds of a duration: ``30s``, ``30m``, ``2h``, ``1h30m``, or a number of seconds.

    Raises:
        ValueError: The text is not a duration.
    """
    text = text.strip().lower()
    parts = DURATION_PART.findall(text)
    rest = DURATION_PART.sub("", text).strip()
    try:
        seconds = sum(float(number) * UNITS[unit] for number, unit in parts) if parts and not rest else float(text)
    except ValueError:
        raise ValueError(DURATION_RULE) from None
    if not 0 <= seconds < math.inf:
        raise ValueError(DURATION_RULE)
    return seconds


def to_pairs(texts: Sequence[str]) -> dict[str, str]:
    """Return the pairs of texts of the form ``KEY=VALUE``.

    Raises:
        ValueError: A text has another form, or a key is given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ValueError(f"{text}: it must be KEY=VALUE")
        if key in pairs:
            raise ValueError(f"{key}: it is given twice")
        pairs[key] = value
    return pairs


def _convert_path(_: Any, tokens: Sequence[Token]) -> Path:
    return to_path(tokens[0].value)


def _convert_duration(_: Any, tokens: Sequence[Token]) -> float:
    return to_duration(tokens[0].value)


LocalPath = Annotated[Path, Parameter(converter=_convert_path)]
"""A path, as `to_path` reads it."""

Duration = Annotated[float, Parameter(converter=_convert_duration, metavar="DURATION")]
"""Seconds, as `to_duration` reads them."""

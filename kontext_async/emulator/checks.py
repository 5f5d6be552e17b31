"""Checks of constructor values, for attrs: each raises `ValueError`, for a wrong type too, and names the field."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import attrs

Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether `value` is a real number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def number(*, above: float | None = None, least: float | None = None, most: float | None = None) -> Check:
    """Make a check for a number: `above` is exclusive, `least` and `most` are inclusive."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not is_number(value):
            raise ValueError(f"{attribute.name} must be a number, not {value!r}")
        if above is not None and not value > above:
            raise ValueError(f"{attribute.name} must be above {above}, not {value!r}")
        if least is not None and value < least:
            raise ValueError(f"{attribute.name} must be at least {least}, not {value!r}")
        if most is not None and value > most:
            raise ValueError(f"{attribute.name} must be at most {most}, not {value!r}")

    return check


def integer(*, least: int, most: int | None = None) -> Check:
    """Make a check for an integer between `least` and `most`, both included."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{attribute.name} must be an integer, not {value!r}")  # noqa: TRY004
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"between {least} and {most}"
            raise ValueError(f"{attribute.name} must be {bounds}, not {value!r}")

    return check


def instance(*kinds: type) -> Check:
    """Make a check for an instance of one of `kinds`."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{attribute.name} must be {names}, not {type(value).__name__}")  # noqa: TRY004

    return check

"""Validators and converters for attrs fields. Each raises `ValueError`, for a wrong type too, and names the field."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeGuard

from kontext_async.emulator.fault_kinds import ErrorShape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attrs import Attribute

Validator = Callable[[Any, "Attribute[Any]", Any], None]


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether `value` is a real number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def validate_number(*, above: float | None = None, least: float | None = None, most: float | None = None) -> Validator:
    """Return a validator for a number: `above` is exclusive, `least` and `most` are inclusive."""

    def validate(_: object, attribute: Attribute[Any], value: object) -> None:
        if not is_number(value):
            raise ValueError(f"{attribute.name} must be a number, not {value!r}")
        if above is not None and not value > above:
            raise ValueError(f"{attribute.name} must be above {above}, not {value!r}")
        if least is not None and value < least:
            raise ValueError(f"{attribute.name} must be at least {least}, not {value!r}")
        if most is not None and value > most:
            raise ValueError(f"{attribute.name} must be at most {most}, not {value!r}")

    return validate


def validate_integer(*, least: int, most: int | None = None) -> Validator:
    """Return a validator for an integer between `least` and `most`, both included."""

    def validate(_: object, attribute: Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{attribute.name} must be an integer, not {value!r}")  # noqa: TRY004
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"between {least} and {most}"
            raise ValueError(f"{attribute.name} must be {bounds}, not {value!r}")

    return validate


def validate_instance(*classes: type) -> Validator:
    """Return a validator for an instance of one of `classes`."""

    def validate(_: object, attribute: Attribute[Any], value: object) -> None:
        if not isinstance(value, classes):
            names = " or ".join(each.__name__ for each in classes)
            raise ValueError(f"{attribute.name} must be {names}, not {type(value).__name__}")  # noqa: TRY004

    return validate


def validate_amount(_: object, attribute: Attribute[Any], value: Decimal) -> None:
    """Validate that an amount of money is finite and not negative."""
    if not value.is_finite() or value < 0:
        raise ValueError(f"{attribute.name} must be a finite amount of at least 0, not {value}")


def validate_optional(validator: Validator) -> Validator:
    """Return a validator that accepts None, and otherwise applies `validator`."""

    def validate(instance: Any, attribute: Attribute[Any], value: Any) -> None:
        if value is not None:
            validator(instance, attribute, value)

    return validate


def to_amount(value: Decimal | float | str) -> Decimal:
    """Convert an amount of money to a decimal.

    Raises:
        ValueError: The value is not a decimal number.
    """
    try:
        return Decimal(str(value))
    except ArithmeticError:
        raise ValueError(f"price and balance must be decimal amounts, not {value!r}") from None


def to_error_shapes(value: ErrorShape | str | Iterable[ErrorShape | str]) -> tuple[ErrorShape, ...]:
    """Convert one shape, or several, to a tuple of shapes.

    Raises:
        ValueError: There is no shape, or one is unknown.
    """
    names = [value] if isinstance(value, str) else list(value)
    if not names:
        raise ValueError("error_shapes must name at least one shape")
    try:
        return tuple(ErrorShape(name) for name in names)
    except ValueError:
        raise ValueError(f"error_shapes must be among {', '.join(ErrorShape)}, not {value!r}") from None

"""Python values to money, numbers and times: PROTOCOL.md, "The task". A value of a wrong type is None, not an error."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from kontext_async.models import MILLISECONDS_FROM

__all__ = ["read_fraction", "read_money", "read_number", "read_text", "read_time"]

MAX_MONEY_DIGITS = 12
"""The most digits before the decimal point. A larger amount is nonsense, and could not be summed exactly."""


def read_money(value: object) -> Decimal | None:
    """Return an amount that is text or a number, exactly."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount.adjusted() < MAX_MONEY_DIGITS else None


def read_number(value: object) -> float | None:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def read_fraction(value: object) -> float | None:
    """Return a number, clipped to the range from 0 to 1."""
    if type(value) is float and 0 <= value <= 1:
        return value
    number = read_number(value)
    return None if number is None else min(1.0, max(0.0, number))


def read_time(value: object) -> datetime | None:
    """Return the date and time of seconds or milliseconds since the epoch; the size decides the unit."""
    number = read_number(value)
    return None if number is None else _to_datetime(number)


@lru_cache(maxsize=1024)
def _to_datetime(number: float) -> datetime | None:
    """Convert a time. The cache helps because each response repeats a task's time, and tasks share theirs."""
    try:
        return datetime.fromtimestamp(number / 1000 if abs(number) >= MILLISECONDS_FROM else number, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def read_text(value: object) -> str | None:
    """Return a text."""
    return value if isinstance(value, str) else None

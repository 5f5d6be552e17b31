"""Python values to money, numbers and times: PROTOCOL.md, "The task". A value of a wrong type is None, not an error."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Context, Decimal
from functools import lru_cache

from kontext_async.models import MILLISECONDS_FROM
from kontext_async.redaction import truncate

__all__ = ["read_currency", "read_fraction", "read_integer", "read_money", "read_number", "read_text", "read_time"]

MAX_MONEY_DIGITS = 12
"""The most digits before the decimal point. A larger amount is nonsense, and could not be summed exactly."""

MONEY_DECIMALS = 15
"""The digits after the decimal point that are kept: with those before it, sums are exact in the usual precision."""

MONEY_UNIT = Decimal(1).scaleb(-MONEY_DECIMALS)
MONEY_CONTEXT = Context(prec=MAX_MONEY_DIGITS + MONEY_DECIMALS + 1)

NUMBER = re.compile(r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,100}|\.[0-9]{1,100})(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
"""A number as text, of bounded length and magnitude."""

MAX_INTEGER_BITS = 128

USD = "USD"


def read_money(value: object) -> Decimal | None:
    """Return an amount that is text or a number, exactly to 15 decimals; a negative one is no amount."""
    text = _read_digits(value)
    amount = None if text is None else Decimal(text)
    if amount is None or amount < 0 or amount.adjusted() >= MAX_MONEY_DIGITS:
        return None
    is_long = amount.as_tuple().exponent < -MONEY_DECIMALS  # type: ignore[operator] # it is finite
    return (amount.quantize(MONEY_UNIT, context=MONEY_CONTEXT) if is_long else amount).copy_abs()


def read_currency(value: object) -> str:
    """Return the name of a currency: dollars, if the gateway names none."""
    if value is None or value == "":
        return USD
    name = truncate(value, 40).strip()
    return USD if name.upper() == USD else name


def read_number(value: object) -> float | None:
    """Return a finite number, which may come as text."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    text = _read_digits(value)
    return None if text is None else float(text)


def read_integer(value: object) -> int | None:
    """Return a whole number, which may come as text."""
    number = read_number(value)
    return int(number) if number is not None and number.is_integer() else None


def _read_digits(value: object) -> str | None:
    """Return a number as text in a form that every numeric type reads; None if it is not one, or is too long."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        return None
    text = str(value).strip()
    return text if NUMBER.fullmatch(text) else None


def read_fraction(value: object) -> float | None:
    """Return a number, clipped to the range from 0 to 1."""
    if value is None or (type(value) is float and 0 <= value <= 1):
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

"""Amounts of money in USD: which ones make sense, and how a database's text becomes one. Pure."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

__all__ = ["is_money", "read_money"]

MAX_DIGITS = 30
MAX_EXPONENT = 30
"""Bounds of an amount. A journal stores 40 characters."""


def is_money(amount: Decimal) -> bool:
    """Return True for an amount that a gateway can have billed: finite, not negative, and of bounded length."""
    return (
        amount.is_finite()
        and amount >= 0
        and abs(amount.adjusted()) <= MAX_EXPONENT
        and len(amount.as_tuple().digits) <= MAX_DIGITS
    )


@lru_cache(maxsize=256)  # a gateway has few prices
def read_money(text: object) -> Decimal:
    """Read an amount of USD from a database.

    Raises:
        ValueError: It is not a finite amount of at least 0, or has more digits than a price has.
    """
    try:
        amount = Decimal(text) if isinstance(text, str) else Decimal("NaN")
    except ArithmeticError:
        amount = Decimal("NaN")
    if not is_money(amount):
        raise ValueError("an amount of money must be text of a number of at least 0")
    return amount

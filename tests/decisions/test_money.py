"""Amounts of money: which ones make sense, and how a database's text becomes one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from kontext_async.decisions.money import is_money, read_money


@pytest.mark.parametrize("text", ["0", "0.04", "12", "1E-9", "999999999999.123456789012345", "0E-30"])
def test_an_amount_is_read_exactly(text: str) -> None:
    amount = read_money(text)
    assert is_money(amount)
    assert str(amount) == str(Decimal(text))


@pytest.mark.parametrize(
    "value",
    ["", "four", "-0.01", "NaN", "sNaN", "Infinity", "-Infinity", "1E+31", "1E-31", "1" * 31, None, 0.04, 4, b"4"],
)
def test_what_is_no_amount_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="an amount of money must be text of a number of at least 0"):
        read_money(value)


@given(st.decimals())
def test_an_amount_survives_its_text_and_fits_the_column(amount: Decimal) -> None:
    if is_money(amount):
        assert read_money(str(amount)) == amount
        assert len(str(amount)) <= 40
    else:
        with pytest.raises(ValueError, match="an amount of money"):
            read_money(str(amount))

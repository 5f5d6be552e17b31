"""Money, numbers and times in a response."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st
from response_support import read_response

from kontext_async.models import Usage
from kontext_async.protocol.values import read_money


@pytest.mark.parametrize(
    ("value", "progress"),
    [
        (0, 0.0),
        (0.0, 0.0),
        (0.42, 0.42),
        (1, 1.0),
        (1.5, 1.0),
        (-0.1, 0.0),
        (None, None),
        ("0.4", 0.4),
        (" 1 ", 1.0),
        ("half", None),
        ("0x1", None),
        ("1_0", None),
        ("nan", None),
        ("inf", None),
        ("9" * 500, None),
        ("", None),
        (True, None),
        ([], None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
def test_progress_is_a_fraction_or_none(value: Any, progress: float | None) -> None:
    assert read_response(progress=value).progress == progress


def test_missing_progress_is_none() -> None:
    assert read_response().progress is None


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (1767965610, datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC)),
        (1767965610000, datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC)),
        (1767965610.5, datetime(2026, 1, 9, 13, 33, 30, 500_000, tzinfo=UTC)),
        (1767965610500, datetime(2026, 1, 9, 13, 33, 30, 500_000, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (99_999_999_999, datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC)),
        (100_000_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        (10**15, None),
        (10**30, None),
        (-(10**15), None),
        (10**400, None),
        (None, None),
        (True, None),
        ("1767965610", datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC)),
        ("1767965610500", datetime(2026, 1, 9, 13, 33, 30, 500_000, tzinfo=UTC)),
        ("1767965610.5", datetime(2026, 1, 9, 13, 33, 30, 500_000, tzinfo=UTC)),
        ("2026-01-09", None),
        ({}, None),
        (float("nan"), None),
    ],
)
def test_the_size_of_a_time_decides_between_seconds_and_milliseconds(value: Any, time: datetime | None) -> None:
    assert read_response(created_at=value).created_at == time


@pytest.mark.parametrize(
    ("value", "cost"),
    [
        ("0.04", Decimal("0.04")),
        (" 0.04 ", Decimal("0.04")),
        ("0", Decimal(0)),
        (0.04, Decimal("0.04")),
        (1, Decimal(1)),
        ("", None),
        (" ", None),
        (None, None),
        ("free", None),
        ("NaN", None),
        ("Infinity", None),
        (float("nan"), None),
        (True, None),
        ([], None),
        ("1e999999999999999999999", None),
        ("9e999999", None),
        ("999999999999.99", Decimal("999999999999.99")),
        ("1000000000000", None),
        (10**400, None),
        ("-1000", None),
        (-0.01, None),
        (-1, None),
        ("-0", Decimal(0)),
        ("1E-6000000", None),
        ("0E-6000000", None),
        ("1E-15", Decimal("1E-15")),
        ("1E-16", Decimal(0)),
        ("1e-7", Decimal("0.0000001")),
        ("0." + "3" * 90, Decimal("0.333333333333333")),
        ("0." + "3" * 10_000, None),
        ("999999999999." + "3" * 90, Decimal("999999999999.333333333333333")),
        ("9" * 10_000, None),
        ("1_0", None),
        ("١", None),  # noqa: RUF001 # a digit, but not one of JSON
        ("$0.04", None),
    ],
)
def test_a_cost_is_exact_or_none(value: Any, cost: Decimal | None) -> None:
    usage = read_response(status="completed", usage={"cost": value}).usage
    assert usage is not None
    assert usage.cost == cost


@given(
    st.one_of(st.decimals(), st.floats(), st.integers()).map(str) | st.text(max_size=20) | st.integers() | st.floats()
)
def test_any_cost_is_none_or_a_short_amount_that_is_not_negative(value: Any) -> None:
    cost = read_money(value)
    assert cost is None or (cost >= 0 and len(f"{cost:f}") <= 40 and not cost.is_signed())


def test_costs_of_any_size_sum_exactly() -> None:
    costs = [read_money("999999999999.5"), read_money("0.0000000000001")]
    assert sum(cost for cost in costs if cost) == Decimal("999999999999.5000000000001")


@pytest.mark.parametrize(
    ("currency", "shown"), [("credit", "credit"), ("EUR", "EUR"), ("\x1b[1m", "\\x1b[1m"), (7, "7"), ([], "[]")]
)
def test_a_cost_in_another_currency_is_an_amount_and_no_cost(currency: Any, shown: str) -> None:
    usage = read_response(status="completed", usage={"cost": "4", "currency": currency, "quantity": 1}).usage
    assert usage == Usage(currency=shown, amount=Decimal(4), extra={"quantity": 1})


@pytest.mark.parametrize("currency", ["USD", "usd", " USD ", "", None])
def test_a_cost_in_dollars_is_a_cost(currency: Any) -> None:
    usage = read_response(status="completed", usage={"cost": "4", "currency": currency}).usage
    assert usage == Usage(cost=Decimal(4))


@pytest.mark.parametrize(("value", "discount"), [(1, 1.0), (0.7, 0.7), (None, None), ("0.7", 0.7), (True, None)])
def test_a_discount_is_a_number_or_none(value: Any, discount: float | None) -> None:
    usage = read_response(usage={"discount": value}).usage
    assert usage is not None
    assert usage.discount == discount

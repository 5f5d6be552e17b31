"""Money, numbers and times in a response."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from response_support import read_response


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
        ("0.4", None),
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
    ],
)
def test_a_cost_is_exact_or_none(value: Any, cost: Decimal | None) -> None:
    usage = read_response(status="completed", usage={"cost": value}).usage
    assert usage is not None
    assert usage.cost == cost


@pytest.mark.parametrize(("value", "discount"), [(1, 1.0), (0.7, 0.7), (None, None), ("0.7", None), (True, None)])
def test_a_discount_is_a_number_or_none(value: Any, discount: float | None) -> None:
    usage = read_response(usage={"discount": value}).usage
    assert usage is not None
    assert usage.discount == discount

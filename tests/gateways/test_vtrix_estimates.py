"""A price, read from the response to a precharge request."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kontext_async.errors import InvalidResponse, PermissionDenied
from kontext_async.gateways.vtrix_estimates import read_estimate
from kontext_async.models import Estimate


def encode_estimate(**data: Any) -> bytes:
    return json.dumps({"status": "success", "data": data}).encode()


def test_a_price_is_read() -> None:
    body = encode_estimate(model="flux_kontext_pro", cost="0.0357", currency="USD", discount=0.7, sample_count=4)
    assert read_estimate(body) == Estimate(cost=Decimal("0.0357"), discount=0.7, model="flux_kontext_pro")


def test_an_unknown_price_has_a_reason_and_no_cost() -> None:
    body = b'{"status": "failed", "data": {"cost": null, "reason": "COST_CACHE_MISS"}}'
    assert read_estimate(body) == Estimate(reason="COST_CACHE_MISS")


def test_a_price_in_another_currency_is_not_a_cost() -> None:
    estimate = read_estimate(encode_estimate(cost="4", currency="credit"))
    assert estimate == Estimate(currency="credit", amount=Decimal(4))
    assert estimate.cost is None


def test_the_discount_of_a_price_may_be_text() -> None:
    assert read_estimate(encode_estimate(cost=0.04, discount="0.7")) == Estimate(cost=Decimal("0.04"), discount=0.7)


def test_other_keys_of_a_price_are_kept() -> None:
    estimate = read_estimate(encode_estimate(cost="4", billing_model="m", original_model="o", hash="h", updated_at=1))
    assert estimate.extra == {"billing_model": "m", "original_model": "o", "hash": "h", "updated_at": 1}


def test_a_refusal_with_status_200_is_an_error_and_no_price() -> None:
    with pytest.raises(PermissionDenied) as caught:
        read_estimate(b'{"status": {"code": 403, "message": "too low", "error_code": 40203}}')
    assert (caught.value.code, caught.value.concerns_balance) == ("40203", True)


@pytest.mark.parametrize("cost", ["-1", "1E-6000000", "free", None, [], True])
def test_an_invalid_cost_is_none(cost: Any) -> None:
    assert read_estimate(encode_estimate(cost=cost)).cost is None


@pytest.mark.parametrize("data", [None, [], "x", 7])
def test_data_that_is_not_an_object_has_no_cost(data: Any) -> None:
    assert read_estimate(json.dumps({"data": data}).encode()) == Estimate()


@pytest.mark.parametrize("body", [b"", b"<html></html>", b"[]", b"null", b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidResponse, match="not a JSON object") as caught:
        read_estimate(body, status=203)
    assert caught.value.status == 203


@given(st.binary(max_size=100))
def test_any_body_is_an_estimate_or_an_invalid_response(body: bytes) -> None:
    try:
        estimate = read_estimate(body)
    except InvalidResponse as error:
        assert error.status == 200  # noqa: PT017 # both results are right
    else:
        assert estimate.cost is None or estimate.cost >= 0

"""A price, from the response to a precharge request: PROTOCOL.md, "Precharge".

A gateway that does not know the price says so. That is a valid response: an estimate without a cost.
"""

from __future__ import annotations

from http import HTTPStatus

from kontext_async.errors import InvalidResponse
from kontext_async.models import Estimate
from kontext_async.protocol.decoding import loads_lenient
from kontext_async.protocol.errors import refusal_despite_success
from kontext_async.protocol.values import USD, read_currency, read_money, read_number
from kontext_async.redaction import truncate, truncate_body

__all__ = ["read_estimate"]

DESCRIBED_KEYS = frozenset({"cost", "currency", "discount", "model", "reason"})
"""The keys of a price that have a field. Others go to `Estimate.extra`."""


def read_estimate(body: bytes, *, status: int = HTTPStatus.OK.value) -> Estimate:
    """Read the response to a precharge request.

    Args:
        body: The response body.
        status: The HTTP status, for the error.

    Raises:
        InvalidResponse: The body is not a JSON object.
        GatewayError: It is a refusal, despite the HTTP status.
    """
    try:
        payload = loads_lenient(body)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise InvalidResponse("the estimate is not a JSON object", status=status, body=truncate_body(body))
    if refusal := refusal_despite_success(status, body):
        raise refusal
    data = payload.get("data")
    fields = data if isinstance(data, dict) else {}
    currency = read_currency(fields.get("currency"))
    price = read_money(fields.get("cost"))
    return Estimate(
        cost=price if currency == USD else None,
        currency=currency,
        amount=None if currency == USD else price,
        discount=read_number(fields.get("discount")),
        model=_read_label(fields.get("model")),
        reason=_read_label(fields.get("reason")),
        extra={key: value for key, value in fields.items() if key not in DESCRIBED_KEYS},
    )


def _read_label(value: object) -> str | None:
    return truncate(value, 80) if isinstance(value, str) and value else None

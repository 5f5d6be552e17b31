"""A price, from the response to a precharge request: PROTOCOL.md, "Precharge".

A gateway that does not know the price says so. That is a valid response: an estimate without a cost.
"""

from __future__ import annotations

from http import HTTPStatus

from kontext_async.errors import InvalidResponse
from kontext_async.models import Estimate
from kontext_async.protocol.decoding import loads_lenient
from kontext_async.protocol.values import read_money, read_number
from kontext_async.redaction import truncate, truncate_body

__all__ = ["read_estimate"]


def read_estimate(body: bytes, *, status: int = HTTPStatus.OK.value) -> Estimate:
    """Read the response to a precharge request.

    Args:
        body: The response body.
        status: The HTTP status, for the error.

    Raises:
        InvalidResponse: The body is not a JSON object.
    """
    try:
        payload = loads_lenient(body)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise InvalidResponse("the estimate is not a JSON object", status=status, body=truncate_body(body))
    data = payload.get("data")
    fields = data if isinstance(data, dict) else {}
    currency = _read_label(fields.get("currency"))
    cost = read_money(fields.get("cost")) if currency in (None, "USD") else None
    return Estimate(
        cost=None if cost is None or cost < 0 else cost,
        currency=currency or "USD",
        discount=read_number(fields.get("discount")),
        model=_read_label(fields.get("model")),
        reason=_read_label(fields.get("reason")),
    )


def _read_label(value: object) -> str | None:
    return truncate(value, 80) if isinstance(value, str) and value else None

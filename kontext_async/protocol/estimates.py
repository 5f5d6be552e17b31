"""What a request would cost: PROTOCOL.md, "Precharge". No I/O in here.

A gateway that does not know says so, and that is an answer: an estimate without a cost.
"""

from __future__ import annotations

from kontext_async.errors import InvalidResponse
from kontext_async.models import Estimate
from kontext_async.protocol.decoding import loads_lenient
from kontext_async.protocol.responses import read_money, read_number
from kontext_async.redaction import body_excerpt, truncate

__all__ = ["read_estimate"]


def read_estimate(body: bytes, *, status: int = 200) -> Estimate:
    """The answer to a precharge request.

    Args:
        body: The answer's body.
        status: The HTTP status, for the error.

    Raises:
        InvalidResponse: It is not a JSON object.
    """
    try:
        payload = loads_lenient(body)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise InvalidResponse(
            "the estimate cannot be read: it is no JSON object", status=status, body=body_excerpt(body)
        )
    data = payload.get("data")
    told = data if isinstance(data, dict) else {}
    currency = _text(told.get("currency"))
    cost = read_money(told.get("cost")) if currency in (None, "USD") else None
    return Estimate(
        cost=None if cost is None or cost < 0 else cost,
        currency=currency or "USD",
        discount=read_number(told.get("discount")),
        model=_text(told.get("model")),
        reason=_text(told.get("reason")),
    )


def _text(value: object) -> str | None:
    return truncate(value, 80) if isinstance(value, str) and value else None

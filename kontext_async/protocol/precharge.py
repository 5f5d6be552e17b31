"""What a request would cost: PROTOCOL.md, "Precharge". No I/O in here.

A gateway that does not know says so, and that is an answer: an estimate without a cost.
"""

from __future__ import annotations

from kontext_async.errors import MalformedAnswer
from kontext_async.models import Estimate
from kontext_async.protocol.answers import read_money, read_number
from kontext_async.protocol.decoding import decoded
from kontext_async.redaction import excerpt, shown_body

__all__ = ["read_estimate"]


def read_estimate(body: bytes, *, status: int = 200) -> Estimate:
    """The answer to a precharge request.

    Args:
        body: The answer's body.
        status: The HTTP status, for the error.

    Raises:
        MalformedAnswer: It is not a JSON object.
    """
    try:
        payload = decoded(body)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise MalformedAnswer("the estimate cannot be read: it is no JSON object", status=status, body=shown_body(body))
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
    return excerpt(value, 80) if isinstance(value, str) and value else None

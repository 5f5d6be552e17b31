"""The parts of a task that all dialects share: its status in progress, and what was billed."""

from __future__ import annotations

from typing import NamedTuple

from kontext_async.models import Usage
from kontext_async.protocol.values import USD, read_currency, read_money, read_number

__all__ = ["MAX_IMAGES", "MAX_STATUS_LENGTH", "InProgress", "read_usage"]

MAX_STATUS_LENGTH = 80

MAX_IMAGES = 64
"""The most images of a task that are read. One is usual; a response with far more would keep the event loop busy."""

DESCRIBED_USAGE = frozenset({"cost", "currency", "discount"})


class InProgress(NamedTuple):
    """A poll's result for a task that is still in progress.

    Attributes:
        progress: 0.0 to 1.0; None if the gateway did not report it.
    """

    progress: float | None


def read_usage(value: object) -> Usage | None:
    """Return the amount that the gateway billed, from the ``usage`` of a task; None if there is none."""
    if not isinstance(value, dict):
        return None
    currency = read_currency(value.get("currency"))
    billed = read_money(value.get("cost"))
    return Usage(
        cost=billed if currency == USD else None,
        currency=currency,
        amount=None if currency == USD else billed,
        discount=read_number(value.get("discount")),
        extra={key: item for key, item in value.items() if key not in DESCRIBED_USAGE},
    )

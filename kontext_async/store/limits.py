"""Decides if the cost limit of a run admits one more create request, for all workers of the run together. Pure."""

from __future__ import annotations

from decimal import Decimal  # noqa: TC003 # attrs resolves it
from typing import TYPE_CHECKING

from attrs import frozen

from kontext_async.store.steps import State

if TYPE_CHECKING:
    from kontext_async.store.steps import Intended

__all__ = ["IN_FLIGHT", "Commitment", "admits"]

IN_FLIGHT = frozenset({State.INTENT, State.ACCEPTED})
"""The states in which the cost of a row is open and will become known."""


@frozen(kw_only=True)
class Commitment:
    """The amount that the other rows of a run have cost or may cost.

    Attributes:
        committed: USD that the run has spent, and that its other rows may still cost.
        in_flight: The number of other rows whose cost is open and will become known.
        unpriced: The number of those that have reserved nothing: their price is not known.
    """

    committed: Decimal
    in_flight: int
    unpriced: int


def admits(step: Intended, commitment: Commitment) -> bool:
    """Return True if the limit admits the request.

    A request of an unknown price must be the only one in flight; it may pass the limit.
    """
    if step.limit is None:
        return True
    if step.reserved is None:
        return commitment.in_flight == 0 and commitment.committed < step.limit
    return commitment.unpriced == 0 and commitment.committed + step.reserved <= step.limit

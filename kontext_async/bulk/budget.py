"""Stops submitting before the cost limit is exceeded. Pure: no I/O, no clock. Money is in USD.

Requests in flight and uncertain requests count with the highest price of their kind that was seen or estimated, because
they may be billed. As long as no price is known, one request is in flight at a time, to learn it.
"""

from __future__ import annotations

import enum
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

if TYPE_CHECKING:
    from kontext_async.models import KontextRequest

__all__ = ["Admission", "Budget", "PriceKind", "price_kind"]

PriceKind: TypeAlias = tuple[str, int]
"""The model and the number of input images, which set the price."""


def price_kind(request: KontextRequest) -> PriceKind:
    """Return the price kind of a request."""
    return request.model, len(request.input_images)


class Admission(enum.Enum):
    """The decision whether one more request may be submitted."""

    GRANTED = enum.auto()
    WAIT = enum.auto()
    """Not now: requests in flight may turn out cheaper, or show the price."""
    EXHAUSTED = enum.auto()
    UNKNOWN = enum.auto()
    """The gateway does not report what images cost."""


@define
class Budget:
    """The account of a run: its limit, and the money that is spent or may be billed.

    Attributes:
        limit: The amount that may be spent in total; None for no limit.
        spent: The cost of completed requests, including those of earlier runs.
        in_flight: Requests that are submitted, or about to be, by kind.
        owed: Requests that are or may be billed and whose cost is unknown: accepted by earlier runs, or uncertain.
        prices: The highest price of each kind that was seen or estimated.
        untold: Kinds of which a request completed without a reported cost.
    """

    limit: Decimal | None = None
    spent: Decimal = Decimal(0)
    in_flight: Counter[PriceKind] = field(factory=Counter)
    owed: Counter[PriceKind] = field(factory=Counter)
    prices: dict[PriceKind, Decimal] = field(factory=dict)
    untold: set[PriceKind] = field(factory=set)

    @property
    def committed(self) -> Decimal:
        """The amount that is spent, in flight and owed, as far as prices are known."""
        return self.spent + sum(
            (count * self.prices.get(kind, Decimal(0)) for kind, count in (self.in_flight + self.owed).items()),
            Decimal(0),
        )

    def learn(self, kind: PriceKind, cost: Decimal | None) -> None:
        """Record a price that was seen or estimated."""
        if cost is not None:
            self.prices[kind] = max(cost, self.prices.get(kind, cost))

    def admit(self, kind: PriceKind) -> Admission:
        """Decide whether one more request of a kind may be submitted. If granted, it counts as in flight."""
        admission = Admission.GRANTED if self.limit is None else self._judge(kind, self.limit)
        if admission is Admission.GRANTED:
            self.in_flight[kind] += 1
        return admission

    def _judge(self, kind: PriceKind, limit: Decimal) -> Admission:
        flying = any(self.in_flight.values())
        price = self.prices.get(kind)
        if price is None:
            if kind in self.untold:
                return Admission.WAIT if flying else Admission.UNKNOWN
            if flying:
                return Admission.WAIT
            return Admission.GRANTED if self.committed < limit else Admission.EXHAUSTED
        if self.committed + price <= limit:
            return Admission.GRANTED
        return Admission.WAIT if flying else Admission.EXHAUSTED

    def unpaid(self, kind: PriceKind) -> None:
        """Release a request in flight that is not billed."""
        self.in_flight[kind] -= 1

    def uncertain(self, kind: PriceKind) -> None:
        """Keep a request in flight that may be billed as owed."""
        self.in_flight[kind] -= 1
        self.owed[kind] += 1

    def take_up(self, kind: PriceKind) -> None:
        """Count an owed request as in flight again: its cost will be known."""
        self.owed[kind] -= 1
        self.in_flight[kind] += 1

    def paid(self, kind: PriceKind, cost: Decimal | None) -> None:
        """Record the cost of a request in flight; None if the gateway did not report it."""
        self.in_flight[kind] -= 1
        if cost is None:
            self.untold.add(kind)
            self.owed[kind] += 1
        else:
            self.spent += cost
            self.learn(kind, cost)

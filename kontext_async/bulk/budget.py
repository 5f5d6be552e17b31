"""Stops submitting before the money is spent. Pure: no I/O, no clock. Money is in USD.

What is in flight counts with the highest price that its kind was seen or said to have, what is uncertain too: it may
have been charged. As long as no price is known, one request is in flight at a time, to learn it.
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
"""What a price depends on: the model, and the number of input images."""


def price_kind(request: KontextRequest) -> PriceKind:
    """The kind of price that a request has."""
    return request.model, len(request.input_images)


class Admission(enum.Enum):
    """Whether one more request may be submitted."""

    GRANTED = enum.auto()
    WAIT = enum.auto()
    """Not now: what is in flight may turn out cheaper, or tell the price."""
    EXHAUSTED = enum.auto()
    UNKNOWN = enum.auto()
    """The gateway does not say what pictures cost."""


@define
class Budget:
    """The account of a run.

    Attributes:
        limit: What may be spent in all, None for no limit.
        spent: What finished requests cost, those of earlier runs included.
        in_flight: Requests that are submitted, or about to be, by kind.
        owed: Requests that are or may be paid for, and whose cost is not known: accepted by earlier runs, or uncertain.
        prices: The highest price of a kind that was seen, or said beforehand.
        untold: Kinds of which a request finished without its cost being said.
    """

    limit: Decimal | None = None
    spent: Decimal = Decimal(0)
    in_flight: Counter[PriceKind] = field(factory=Counter)
    owed: Counter[PriceKind] = field(factory=Counter)
    prices: dict[PriceKind, Decimal] = field(factory=dict)
    untold: set[PriceKind] = field(factory=set)

    @property
    def committed(self) -> Decimal:
        """What is spent, in flight and owed, as far as prices are known."""
        return self.spent + sum(
            (count * self.prices.get(kind, Decimal(0)) for kind, count in (self.in_flight + self.owed).items()),
            Decimal(0),
        )

    def learn(self, kind: PriceKind, cost: Decimal | None) -> None:
        """A price was seen, or said beforehand."""
        if cost is not None:
            self.prices[kind] = max(cost, self.prices.get(kind, cost))

    def admit(self, kind: PriceKind) -> Admission:
        """Whether one more of a kind may be submitted; if granted, it is in flight from now on."""
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
        """One in flight came to nothing."""
        self.in_flight[kind] -= 1

    def uncertain(self, kind: PriceKind) -> None:
        """One in flight may or may not be charged."""
        self.in_flight[kind] -= 1
        self.owed[kind] += 1

    def take_up(self, kind: PriceKind) -> None:
        """One that is owed is in hand now: its cost will be known."""
        self.owed[kind] -= 1
        self.in_flight[kind] += 1

    def paid(self, kind: PriceKind, cost: Decimal | None) -> None:
        """One in flight has its cost; None where that was not said."""
        self.in_flight[kind] -= 1
        if cost is None:
            self.untold.add(kind)
            self.owed[kind] += 1
        else:
            self.spent += cost
            self.learn(kind, cost)

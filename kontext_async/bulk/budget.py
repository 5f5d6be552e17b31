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

__all__ = ["Admission", "Budget", "PriceKind", "is_money", "price_kind", "read_money"]

PriceKind: TypeAlias = tuple[str, int]
"""The model and the number of input images, which set the price."""

USD = "USD"
MAX_DIGITS = 30
MAX_EXPONENT = 30
"""Bounds of an amount. The journal stores 40 characters."""


def price_kind(request: KontextRequest) -> PriceKind:
    """Return the price kind of a request."""
    return request.model, len(request.input_images)


def read_money(text: object) -> Decimal:
    """Read an amount of USD from the journal.

    Raises:
        ValueError: It is not a finite amount of at least 0, or has more digits than a price has.
    """
    try:
        amount = Decimal(text) if isinstance(text, str) else Decimal("NaN")
    except ArithmeticError:
        amount = Decimal("NaN")
    if not is_money(amount):
        raise ValueError("an amount of money must be text of a number of at least 0")
    return amount


def is_money(amount: Decimal) -> bool:
    """Return True for an amount that a gateway can have billed: finite, not negative, and of bounded length."""
    return (
        amount.is_finite()
        and amount >= 0
        and abs(amount.adjusted()) <= MAX_EXPONENT
        and (len(amount.as_tuple().digits) <= MAX_DIGITS)
    )


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
        foreign: The currency that the gateway bills or prices in, if it is not USD: the limit cannot be enforced.
    """

    limit: Decimal | None = None
    spent: Decimal = Decimal(0)
    in_flight: Counter[PriceKind] = field(factory=Counter)
    owed: Counter[PriceKind] = field(factory=Counter)
    prices: dict[PriceKind, Decimal] = field(factory=dict)
    untold: set[PriceKind] = field(factory=set)
    foreign: str | None = None

    @property
    def committed(self) -> Decimal:
        """The amount that is spent, in flight and owed, as far as prices are known."""
        return self.spent + sum(
            (count * self.prices.get(kind, Decimal(0)) for kind, count in (self.in_flight + self.owed).items()),
            Decimal(0),
        )

    def learn(self, kind: PriceKind, cost: Decimal | None) -> None:
        """Record a price that was seen or estimated. A price that makes no sense is not known."""
        if cost is not None and is_money(cost):
            self.prices[kind] = max(cost, self.prices.get(kind, cost))

    def learn_currency(self, currency: str) -> None:
        """Record the currency of a bill or of a price."""
        if currency.upper() != USD:
            self.foreign = self.foreign or currency

    def admit(self, kind: PriceKind) -> Admission:
        """Decide whether one more request of a kind may be submitted. If granted, it counts as in flight."""
        admission = Admission.GRANTED if self.limit is None else self._judge(kind, self.limit)
        if admission is Admission.GRANTED:
            self.in_flight[kind] += 1
        return admission

    def _judge(self, kind: PriceKind, limit: Decimal) -> Admission:
        flying = any(self.in_flight.values())
        if self.foreign:
            return Admission.WAIT if flying else Admission.UNKNOWN
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
        if cost is None or not is_money(cost):
            self.untold.add(kind)
            self.owed[kind] += 1
        else:
            self.spent += cost
            self.learn(kind, cost)

"""The cost limit: decides whether one more request may be paid for. Pure: no I/O, no clock. Money is in USD.

`Budget.reserve` returns a `Reservation` for one create request, or a `Refusal`. The holder ends the reservation once:

==================  ==========================================================================================
`settle`            the gateway billed the request: its cost replaces the reservation
`release`           the request is not billed: nothing of it counts
`leave_uncertain`   the request may be billed: it counts with its price for good
==================  ==========================================================================================

A request counts from its reservation on with the highest price of its kind that was seen or estimated. While a price is
unknown, one request is in flight at a time, to learn it. The limit can be passed by that one request only, because its
cost cannot be known before, as long as no other cost exceeds the highest price of its kind that was seen before it.

Several workers may share a limit through a database. Each has a budget of its own, and the database decides when it
writes an intent: the total of all workers and `Reservation.amount` must fit the limit, and of the requests without an
amount one at a time is in flight. After a refusal the holder releases the reservation and records the total that the
database has (`record_total`): `reserve` does not grant the same again before something changes. What the others have
committed ages: a worker that waits reads the total again from time to time, and before it believes `Refusal.EXHAUSTED`.
"""

from __future__ import annotations

import enum
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from kontext_async.decisions.money import is_money

if TYPE_CHECKING:
    from kontext_async.models import KontextRequest

__all__ = ["Budget", "PriceKind", "Refusal", "Reservation", "price_kind"]

PriceKind: TypeAlias = tuple[str, int]
"""The model and the number of input images, which set the price."""

USD = "USD"
NOTHING = Decimal(0)


def price_kind(request: KontextRequest) -> PriceKind:
    """Return the price kind of a request."""
    return request.model, len(request.input_images)


class Refusal(enum.Enum):
    """The reasons why a reservation is not granted."""

    WAIT = enum.auto()
    """Not now: requests in flight may turn out cheaper, or show the price."""
    EXHAUSTED = enum.auto()
    """The rest of the limit is too small, and nothing is in flight."""
    UNKNOWN = enum.auto()
    """The gateway does not report what images cost, or bills in another currency: the limit cannot be enforced."""


@define(eq=False)
class Reservation:
    """The right to pay for one request. Its holder ends it exactly once.

    `release` does nothing after the end, so that a `finally` may call it.

    Attributes:
        kind: The price kind.
        amount: The amount that was reserved, to be written where other workers see it; None if the price is unknown.
    """

    _budget: Budget | None = field(repr=False)
    kind: PriceKind
    amount: Decimal | None

    @property
    def is_open(self) -> bool:
        """True until the reservation has ended."""
        return self._budget is not None

    def settle(self, cost: Decimal | None) -> None:
        """Record the cost of the request; None if the gateway did not report it.

        A cost that makes no sense is not known. The request then counts with its price.

        Raises:
            RuntimeError: The reservation has ended before.
        """
        budget = self._end()
        if cost is None or not is_money(cost):
            budget.price_unknown.add(self.kind)
            budget.unpriced[self.kind] += 1
        else:
            budget.spent += cost
            budget.record_price(self.kind, cost)

    def release(self) -> None:
        """Release the amount: the request is not billed. Do nothing if the reservation has ended before."""
        if self.is_open:
            self._end()

    def leave_uncertain(self) -> None:
        """Count the request for good: it may be billed, and its cost will not be known.

        Raises:
            RuntimeError: The reservation has ended before.
        """
        self._end().unpriced[self.kind] += 1

    def _end(self) -> Budget:
        if self._budget is None:
            raise RuntimeError("the reservation has ended before: its money would count twice")
        budget, self._budget = self._budget, None
        budget.in_flight[self.kind] -= 1
        return budget


@define(kw_only=True)
class Budget:
    """A cost limit, and the money that is spent or may be billed.

    Attributes:
        limit: The amount that may be spent in total; None for no limit.
        spent: The cost of completed requests, including those of earlier runs.
        unpriced: Requests that are or may be billed and whose cost is unknown, by kind: uncertain ones, those that were
            billed without a reported cost, and those that earlier runs left.
        prices: The highest price of each kind that was seen or estimated.
        price_unknown: Kinds with a request that completed without a reported cost.
        foreign_currency: The currency that the gateway bills or prices in, if it is not USD.
        in_flight: Reservations that have not ended, by kind.
        elsewhere: The amount that other workers have committed.
        in_flight_elsewhere: Requests of other workers in flight, which may turn out cheaper.
    """

    limit: Decimal | None = None
    spent: Decimal = NOTHING
    unpriced: Counter[PriceKind] = field(factory=Counter)
    prices: dict[PriceKind, Decimal] = field(factory=dict)
    price_unknown: set[PriceKind] = field(factory=set)
    foreign_currency: str | None = field(default=None, init=False)
    in_flight: Counter[PriceKind] = field(factory=Counter, init=False)
    elsewhere: Decimal = field(default=NOTHING, init=False)
    in_flight_elsewhere: int = field(default=0, init=False)

    @property
    def own(self) -> Decimal:
        """The amount that this worker has spent or may owe, as far as prices are known."""
        counted = (
            count * self.prices.get(kind, NOTHING)
            for counts in (self.in_flight, self.unpriced)
            for kind, count in counts.items()
        )
        return sum(counted, self.spent)

    @property
    def committed(self) -> Decimal:
        """The amount that all workers have spent or may owe, as far as it is known."""
        return self.own + self.elsewhere

    def reserve(self, kind: PriceKind) -> Reservation | Refusal:
        """Reserve the price of one more request, or say why that is not possible."""
        refusal = None if self.limit is None else self._judge(kind, self.limit)
        return refusal or self._open(kind, self.prices.get(kind))

    def resume(self, kind: PriceKind, *, reserved: Decimal | None = None) -> Reservation:
        """Return the reservation for a task that is paid for already. It is never refused.

        Args:
            kind: The price kind.
            reserved: The amount that counts for it as another worker's, and from now on as this worker's; None if it
                counts among `unpriced`.
        """
        if reserved is not None:
            self.elsewhere = max(self.elsewhere - reserved, NOTHING)
            self.in_flight_elsewhere = max(self.in_flight_elsewhere - 1, 0)
        elif self.unpriced[kind]:
            self.unpriced[kind] -= 1
        return self._open(kind, self.prices.get(kind, reserved))

    def record_price(self, kind: PriceKind, price: Decimal | None) -> None:
        """Record a price that was seen or estimated. A price that makes no sense is not known."""
        if price is not None and is_money(price):
            self.prices[kind] = max(price, self.prices.get(kind, price))

    def record_currency(self, currency: str) -> None:
        """Record the currency of a bill or of a price."""
        if currency.upper() != USD:
            self.foreign_currency = self.foreign_currency or currency

    def record_elsewhere(self, committed: Decimal, *, in_flight: int) -> None:
        """Record what the other workers of a shared limit have committed.

        Args:
            committed: The amount that they have spent or may owe.
            in_flight: The number of their requests whose cost is still open and will become known.
        """
        self.elsewhere, self.in_flight_elsewhere = committed, in_flight

    def record_total(self, committed: Decimal, *, in_flight: int) -> None:
        """Record what all workers of a shared limit have committed, this one included.

        Args:
            committed: The amount that they have spent or may owe, as the database sums it up.
            in_flight: The number of all requests whose cost is still open and will become known.
        """
        others = max(committed - self.own, NOTHING)
        self.record_elsewhere(others, in_flight=max(in_flight - self.in_flight.total(), 0))

    def _open(self, kind: PriceKind, amount: Decimal | None) -> Reservation:
        self.in_flight[kind] += 1
        return Reservation(self, kind, amount)

    def _judge(self, kind: PriceKind, limit: Decimal) -> Refusal | None:
        price = self.prices.get(kind)
        if self.foreign_currency or (price is None and kind in self.price_unknown and not self.in_flight[kind]):
            return Refusal.UNKNOWN
        waits = self.in_flight.total() > 0 or self.in_flight_elsewhere > 0
        fits = self.committed < limit if price is None else self.committed + price <= limit
        if not fits:
            return Refusal.WAIT if waits else Refusal.EXHAUSTED
        return Refusal.WAIT if waits and (price is None or self._learns_price()) else None

    def _learns_price(self) -> bool:
        """Return True while a request of an unknown price is in flight: what is left of the limit is not known."""
        return any(count and kind not in self.prices for kind, count in self.in_flight.items())

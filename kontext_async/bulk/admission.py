"""Admits requests to the money of a run: waits until the cost limit admits one more, or stops the run.

Several workers may share the limit. The budget decides first, with what this worker knows; the store decides again when
the create request is recorded, with what all workers have reserved. After its refusal the figures are read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from kontext_async.decisions.budget import Budget, Refusal, Reservation, price_kind
from kontext_async.errors import CostLimitReached, CostUnknown, KontextError
from kontext_async.store.limits import IN_FLIGHT
from kontext_async.store.rows import Selection

if TYPE_CHECKING:
    import asyncio
    from decimal import Decimal

    from kontext_async.bulk.stop_switch import StopSwitch
    from kontext_async.decisions.budget import PriceKind
    from kontext_async.models import KontextRequest
    from kontext_async.session import KontextSession
    from kontext_async.store.rows import Row
    from kontext_async.store.worker import Worker

__all__ = ["Admission", "open_budget"]

READ_AGAIN = 1.0
"""Seconds after which the money of the other workers is read again, while a request waits for it."""


@define(eq=False, kw_only=True)
class Admission:
    """Admits requests.

    Attributes:
        session: The session, which estimates prices.
        worker: The worker of this run.
        run: The number of the run in the store.
        budget: The cost limit and the money spent.
        switch: Stops the run.
        is_shared: True if other workers may spend money of the run.
        moved: Is set whenever money becomes free, and when the run stops.
    """

    session: KontextSession
    worker: Worker
    run: int
    budget: Budget
    switch: StopSwitch
    is_shared: bool
    moved: asyncio.Event
    _estimated: set[PriceKind] = field(factory=set, init=False)

    async def admit(self, request: KontextRequest) -> Reservation | None:
        """Wait until the budget admits one more request; return None if the run stops first.

        Raises:
            StoreError: The store cannot be read.
        """
        kind = price_kind(request)
        if self.budget.limit is not None and kind not in self._estimated:
            self._estimated.add(kind)
            await self._estimate_price(request)
        is_current = not self.is_shared
        while self.switch.reason is None:
            self.moved.clear()
            granted = self.budget.reserve(kind)
            if isinstance(granted, Reservation):
                return granted
            if granted is Refusal.UNKNOWN:
                self.switch.trip(CostUnknown(self.budget.foreign_currency))
            elif granted is Refusal.WAIT:
                await self.wait_for_money()
                is_current = not self.is_shared
            elif not is_current:
                await self.read_commitments()
                is_current = True
            else:
                limit = self.budget.limit or self.budget.spent
                self.switch.trip(CostLimitReached(spent=self.budget.committed, limit=limit))
        return None

    async def wait_for_money(self) -> None:
        """Wait until a request of this worker ends, or for a moment, if those of other workers may have ended."""
        with anyio.move_on_after(READ_AGAIN if self.is_shared else None) as scope:
            await self.moved.wait()
        if scope.cancelled_caught:
            await self.read_commitments()

    async def read_commitments(self) -> None:
        """Read what all workers have spent or may owe.

        Raises:
            StoreError: The store cannot be read.
        """
        if self.budget.limit is None:
            return
        known = await self.worker.store.commitment(self.run)
        others = await _in_flight_elsewhere(self.worker, self.run)
        in_flight = len(others) + self.budget.in_flight.total()
        self.budget.record_total(known.committed, in_flight=in_flight)

    async def _estimate_price(self, request: KontextRequest) -> None:
        """Request a cost estimate; if the gateway has none, the first completed request shows the price."""
        try:
            estimate = await self.session.estimate(request)
        except KontextError:
            return
        self.budget.record_currency(estimate.currency)
        self.budget.record_price(price_kind(request), estimate.cost)


async def open_budget(worker: Worker, run: int, limit: Decimal | None, *, is_shared: bool) -> Budget:
    """Return the budget of a run, with the money that earlier executions and other workers have spent or may owe.

    Raises:
        StoreError: The store cannot be read.
    """
    summary = await worker.store.summary(run)
    budget = Budget(limit=limit, spent=summary.spent, unpriced=summary.owed)
    for kind, cost in summary.costs.items():
        budget.record_price(kind, cost)
    if is_shared and limit is not None:
        others = await _in_flight_elsewhere(worker, run)
        for row in others:  # their cost is open now, and will become known
            budget.unpriced[row.kind] -= row.cost is None and budget.unpriced[row.kind] > 0
        committed = sum(((row.reserved or 0) for row in others), start=budget.spent) - budget.spent
        budget.record_elsewhere(committed, in_flight=len(others))
    return budget


async def _in_flight_elsewhere(worker: Worker, run: int) -> list[Row]:
    """Return the rows that other workers, which are alive, have in flight."""
    rows: list[Row] = []
    selection = Selection(run=run, states=IN_FLIGHT)
    while page := await worker.store.page(selection, after=rows[-1].id if rows else 0):
        rows += page
    return [row for row in rows if row.owner_alive and row.owner != worker.number]

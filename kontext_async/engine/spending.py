"""Keeps a session and its shares within their cost limits. `decisions.budget` decides.

A request reserves its price before it waits for a slot, and its reservation ends with what the gateway bills. What a
share has spent is remembered until the session ends, as one amount for each name that has a limit.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import define, field

from kontext_async.decisions.budget import Budget, Refusal, Reservation, price_kind
from kontext_async.engine.clock import cancel_at
from kontext_async.errors import CostLimitReached, CostUnknown, KontextError, Overloaded, TaskFailed
from kontext_async.events import Completed, Failed
from kontext_async.models import Generation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.decisions.budget import PriceKind
    from kontext_async.decisions.shares import ShareOptions
    from kontext_async.engine.context import Context
    from kontext_async.engine.estimator import Estimator
    from kontext_async.engine.submission import Submission

__all__ = ["Spending"]

NOTHING = Decimal(0)

TRY_AGAIN = 5.0
"""Seconds after which a request may come again that waited too long for money to become free."""


@define
class Spending:
    """The money of a session and of its shares.

    Attributes:
        limit: USD that the session may spend; None for no limit.
    """

    limit: Decimal | None
    _estimator: Estimator
    _context: Context
    _budget: Budget = field(init=False)
    _shares: dict[str, Budget] = field(factory=dict, init=False)
    _spent: dict[str, Decimal] = field(factory=dict, init=False)
    _estimates: dict[PriceKind, asyncio.Future[None]] = field(factory=dict, init=False)
    _open: dict[str, list[Reserved]] = field(factory=dict, init=False)
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)
    _listens: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._budget = Budget(limit=self.limit)

    def concerns(self, share: ShareOptions) -> bool:
        """Return True if a limit concerns the requests of a share."""
        return self.limit is not None or share.max_cost is not None

    @asynccontextmanager
    async def reserve(self, submission: Submission) -> AsyncIterator[None]:
        """Reserve the price of a request while it is submitted, and until its task ends.

        Raises:
            CostLimitReached: The rest of a limit is too small.
            CostUnknown: The gateway does not report what images cost.
            Overloaded: The time for which it may wait is over.
        """
        kind = price_kind(submission.request)
        await self._estimate(kind, submission)
        reserved = await self._wait_for_money(kind, submission)
        try:
            yield
        finally:
            self._after_submission(submission, reserved)

    async def _wait_for_money(self, kind: PriceKind, submission: Submission) -> Reserved:
        queueing = submission.queueing
        with cancel_at(self._context.clock, queueing.until):
            while True:
                reserved = self._try_to_reserve(kind, queueing.share)
                if reserved:
                    return reserved
                await self._changed.wait()
        raise Overloaded("the cost limit leaves no room while others are in flight", retry_after=TRY_AGAIN)

    def _try_to_reserve(self, kind: PriceKind, share: ShareOptions) -> Reserved | None:
        """Reserve the price with the session and the share; return None if requests in flight must end first."""
        reserved = Reserved(share.name if share.max_cost is not None else None)
        for budget in (self._budget, self._budget_of(share)):
            if budget is None:
                continue
            granted = budget.reserve(kind)
            if isinstance(granted, Reservation):
                reserved.reservations.append(granted)
                continue
            for each in reserved.reservations:
                each.release()
            if granted is Refusal.WAIT:
                self._changed.clear()
                return None
            self._compact(reserved.name)
            if granted is Refusal.UNKNOWN:
                raise CostUnknown(budget.foreign_currency)
            raise CostLimitReached(spent=budget.committed, limit=budget.limit or NOTHING)
        return reserved

    def _budget_of(self, share: ShareOptions) -> Budget | None:
        if share.max_cost is None or share.name is None:
            return None
        budget = self._shares.get(share.name)
        if budget is None:
            budget = self._shares[share.name] = Budget(
                spent=self._spent.pop(share.name, NOTHING), prices=self._budget.prices
            )
        budget.limit = share.max_cost
        return budget

    async def _estimate(self, kind: PriceKind, submission: Submission) -> None:
        """Request the price of a kind once. Without one, the first completed request shows it."""
        estimate = self._estimates.get(kind)
        if estimate is not None:
            await asyncio.shield(estimate)
            return
        estimate = self._estimates[kind] = asyncio.get_running_loop().create_future()
        try:
            found = await self._estimator.estimate(submission.request)
        except KontextError:
            pass
        except BaseException:
            del self._estimates[kind]  # the next request tries again
            raise
        else:
            self._budget.record_currency(found.currency)
            self._budget.record_price(kind, found.cost)
        finally:
            estimate.set_result(None)

    def _after_submission(self, submission: Submission, reserved: Reserved) -> None:
        task = submission.task
        if task is None:
            if submission.may_be_billed:
                reserved.leave_uncertain()
            self._end(reserved)
        elif isinstance(task.result, Generation):
            self._settle(reserved, task.result)
        elif task.result is not None:
            self._end(reserved)
        else:
            if not self._listens:
                self._listens = True
                self._context.hub.subscribe(self._on_end, Completed, Failed)
            self._open.setdefault(task.task_id, []).append(reserved)

    def _on_end(self, event: Completed | Failed) -> None:
        for reserved in self._open.pop(event.task_id or "", ()):
            if isinstance(event, Completed):
                self._settle(reserved, event.generation)
                continue
            if not isinstance(event.error, TaskFailed):
                reserved.leave_uncertain()
            self._end(reserved)

    def _settle(self, reserved: Reserved, generation: Generation) -> None:
        self._budget.record_currency(generation.usage.currency)
        for each in reserved.reservations:
            each.settle(generation.usage.cost)
        self._end(reserved)

    def _end(self, reserved: Reserved) -> None:
        """Release what is still reserved, and wake those who wait for money."""
        for each in reserved.reservations:
            each.release()
        self._compact(reserved.name)
        self._changed.set()

    def _compact(self, name: str | None) -> None:
        """Keep one amount at most of a share that has nothing in flight."""
        budget = self._shares.get(name) if name is not None else None
        if name is not None and budget and not budget.in_flight.total():
            del self._shares[name]
            if budget.own:
                self._spent[name] = budget.own


@define(eq=False)
class Reserved:
    """The reservations of one request.

    Attributes:
        name: The name of its share, if that has a limit.
        reservations: With the session, and with its share.
    """

    name: str | None
    reservations: list[Reservation] = field(factory=list)

    def leave_uncertain(self) -> None:
        """Count the request for good: it may be billed."""
        for each in self.reservations:
            if each.is_open:
                each.leave_uncertain()

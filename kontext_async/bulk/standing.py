"""Summarizes a journal in the database: a few result rows, for any number of requests."""

from __future__ import annotations

from collections import Counter  # attrs resolves it
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import frozen
from sqlalchemy import Executable, func, select

from kontext_async.bulk.budget import PriceKind, read_money
from kontext_async.bulk.schema import requests
from kontext_async.bulk.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Standing", "summarize", "summary_query"]


@frozen(kw_only=True)
class Standing:
    """The summary of a journal.

    Attributes:
        states: The number of requests in each state.
        costs: The number of requests per price kind and cost.
        sunk: USD that the earlier tasks of resubmitted requests cost.
        owed: The number of tasks that are or may be billed and whose cost is unknown, by price kind.
    """

    states: Counter[State]
    costs: Counter[tuple[PriceKind, Decimal]]
    sunk: Decimal
    owed: Counter[PriceKind]

    @property
    def spent(self) -> Decimal:
        """USD spent, as far as the gateway reported costs."""
        return self.sunk + sum((cost * count for (_, cost), count in self.costs.items()), Decimal(0))


def summary_query(run_id: int) -> Executable:
    """Return the query whose result `summarize` reads."""
    c = requests.c
    groups = select(c.state, c.model, c.images, c.cost, c.sunk, func.sum(c.doubtful), func.count())
    return groups.where(c.run_id == run_id).group_by(c.state, c.model, c.images, c.cost, c.sunk)


def summarize(groups: Iterable[Any]) -> Standing:
    """Return the summary of the groups that the database returned."""
    states: Counter[State] = Counter()
    costs: Counter[tuple[PriceKind, Decimal]] = Counter()
    owed: Counter[PriceKind] = Counter()
    sunk = Decimal(0)
    for state, model, images, cost, earlier, doubtful, count in groups:
        states[State(state)] += count
        sunk += read_money(earlier) * count
        owed[model, images] += doubtful
        if cost is not None:
            costs[(model, images), read_money(cost)] += count
        elif state not in (State.PLANNED, State.FAILED):
            owed[model, images] += count
    return Standing(states=states, costs=costs, sunk=sunk, owed=+owed)

"""What a journal holds, summed up by its database: a few lines, whatever the number of requests."""

from __future__ import annotations

from collections import Counter  # attrs resolves it
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import frozen
from sqlalchemy import Executable, func, select

from kontext_async.bulk.budget import PriceKind  # noqa: TC001 # as above
from kontext_async.bulk.schema import requests
from kontext_async.bulk.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Standing", "groups_of", "summed_up"]


@frozen(kw_only=True)
class Standing:
    """What a journal holds, summed up.

    Attributes:
        states: How many requests there are in each state.
        costs: What was paid, by the kind of request, and how often.
        sunk: USD that tasks cost whose requests were submitted again.
        owed: Tasks that are or may be paid and whose cost is not known, by the kind of request.
    """

    states: Counter[State]
    costs: Counter[tuple[PriceKind, Decimal]]
    sunk: Decimal
    owed: Counter[PriceKind]

    @property
    def spent(self) -> Decimal:
        """USD that were paid, as far as the gateway said."""
        return self.sunk + sum((cost * count for (_, cost), count in self.costs.items()), Decimal(0))


def groups_of(run_id: int) -> Executable:
    """The query that `summed_up` reads."""
    c = requests.c
    groups = select(c.state, c.model, c.images, c.cost, c.sunk, func.sum(c.doubtful), func.count())
    return groups.where(c.run_id == run_id).group_by(c.state, c.model, c.images, c.cost, c.sunk)


def summed_up(groups: Iterable[Any]) -> Standing:
    """The sum of what the database says of each group."""
    states: Counter[State] = Counter()
    costs: Counter[tuple[PriceKind, Decimal]] = Counter()
    owed: Counter[PriceKind] = Counter()
    sunk = Decimal(0)
    for state, model, images, cost, earlier, doubtful, count in groups:
        states[State(state)] += count
        sunk += Decimal(earlier) * count
        owed[model, images] += doubtful
        if cost is not None:
            costs[(model, images), Decimal(cost)] += count
        elif state not in (State.PLANNED, State.FAILED):
            owed[model, images] += count
    return Standing(states=states, costs=costs, sunk=sunk, owed=+owed)

"""The statements that write a group of steps.

`fenced_change` makes the statement of a step that is taken often: it changes the row only if `outcomes.decide` would
apply the step, and nothing but the row changes. It may be stricter than `decide`, never more lenient: steps whose rows
it did not change are decided on the locked rows. `plain_change` writes rows that are locked.

PostgreSQL gets a group as one statement, which takes the values of each class of steps as one JSON parameter: a
parameter costs the client more than what is in it. SQLite gets the values of each class of steps as parameters, for up
to 64 rows in a statement: that costs half of what a statement for each row does.
"""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson
from attrs import define, field, frozen
from sqlalchemy import BigInteger, Float, Integer

from kontext_async.store.sql.records import encode
from kontext_async.store.sql.schema import requests
from kontext_async.store.sql.transaction import VALUES_OF_RECORDS
from kontext_async.store.states import TRANSITIONS, sources_of
from kontext_async.store.steps import (
    Accepted,
    Completed,
    Forgotten,
    Intended,
    Received,
    Saved,
    State,
    Withdrawn,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kontext_async.store.sql.transaction import Transaction
    from kontext_async.store.steps import Step

__all__ = ["FENCED", "Batch", "Change", "execute", "fenced_change", "plain_change", "spend"]

RESERVES = "(r.uncertain_attempts = 0 OR v.new_reserved IS NOT NULL)"
"""A step that reserves nothing keeps what earlier uncertain attempts reserved: that is decided on the locked row."""

FENCES: Mapping[type[Step], tuple[frozenset[State], str]] = {
    Intended: (
        sources_of(Intended),
        "r.attempt = v.attempt - 1 AND (r.account IS NULL OR r.account = v.new_account OR r.uncertain_attempts = 0)",
    ),
    Accepted: (frozenset({State.INTENT}), "r.attempt = v.attempt AND r.task_id IS NULL"),
    Completed: (frozenset({State.ACCEPTED}), f"r.task_id = v.task_id AND r.cost IS NULL AND {RESERVES}"),
    Withdrawn: (sources_of(Withdrawn), f"r.attempt = v.attempt AND {RESERVES}"),
    Received: (sources_of(Received), "r.attempt = v.attempt AND r.received_at IS NULL"),
    Saved: (sources_of(Saved), "r.attempt = v.attempt"),
    Forgotten: (sources_of(Forgotten), "r.attempt = v.attempt"),
}
"""The steps that are taken often: the states from which their statements take them, and their fences."""

NO_SECOND_TASK = "(SELECT count(*) FROM kontext_second_tasks AS s WHERE s.row_id = r.id) = 0"
"""A step may change the second tasks of a row, too: then it is decided on the locked row. For ``NOT EXISTS`` PostgreSQL
joins the tables, and may read all second tasks; for a count it looks up those of each row."""

_fenced_changes: dict[type[Step], Change] = {}

FENCED = frozenset(FENCES)

FENCE_VALUES: Mapping[type[Step], tuple[str, ...]] = {Completed: ("task_id",)}
"""The attributes of a step that its fence needs, besides the attempt and what the step writes."""


@frozen(kw_only=True, eq=False)
class Change:
    """A statement that changes many rows in the same way.

    Attributes:
        fence: The attributes of a step that it compares.
        columns: The columns that it writes, besides the state.
        names: The names of the values of a row: ``number`` is the row's, and ``new_`` stands before the name of a
            column that is written.
        for_values: The statement for rows whose values are parameters.
        for_json: The statement for rows whose values are one parameter, as JSON.
        spends: True if what it writes as a cost was not known before.
    """

    fence: tuple[str, ...]
    columns: tuple[str, ...]
    names: tuple[str, ...]
    for_values: str = field(repr=False)
    for_json: str = field(repr=False)
    spends: bool


@define(eq=False)
class Batch:
    """A statement, with the values of the rows that it changes.

    A transaction of SQLite works in a thread beside the event loop: the fewer objects it makes for each row, the less
    often Python's collector visits those of the loop.

    Attributes:
        change: The statement.
        values: The values, of one row after another.
    """

    change: Change
    values: list[Any] = field(factory=list, init=False, repr=False)

    def add(self, number: int, new: Mapping[str, Any], step: Step | None = None) -> None:
        """Add a row.

        Args:
            number: The number of the row.
            new: The values of the columns, and perhaps of others.
            step: The step, for a statement with a fence.
        """
        self.values.append(number)
        self.values += [getattr(step, name) for name in self.change.fence]
        self.values += [encode(column, new[column]) for column in self.change.columns]

    def column(self, name: str) -> list[Any]:
        """Return the values of one name."""
        names = self.change.names
        return self.values[names.index(name) :: len(names)]

    def to_json(self) -> str:
        """Return the values as JSON, the rows in the order of their numbers: then workers lock them in one order."""
        names, width = self.change.names, len(self.change.names)
        starts = range(0, len(self.values), width)
        rows = [dict(zip(names, self.values[start : start + width], strict=True)) for start in starts]
        return orjson.dumps(sorted(rows, key=itemgetter("number"))).decode()


def execute(transaction: Transaction, batches: Sequence[Batch]) -> set[int]:
    """Change rows, which differ; return the numbers of those that were changed. Their costs are added to their runs."""
    if not batches:
        return set()
    if transaction.dialect.takes_json:
        statement = _join(tuple(batch.change for batch in batches))
        values = {f"values_{place}": batch.to_json() for place, batch in enumerate(batches)}
        return {number for (number,) in transaction.fetch(statement, **values)}
    changed: set[int] = set()
    spent: defaultdict[int, Decimal] = defaultdict(Decimal)
    for batch in batches:
        change = batch.change
        runs: dict[int, int] = dict(transaction.fetch_values(change.for_values, len(change.names), batch.values))
        changed |= runs.keys()
        if change.spends:
            for number, cost in zip(batch.column("number"), batch.column("new_cost"), strict=True):
                if number in runs and cost is not None:
                    spent[runs[number]] += Decimal(cost)
    spend(transaction, spent)
    return changed


def spend(transaction: Transaction, amounts: Mapping[int, Decimal]) -> None:
    """Add amounts to what runs have spent, by the numbers of the runs."""
    added = transaction.dialect.add.format("spent", ":amount")
    for run in sorted(amounts):
        if amounts[run]:
            transaction.execute(
                f"UPDATE kontext_runs SET spent = {added} WHERE id = :run", run=run, amount=str(amounts[run])
            )


@cache
def _join(changes: tuple[Change, ...]) -> str:
    """Return one statement for several; each is executed on the rows as they were before."""
    parts = [
        f"c{place} AS ({change.for_json.replace(':values', f':values_{place}')})"
        for place, change in enumerate(changes)
    ]
    parts += [
        f"s{place} AS (UPDATE kontext_runs AS k SET spent = (k.spent::numeric + t.amount)::text FROM "
        f"(SELECT run_id, sum(new_cost::numeric) AS amount FROM c{place} WHERE new_cost IS NOT NULL GROUP BY run_id) "
        "AS t WHERE k.id = t.run_id)"
        for place, change in enumerate(changes)
        if change.spends
    ]
    changed = " UNION ALL ".join(f"SELECT id FROM c{place}" for place in range(len(changes)))
    return f"WITH {', '.join(parts)} {changed}"


def fenced_change(step: type[Step], columns: Iterable[str]) -> Change:
    """Return the statement that takes a step.

    Args:
        step: The class of the step.
        columns: What it changes besides the state; whether the owner lives is no column.
    """
    known = _fenced_changes.get(step)
    if known is None:
        written = tuple(column for column in columns if column != "owner_alive")
        known = _fenced_changes[step] = _make_fenced_change(step, written)
    return known


def _make_fenced_change(step: type[Step], columns: tuple[str, ...]) -> Change:
    sources, fence = FENCES[step]
    states = ", ".join(f"'{state}'" for state in sorted(sources))
    targets = {TRANSITIONS[source][step] for source in sources}
    return _make_change(
        () if step is Forgotten else columns,
        state=targets.pop() if len(targets) == 1 else None,
        where=f" AND r.state IN ({states}) AND {fence} AND {NO_SECOND_TASK}",
        fence=("attempt", *FENCE_VALUES.get(step, ())),
        spends=step is Completed,
    )


@cache
def plain_change(columns: tuple[str, ...]) -> Change:
    """Return the statement that writes columns of locked rows; of none if `columns` is empty: it deletes the rows."""
    return _make_change(columns)


def _make_change(
    columns: tuple[str, ...],
    *,
    state: State | None = None,
    where: str = "",
    fence: tuple[str, ...] = (),
    spends: bool = False,
) -> Change:
    written = [f"{name} = v.new_{name}" for name in columns]
    assignments = ", ".join([f"state = '{state}'", *written] if state else written)
    head = f"UPDATE kontext_requests AS r SET {assignments}" if columns else "DELETE FROM kontext_requests AS r"
    where = f"WHERE r.id = v.number{where}"
    names = ("number", *fence, *(f"new_{name}" for name in columns))
    return Change(
        fence=fence,
        columns=columns,
        names=names,
        for_values=_for_values(head, where, names, deletes=not columns),
        for_json=_for_json(head, where, names, deletes=not columns, spends=spends),
        spends=spends,
    )


def _for_values(head: str, where: str, names: Sequence[str], *, deletes: bool) -> str:
    """Return the statement for SQLite, which joins nothing to the rows that it deletes."""
    joined = (
        f"WHERE r.id IN (SELECT number FROM v) AND EXISTS (SELECT 1 FROM v {where})" if deletes else f"FROM v {where}"
    )
    return f"WITH v({', '.join(names)}) AS ({VALUES_OF_RECORDS}) {head} {joined} RETURNING id, run_id"


def _for_json(head: str, where: str, names: Sequence[str], *, deletes: bool, spends: bool) -> str:
    """Return the statement for PostgreSQL."""
    types = ", ".join(f"{name} {_type_of(name)}" for name in names)
    values = f"json_to_recordset(:values::json) AS v({types})"
    result = f"r.id, r.run_id{', v.new_cost' if spends else ''}"
    return f"{head} {'USING' if deletes else 'FROM'} {values} {where} RETURNING {result}"


def _type_of(name: str) -> str:
    """Return the type of a value in PostgreSQL."""
    if name in {"number", "attempt"}:
        return "bigint"
    kind = requests.c[name.removeprefix("new_")].type
    if isinstance(kind, Float):
        return "float8"
    return "bigint" if isinstance(kind, Integer | BigInteger) else "text"

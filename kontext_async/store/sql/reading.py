"""Reads rows, second tasks and summaries, in a transaction."""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kontext_async.decisions.money import read_money
from kontext_async.store.limits import IN_FLIGHT, Commitment
from kontext_async.store.rows import RunSummary, SecondTask
from kontext_async.store.sql.records import SECOND_TASK_COLUMNS, clean, row_of, second_task_of, select_rows
from kontext_async.store.sql.schema import FOUND_BY_STATE, NOT_RECEIVED
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kontext_async.store.rows import Row, Selection
    from kontext_async.store.sql.transaction import Transaction

__all__ = [
    "delete_old_rows",
    "delete_old_second_tasks",
    "fetch_page",
    "fetch_rows",
    "fetch_rows_by_key",
    "fetch_second_tasks",
    "fetch_second_tasks_of",
    "lock_rows",
    "read_commitment",
    "receive_second_task",
    "summarize",
]

NOTHING = Decimal(0)
FOUND = frozenset({State.INTENT, State.UNCERTAIN, State.ACCEPTED, State.COMPLETED})
RECEIVABLE = FOUND - {State.INTENT}
"""The states of the partial indexes."""

SECOND_TASKS = f"SELECT {', '.join(f's.{name}' for name in SECOND_TASK_COLUMNS)}"
NEEDED = "received_at IS NULL AND state IN ('accepted', 'finished')"
"""The condition that a second task outlives its row: see `outcomes.outlives_row`."""

ROWS_AT_ONCE = 2000


def lock_rows(transaction: Transaction, numbers: Collection[int]) -> None:
    """Lock rows until the transaction ends, in the order of their numbers.

    Whatever changes several rows calls it first, and locks runs later: with one order for all, no two workers wait for
    each other. PostgreSQL finds such a pair only after a second, and undoes one of the two. SQLite has one writer.
    """
    dialect = transaction.dialect
    if dialect.lock and numbers:
        found = dialect.is_in("r.id", "numbers", "bigint")
        transaction.fetch(
            f"SELECT r.id FROM kontext_requests AS r WHERE {found} ORDER BY r.id {dialect.lock}",
            numbers=dialect.pack([*numbers]),
        )


def fetch_rows(transaction: Transaction, numbers: Collection[int]) -> dict[int, Row]:
    """Return rows by their numbers."""
    dialect = transaction.dialect
    found = dialect.is_in("r.id", "numbers", "bigint")
    records = transaction.fetch(f"{select_rows(dialect.alive)} WHERE {found}", numbers=dialect.pack([*numbers]))
    return {record[0]: row_of(record) for record in records}


def fetch_rows_by_key(transaction: Transaction, run: int, keys: Collection[str]) -> dict[str, Row]:
    """Return rows of a run by their keys."""
    if not keys:
        return {}
    dialect = transaction.dialect
    found = dialect.is_in("r.key", "keys", "text")
    records = transaction.fetch(
        f"{select_rows(dialect.alive)} WHERE r.run_id = :run AND {found}",
        run=run,
        keys=dialect.pack([clean(key) for key in keys]),
    )
    rows = (row_of(record) for record in records)
    return {row.key: row for row in rows}


def fetch_page(transaction: Transaction, selection: Selection, after: int, limit: int) -> list[Row]:
    """Return selected rows in order."""
    order = "r.completion" if selection.by_completion else "r.id"
    conditions = [f"{order} > :after", *_conditions(transaction, selection)]
    records = transaction.fetch(
        f"{select_rows(transaction.dialect.alive)} WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT :limit",
        after=after,
        limit=limit,
        run=selection.run,
        account=selection.account,
        execution_below=selection.execution_below,
        folder=selection.folder,
    )
    return [row_of(record) for record in records]


def _conditions(transaction: Transaction, selection: Selection) -> list[str]:
    """Return the conditions of a selection, with those of the partial indexes that hold for it."""
    states = ", ".join(f"'{state}'" for state in sorted(selection.states))
    is_receivable = bool(selection.states) and selection.states <= RECEIVABLE
    is_found = bool(selection.states) and selection.states <= FOUND
    has_index = is_found or selection.by_completion
    return [
        condition
        for is_given, condition in (
            (selection.run is not None, f"{'r.run_id' if has_index else transaction.dialect.run_in_order} = :run"),
            (bool(states), f"r.state IN ({states})"),
            (selection.account is not None, "(r.account IS NULL OR r.account = :account)"),
            (selection.unreceived, "r.received_at IS NULL"),
            (selection.unreceived and is_receivable, NOT_RECEIVED.replace("received_at", "r.received_at", 1)),
            (is_found and not selection.unreceived, f"r.{FOUND_BY_STATE}"),
            (selection.unowned, f"NOT {transaction.dialect.alive}"),
            (selection.execution_below is not None, "r.execution < :execution_below"),
            (selection.folder is not None, "r.folder = :folder"),
            (selection.by_completion, "r.completion IS NOT NULL"),
        )
        if is_given
    ]


def fetch_second_tasks_of(transaction: Transaction, rows: Collection[int]) -> dict[int, dict[str, SecondTask]]:
    """Return the second tasks of rows, by number of the row and by task ID; without the names of their runs."""
    found = transaction.dialect.is_in("s.row_id", "rows", "bigint")
    records = transaction.fetch(
        f"{SECOND_TASKS} FROM kontext_second_tasks AS s WHERE {found}", rows=transaction.dialect.pack([*rows])
    )
    tasks: defaultdict[int, dict[str, SecondTask]] = defaultdict(dict)
    for record in records:
        task = second_task_of(record, "")
        tasks[task.row][task.task_id] = task
    return tasks


def fetch_second_tasks(transaction: Transaction, run: int | None) -> list[SecondTask]:
    """Return the second tasks of a run, or of all runs."""
    where = "" if run is None else "WHERE s.run_id = :run"
    records = transaction.fetch(
        f"{SECOND_TASKS}, r.name FROM kontext_second_tasks AS s JOIN kontext_runs AS r ON r.id = s.run_id {where} "
        "ORDER BY s.row_id, s.attempt, s.task_id",
        run=run,
    )
    return [second_task_of(record[:-1], record[-1]) for record in records]


def receive_second_task(transaction: Transaction, row: int, task_id: str, at: float) -> None:
    """Record that somebody has received a second task."""
    transaction.execute(
        "UPDATE kontext_second_tasks SET received_at = :at WHERE row_id = :row AND task_id = :task",
        row=row,
        task=clean(task_id),
        at=at,
    )


def read_commitment(transaction: Transaction, run: int) -> Commitment:
    """Return what a run has cost or may cost, with all of its rows. Only its open rows are read."""
    ((spent,),) = transaction.fetch("SELECT spent FROM kontext_runs WHERE id = :run", run=run)
    reserved = transaction.fetch(
        "SELECT r.reserved, count(*) FROM kontext_requests AS r "
        "WHERE r.run_id = :run AND r.reserved IS NOT NULL GROUP BY r.reserved",
        run=run,
    )
    states = ", ".join(f"'{state}'" for state in sorted(IN_FLIGHT))
    ((in_flight, unpriced),) = transaction.fetch(
        "SELECT count(*), count(*) - count(r.reserved) FROM kontext_requests AS r "
        f"WHERE r.run_id = :run AND r.state IN ({states}) AND r.{FOUND_BY_STATE}",
        run=run,
    )
    may_cost = sum((Decimal(amount) * times for amount, times in reserved), NOTHING)
    return Commitment(committed=Decimal(spent) + may_cost, in_flight=in_flight, unpriced=unpriced)


def summarize(transaction: Transaction, run: int) -> RunSummary:
    """Sum up a run."""
    spent = transaction.fetch("SELECT spent FROM kontext_runs WHERE id = :run", run=run)
    groups = transaction.fetch(
        "SELECT r.state, r.model, r.images, r.cost, r.reserved, sum(r.uncertain_attempts), count(*) "
        f"FROM kontext_requests AS r WHERE {transaction.dialect.run_in_order} = :run "
        "GROUP BY r.state, r.model, r.images, r.cost, r.reserved",
        run=run,
    )
    return _summary_of(groups, Decimal(spent[0][0]) if spent else NOTHING)


def _summary_of(groups: Sequence[Any], spent: Decimal) -> RunSummary:
    states: Counter[State] = Counter()
    costs: dict[tuple[str, int], Decimal] = {}
    owed: Counter[tuple[str, int]] = Counter()
    reserved = NOTHING
    for name, model, images, cost, amount, uncertain, times in groups:
        kind, state = (model, images), State(name)
        states[state] += times
        owed[kind] += int(uncertain)
        reserved += NOTHING if amount is None else Decimal(amount) * times
        if cost is not None:
            costs[kind] = max(read_money(cost), costs.get(kind, NOTHING))
        elif state not in (State.PLANNED, State.FAILED):
            owed[kind] += times
    return RunSummary(spent=spent, reserved=reserved, states=states, costs=costs, owed=+owed)


def delete_old_rows(transaction: Transaction, before: float, run: int | None, after: int) -> tuple[int, int | None]:
    """Delete some rows that completed before a time.

    Returns:
        The number of deleted rows, and the number of the last row that was looked at; None at the end.
    """
    runs = ":run" if run is not None else "(SELECT id FROM kontext_runs WHERE execution = 0)"
    of_runs = f"{transaction.dialect.run_in_order} {'=' if run is not None else 'IN'} {runs}"
    old = transaction.fetch(
        f"SELECT r.id FROM kontext_requests AS r WHERE r.id > :after AND {of_runs} AND r.completed_at < :before "
        f"AND r.state IN ('finished', 'failed', 'expired') ORDER BY r.id LIMIT :limit {transaction.dialect.lock}",
        after=after,
        run=run,
        before=before,
        limit=ROWS_AT_ONCE,
    )
    numbers = [number for (number,) in old]
    if not numbers:
        return 0, None
    deleted = transaction.execute(
        f"DELETE FROM kontext_requests WHERE {transaction.dialect.is_in('id', 'numbers', 'bigint')}",
        numbers=transaction.dialect.pack(numbers),
    )
    return deleted, numbers[-1] if len(numbers) == ROWS_AT_ONCE else None


def delete_old_second_tasks(transaction: Transaction) -> None:
    """Delete second tasks whose row is gone and that nobody needs."""
    transaction.execute(
        f"DELETE FROM kontext_second_tasks WHERE NOT ({NEEDED}) "
        "AND NOT EXISTS (SELECT 1 FROM kontext_requests AS r WHERE r.id = kontext_second_tasks.row_id)"
    )

"""Applies a group of steps in one transaction.

First all rows of the group are locked (`reading.lock_rows`). The steps of one row are taken in their order: the first
step of each row, then the second one, and so on. Steps that are taken often go in one fenced statement for each class;
the rest, and those whose fence did not let them pass, are decided by `outcomes.decide`.
"""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from kontext_async.store.limits import IN_FLIGHT, Commitment, admits
from kontext_async.store.outcomes import decide
from kontext_async.store.rows import StepResult
from kontext_async.store.sql.changes import FENCED, Batch, execute, fenced_change, plain_change, spend
from kontext_async.store.sql.reading import fetch_rows, fetch_second_tasks_of, lock_rows, read_commitment
from kontext_async.store.sql.records import COLUMNS, clean, encode
from kontext_async.store.states import judge
from kontext_async.store.steps import Intended, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kontext_async.store.rows import Row, RowStep, SecondTask
    from kontext_async.store.sql.changes import Change
    from kontext_async.store.sql.transaction import Transaction
    from kontext_async.store.steps import Step

__all__ = ["apply_steps"]

NOTHING = Decimal(0)
APPLIED = StepResult(verdict=Verdict.APPLIED)
SHOWN = frozenset({Verdict.LOST, Verdict.SECOND_TASK, Verdict.OVER_LIMIT})
"""The verdicts that come with the row."""
ATTRIBUTES = tuple((column, "run" if column == "run_id" else column) for column in COLUMNS if column != "id")
"""The columns of a row, and its attributes."""


def apply_steps(transaction: Transaction, worker: int, steps: Sequence[RowStep]) -> list[StepResult]:
    """Apply a group of steps; return what became of each."""
    return _Group(transaction, worker, [_cleaned(each) for each in steps]).apply()


@define(eq=False)
class _Group:
    transaction: Transaction
    worker: int
    steps: Sequence[RowStep]
    results: dict[int, StepResult] = field(factory=dict)
    spent: defaultdict[int, Decimal] = field(factory=lambda: defaultdict(Decimal))
    commitments: dict[int, Commitment] = field(factory=dict)

    def apply(self) -> list[StepResult]:
        lock_rows(self.transaction, {each.row for each in self.steps})
        self._lock_limited_runs()
        for wave in _waves(self.steps):
            self.commitments.clear()
            self._decide(self._take_often_taken(wave))
        spend(self.transaction, self.spent)
        return [self.results[number] for number in range(len(self.steps))]

    def _take_often_taken(self, wave: Iterable[int]) -> list[int]:
        """Take steps by fenced statements; return those that have to be decided."""
        rest: list[int] = []
        batches: dict[type[Step], Batch] = {}
        fenced: list[int] = []
        for number in wave:
            each = self.steps[number]
            kind = type(each.step)
            if kind not in FENCED or (isinstance(each.step, Intended) and each.step.limit is not None):
                rest.append(number)
                continue
            changes = each.step.changes(self.worker)
            if kind not in batches:
                batches[kind] = Batch(fenced_change(kind, changes))
            batches[kind].add(each.row, changes, each.step)
            fenced.append(number)
        kinds = sorted(batches, key=lambda kind: kind.__name__)  # so that there are few different statements
        changed = execute(self.transaction, [batches[kind] for kind in kinds])
        for number in fenced:
            if self.steps[number].row in changed:
                self.results[number] = APPLIED
            else:
                rest.append(number)
        return sorted(rest)

    def _decide(self, numbers: Sequence[int]) -> None:
        """Decide steps on their rows, and write what they do."""
        if not numbers:
            return
        wanted = sorted({self.steps[number].row for number in numbers})
        rows = fetch_rows(self.transaction, wanted)
        second_tasks = fetch_second_tasks_of(self.transaction, wanted)
        written: dict[Change, Batch] = {}
        for number in numbers:
            each = self.steps[number]
            row, tasks = rows.get(each.row), second_tasks.get(each.row, {})
            if refusal := self._refuse(row, each.step):
                self.results[number] = refusal
                continue
            outcome = decide(row, each.step, self.worker, run="", second_tasks=tasks)
            self.results[number] = StepResult(
                verdict=outcome.verdict, row=outcome.row if outcome.verdict in SHOWN else None
            )
            if row is None:
                continue
            self._note_commitment(row, outcome.row, outcome.spent)
            new = {} if outcome.row is None else _changes_of(row, outcome.row)
            if new or outcome.row is None:
                change = plain_change(tuple(new))
                written.setdefault(change, Batch(change)).add(row.id, new)
            self._write_second_tasks(row, tasks, outcome.second_tasks)
        for batch in written.values():
            execute(self.transaction, [batch])

    def _refuse(self, row: Row | None, step: Step) -> StepResult | None:
        """Return the refusal of a step that the cost limit of the run does not admit."""
        if row is None or not isinstance(step, Intended) or step.limit is None:
            return None
        if judge(row, step, self.worker) is not Verdict.APPLIED:
            return None
        commitment = _without(self._commitment(row.run), row)
        if admits(step, commitment):
            return None
        return StepResult(
            verdict=Verdict.OVER_LIMIT, row=row, committed=commitment.committed, in_flight=commitment.in_flight
        )

    def _lock_limited_runs(self) -> None:
        """Lock the runs whose limits are checked, so that workers are admitted one after the other."""
        limited = [each.row for each in self.steps if isinstance(each.step, Intended) and each.step.limit is not None]
        if limited and self.transaction.dialect.lock:
            rows = self.transaction.dialect.is_in("q.id", "rows", "bigint")
            self.transaction.fetch(
                "SELECT r.id FROM kontext_runs AS r WHERE r.id IN "
                f"(SELECT q.run_id FROM kontext_requests AS q WHERE {rows}) ORDER BY r.id FOR UPDATE OF r",
                rows=self.transaction.dialect.pack(limited),
            )

    def _commitment(self, run: int) -> Commitment:
        """Return what a run has cost or may cost, with all of its rows."""
        if run not in self.commitments:
            known = read_commitment(self.transaction, run)
            self.commitments[run] = evolve(known, committed=known.committed + self.spent[run])
        return self.commitments[run]

    def _note_commitment(self, before: Row, after: Row | None, spent: Decimal) -> None:
        """Record what a decided step changed of a run's money."""
        self.spent[before.run] += spent
        if before.run in self.commitments:
            known = _without(self.commitments[before.run], before)
            known = evolve(known, committed=known.committed + spent)
            self.commitments[before.run] = known if after is None else _with(known, after)

    def _write_second_tasks(self, row: Row, before: Mapping[str, SecondTask], after: Mapping[str, SecondTask]) -> None:
        for task_id in before.keys() - after.keys():
            self.transaction.execute(
                "DELETE FROM kontext_second_tasks WHERE row_id = :row AND task_id = :task", row=row.id, task=task_id
            )
        for task_id, task in after.items():
            if before.get(task_id) != task:
                self.transaction.execute(
                    "INSERT INTO kontext_second_tasks (row_id, task_id, run_id, key, attempt, reference, account, "
                    "state, cost, accepted_at, received_at) VALUES (:row, :task, :run, :key, :attempt, :reference, "
                    ":account, :state, :cost, :accepted_at, :received_at) ON CONFLICT (row_id, task_id) DO UPDATE "
                    "SET state = excluded.state, cost = excluded.cost",
                    row=row.id,
                    task=task_id,
                    run=row.run,
                    key=row.key,
                    attempt=task.attempt,
                    reference=encode("reference", task.reference),
                    account=task.account,
                    state=str(task.state),
                    cost=encode("cost", task.cost),
                    accepted_at=task.accepted_at,
                    received_at=task.received_at,
                )


def _waves(steps: Sequence[RowStep]) -> list[list[int]]:
    """Return the numbers of the first step of each row, then of the second one, and so on."""
    waves: list[list[int]] = []
    taken: defaultdict[int, int] = defaultdict(int)
    for number, each in enumerate(steps):
        wave = taken[each.row]
        taken[each.row] += 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(number)
    return waves


def _changes_of(before: Row, after: Row) -> dict[str, Any]:
    """Return the values of the columns in which two states of a row differ."""
    return {
        column: getattr(after, name) for column, name in ATTRIBUTES if getattr(after, name) != getattr(before, name)
    }


def _cleaned(each: RowStep) -> RowStep:
    """Return a step whose task ID is as the database will return it, so that it is found again."""
    task_id = getattr(each.step, "task_id", None)
    if task_id is None or clean(task_id) == task_id:
        return each
    return evolve(each, step=evolve(each.step, task_id=clean(task_id)))  # type: ignore[call-arg] # it has one


def _without(commitment: Commitment, row: Row) -> Commitment:
    is_open = row.state in IN_FLIGHT
    return Commitment(
        committed=commitment.committed - (row.reserved or NOTHING),
        in_flight=commitment.in_flight - is_open,
        unpriced=commitment.unpriced - (is_open and row.reserved is None),
    )


def _with(commitment: Commitment, row: Row) -> Commitment:
    is_open = row.state in IN_FLIGHT
    return Commitment(
        committed=commitment.committed + (row.reserved or NOTHING),
        in_flight=commitment.in_flight + is_open,
        unpriced=commitment.unpriced + (is_open and row.reserved is None),
    )

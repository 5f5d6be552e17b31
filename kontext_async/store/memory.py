"""A store in memory: for tests, and for a process that needs no more. Nothing of it survives the process.

Several stores may share one `MemoryDatabase`, as several sessions share a database.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from kontext_async.store.base import Store
from kontext_async.store.limits import IN_FLIGHT, Commitment, admits
from kontext_async.store.outcomes import decide, outlives_row
from kontext_async.store.rows import Row, Run, RunSummary, StepResult
from kontext_async.store.states import first_values, is_moved, is_ownerless, judge
from kontext_async.store.steps import Intended, State, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from kontext_async.store.rows import Account, NewRow, RowStep, SecondTask, Selection

__all__ = ["MemoryDatabase", "MemoryStore"]

NOTHING = Decimal(0)
FORGETTABLE = frozenset({State.COMPLETED, State.FAILED, State.EXPIRED})
SHOWN = frozenset({Verdict.LOST, Verdict.SECOND_TASK, Verdict.OVER_LIMIT})
"""The verdicts that come with the row."""


@define(eq=False, kw_only=True)
class MemoryDatabase:
    """The data that the stores of one process share.

    Attributes:
        clock: Returns seconds; leases end by it.
        identity: A random text that distinguishes this store from every other one.
        salt: 32 random bytes.
        alive_until: The clock's time until which each worker is alive, by number.
        workers: The numbers of workers by token.
        accounts: The numbers of accounts.
        folders: The paths of folders by token, in the order of their numbers.
        runs: The runs by number.
        rows: The rows by number.
        keys: The numbers of rows by run and key.
        second_tasks: The second tasks by the number of their row and by task ID.
    """

    clock: Callable[[], float] = time.monotonic
    identity: str = field(factory=lambda: secrets.token_hex(16))
    salt: bytes = field(factory=lambda: secrets.token_bytes(32), repr=False)
    alive_until: dict[int, float] = field(factory=dict)
    workers: dict[bytes, int] = field(factory=dict)
    accounts: dict[Account, int] = field(factory=dict)
    folders: dict[bytes, str] = field(factory=dict)
    runs: dict[int, Run] = field(factory=dict)
    rows: dict[int, Row] = field(factory=dict)
    keys: dict[tuple[int, str], int] = field(factory=dict)
    second_tasks: defaultdict[int, dict[str, SecondTask]] = field(factory=lambda: defaultdict(dict))
    _last_row: int = field(default=0, init=False)

    def is_alive(self, worker: int | None) -> bool:
        """Return True if there is such a worker, and its lease has not passed."""
        return worker is not None and self.alive_until.get(worker, 0.0) > self.clock()

    def read(self, number: int) -> Row | None:
        """Return a row, with what is true of its owner now."""
        row = self.rows.get(number)
        return row and evolve(row, owner_alive=self.is_alive(row.owner))

    def read_all(self, run: int | None = None) -> Iterator[Row]:
        """Return the rows of a run, or of all runs, in the order of their numbers."""
        return (
            evolve(row, owner_alive=self.is_alive(row.owner)) for row in self.rows.values() if run in (None, row.run)
        )

    def insert(self, run: int, new: NewRow, owner: int | None, execution: int) -> Row:
        """Insert a new row."""
        self._last_row += 1
        row = Row(id=self._last_row, **first_values(new, run=run, worker=owner, execution=execution))
        self.keys[run, new.key] = row.id
        self.rows[row.id] = row
        return row

    def delete(self, row: Row) -> None:
        """Delete a row."""
        del self.rows[row.id], self.keys[row.run, row.key]

    def commitment(self, run: int, without: int | None = None) -> Commitment:
        """Sum up what a run has cost, and what its rows may cost, one of them left out."""
        others = [each for each in self.rows.values() if each.run == run and each.id != without]
        in_flight = [each for each in others if each.state in IN_FLIGHT]
        return Commitment(
            committed=sum((each.reserved or NOTHING for each in others), self.runs[run].spent),
            in_flight=len(in_flight),
            unpriced=sum(each.reserved is None for each in in_flight),
        )


class MemoryStore(Store):
    """A store in memory.

    Args:
        database: The database that several stores share; None for one of its own.
        clock: Returns seconds, for the leases of a database of its own.
    """

    name = "memory"

    def __init__(self, database: MemoryDatabase | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.database = database or MemoryDatabase(clock=clock)
        self.identity = self.database.identity
        self.salt = self.database.salt

    def share(self) -> MemoryStore:
        """Return another store over the same database, for another session."""
        return MemoryStore(self.database)

    async def open(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing: the rows stay, as they do in a database."""

    async def add_worker(self, token: bytes, lease: float) -> int:
        """Register a worker."""
        number = self.database.workers.setdefault(token, len(self.database.workers) + 1)
        await self.beat(number, lease)
        return number

    async def beat(self, worker: int, lease: float) -> None:
        """Extend the life of a worker."""
        self.database.alive_until[worker] = self.database.clock() + lease

    async def remove_worker(self, worker: int) -> None:
        """End the life of a worker."""
        self.database.alive_until[worker] = self.database.clock()

    async def account(self, account: Account) -> int:
        """Return the number of an account."""
        return self.database.accounts.setdefault(account, len(self.database.accounts) + 1)

    async def accounts(self) -> dict[int, Account]:
        """Return all accounts by number."""
        return {number: account for account, number in self.database.accounts.items()}

    async def open_run(self, name: str, *, create: bool = True, executes: bool = False) -> Run | None:
        """Return a run by its name."""
        runs = self.database.runs
        run = next((run for run in runs.values() if run.name == name), None)
        if run is None and not create:
            return None
        run = run or Run(id=len(runs) + 1, name=name)
        runs[run.id] = evolve(run, execution=run.execution + executes)
        return runs[run.id]

    async def run_names(self) -> dict[int, str]:
        """Return the names of all runs by number."""
        return {number: run.name for number, run in self.database.runs.items()}

    async def folder(self, token: bytes, path: str) -> int:
        """Return the number of a folder."""
        self.database.folders.setdefault(token, path)
        return list(self.database.folders).index(token) + 1

    async def folders(self) -> dict[int, str]:
        """Return the paths of all folders by number."""
        return dict(enumerate(self.database.folders.values(), start=1))

    async def plan(
        self, run: int, rows: Sequence[NewRow], *, worker: int | None = None, execution: int | None = None
    ) -> list[Row]:
        """Return the rows of keys, and create the missing ones."""
        return [self._plan(run, new, worker, execution) for new in rows]

    async def fetch(self, rows: Collection[int]) -> dict[int, Row]:
        """Return rows by their numbers."""
        found = (self.database.read(number) for number in rows)
        return {row.id: row for row in found if row is not None}

    async def find(self, run: int, keys: Collection[str]) -> dict[str, Row]:
        """Return rows by their keys."""
        numbers = [self.database.keys[run, key] for key in keys if (run, key) in self.database.keys]
        return {row.key: row for row in (await self.fetch(numbers)).values()}

    async def apply(self, worker: int, steps: Sequence[RowStep]) -> list[StepResult]:
        """Write steps in order."""
        return [self._apply(worker, each) for each in steps]

    async def page(self, selection: Selection, *, after: int = 0, limit: int = 500) -> list[Row]:
        """Return selected rows in order."""
        numbered = sorted(
            ((row.completion if selection.by_completion else row.id) or 0, row.id, row)
            for row in self.database.read_all(selection.run)
            if _is_selected(row, selection)
        )
        return [row for number, _, row in numbered if number > after][:limit]

    async def second_tasks(self, run: int | None = None) -> list[SecondTask]:
        """Return second tasks."""
        name = None if run is None else self.database.runs[run].name
        tasks = [task for tasks in self.database.second_tasks.values() for task in tasks.values()]
        return sorted(
            (task for task in tasks if name in (None, task.run)),
            key=lambda task: (task.row, task.attempt, task.task_id),
        )

    async def receive_second_task(self, row: int, task_id: str, at: float) -> None:
        """Record that somebody has received a second task."""
        tasks = self.database.second_tasks[row]
        if task_id in tasks:
            tasks[task_id] = evolve(tasks[task_id], received_at=at)

    async def commitment(self, run: int) -> Commitment:
        """Return what a run has spent, and what its rows may still cost."""
        return self.database.commitment(run)

    async def summary(self, run: int) -> RunSummary:
        """Sum up a run."""
        rows = list(self.database.read_all(run))
        costs: dict[tuple[str, int], Decimal] = {}
        owed: Counter[tuple[str, int]] = Counter()
        for row in rows:
            owed[row.kind] += row.uncertain_attempts
            if row.cost is not None:
                costs[row.kind] = max(row.cost, costs.get(row.kind, row.cost))
            elif row.state not in (State.PLANNED, State.FAILED):
                owed[row.kind] += 1
        return RunSummary(
            spent=self.database.runs[run].spent,
            reserved=sum((row.reserved or NOTHING for row in rows), NOTHING),
            states=Counter(row.state for row in rows),
            costs=costs,
            owed=+owed,
        )

    async def forget(self, before: float, *, run: int | None = None) -> int:
        """Delete old rows, and second tasks that nobody needs."""
        old = [row for row in self.database.read_all(run) if self._is_old(row, before, run)]
        for row in old:
            self.database.delete(row)
        for number, tasks in self.database.second_tasks.items():
            if number not in self.database.rows:
                self.database.second_tasks[number] = {each: task for each, task in tasks.items() if outlives_row(task)}
        return len(old)

    def _is_old(self, row: Row, before: float, run: int | None) -> bool:
        is_of_bulk = self.database.runs[row.run].execution > 0
        is_complete = row.state in FORGETTABLE and row.completed_at is not None and row.completed_at < before
        return is_complete and (run is not None or not is_of_bulk)

    def _plan(self, run: int, new: NewRow, worker: int | None, execution: int | None) -> Row:
        database = self.database
        number = database.keys.get((run, new.key))
        if number is None:
            number = database.insert(run, new, worker, execution or 0).id
        row = database.rows[number]
        if execution is not None and is_moved(row, position=new.position, execution=execution):
            row = database.rows[number] = evolve(row, position=new.position, execution=execution)
        row = evolve(row, owner_alive=database.is_alive(row.owner))
        if execution is not None and worker is not None and is_ownerless(row):
            row = database.rows[number] = evolve(row, owner=worker, owner_alive=True)
        return row

    def _apply(self, worker: int, row_step: RowStep) -> StepResult:
        database, step = self.database, row_step.step
        row = database.read(row_step.row)
        if row is not None and isinstance(step, Intended) and step.limit is not None:
            commitment = database.commitment(row.run, row.id)
            if judge(row, step, worker) is Verdict.APPLIED and not admits(step, commitment):
                return StepResult(
                    verdict=Verdict.OVER_LIMIT, row=row, committed=commitment.committed, in_flight=commitment.in_flight
                )
        run = "" if row is None else database.runs[row.run].name
        outcome = decide(row, step, worker, run=run, second_tasks=database.second_tasks.get(row_step.row, {}))
        if row is not None:
            if outcome.row is None:
                database.delete(row)
            else:
                database.rows[row.id] = outcome.row
            database.second_tasks[row.id] = dict(outcome.second_tasks)
            database.runs[row.run] = evolve(database.runs[row.run], spent=database.runs[row.run].spent + outcome.spent)
        return StepResult(verdict=outcome.verdict, row=outcome.row if outcome.verdict in SHOWN else None)


def _is_selected(row: Row, selection: Selection) -> bool:
    return (
        (not selection.states or row.state in selection.states)
        and (selection.account is None or row.account in (None, selection.account))
        and not (selection.unreceived and row.received_at is not None)
        and not (selection.unowned and row.owner_alive)
        and (selection.execution_below is None or row.execution < selection.execution_below)
        and (selection.folder is None or row.folder == selection.folder)
        and not (selection.by_completion and row.completion is None)
    )

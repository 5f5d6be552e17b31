"""Workers that crash, are stopped and continue, over one store: what is paid, and what is known of it.

Each worker acts on what it saw when it last looked. A gateway bills every create request that it accepts, also one
whose response is lost. A worker that crashes leaves the IDs that it could not record in its spool.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from store_support import PRICE, Stores, new_row, new_step

from kontext_async.store.memory import MemoryDatabase
from kontext_async.store.rows import Row, RowStep, SecondTask, StepResult
from kontext_async.store.steps import (
    Accepted,
    Adopted,
    Completed,
    Expired,
    Failed,
    Forgotten,
    Intended,
    Orphaned,
    Received,
    Resubmitted,
    State,
    Step,
    Uncertain,
    Verdict,
    Withdrawn,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kontext_async.store.base import Store

LEASE = 1e6
LIMIT = 4 * PRICE
KEY = "fox"


@define(eq=False)
class Worker:
    """A worker, and what it knows.

    Attributes:
        store: Its store.
        number: Its number.
        seen: The row as it last saw it.
        intents: The attempts that it is about to send.
        queue: The steps that it has not written yet.
    """

    store: Store
    number: int
    seen: Row
    intents: list[int] = field(factory=list)
    queue: list[Step] = field(factory=list)

    @property
    def is_busy(self) -> bool:
        """True while it has something to do for the row: a key has one waiter in a process."""
        return bool(self.intents or self.queue)


class Crashes(RuleBasedStateMachine):
    """One row and two workers. The rules are what may happen; the invariants are what a user was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stores = Stores(self.new_place())
        self.workers = [self.start_worker() for _ in range(2)]
        self.task_ids = (f"task-{number}" for number in itertools.count())
        self.paid = 0
        self.resubmitted = 0
        self.outcomes: dict[str, str] = {}  # of each task that the gateway accepted; "" while it runs
        self.spool: list[Step] = []
        self.known: set[str] = set()
        self.completed: set[str] = set()

    def new_place(self) -> MemoryDatabase | str:
        return MemoryDatabase()

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(step)

    def start_worker(self) -> Worker:
        started = self.run(self.stores.start_worker())
        self.run(started.store.beat(started.number, LEASE))
        [row] = self.run(started.store.plan(1, [new_row(KEY)]))
        return Worker(started.store, started.number, row)

    @initialize(begins=st.booleans(), twice=st.booleans())
    def begin(self, *, begins: bool, twice: bool) -> None:
        """Let a row begin with its first attempt. A worker that does not learn of it does so twice."""
        worker = self.workers[0]
        first = new_step(Intended, 1, reserved=None)
        new = new_row(KEY, intended=first if begins and isinstance(first, Intended) else None)
        self.run(self.workers[0].store.apply(worker.number, [RowStep(row=worker.seen.id, step=Forgotten(attempt=0))]))
        [row] = self.run(worker.store.plan(1, [new], worker=worker.number))
        if twice:
            [row] = self.run(worker.store.plan(1, [new], worker=worker.number))
        if new.has_begun(row, worker.number):
            worker.intents.append(1)
        for each in self.workers:
            each.seen = row

    def apply(self, worker: Worker, *steps: Step, twice: bool = False) -> Verdict | None:
        """Write steps, and return what became of the last. If the worker did not learn of it, it writes them twice."""
        group = [RowStep(row=worker.seen.id, step=step) for step in steps]
        results: list[StepResult] = self.run(worker.store.apply(worker.number, group))
        for step, result in zip(steps, results, strict=True):
            if isinstance(step, Accepted | Completed):
                assert result.verdict is not Verdict.LOST, step
                self.known.add(step.task_id)
            if isinstance(step, Completed):
                self.completed.add(step.task_id)
            self.resubmitted += isinstance(step, Resubmitted) and result.verdict is Verdict.APPLIED
        if twice:
            self.run(worker.store.apply(worker.number, group))
        return results[-1].verdict if results else None

    @rule(data=st.data())
    def act(self, data: st.DataObject) -> None:
        """Take one of the steps that are possible now. A worker acts on what it saw last, or looks first."""
        number = data.draw(st.sampled_from((0, 1)))
        worker, other = self.workers[number], self.workers[1 - number]
        if data.draw(st.sampled_from((True, True, True, False))):
            worker.seen = self.read()
        name = data.draw(st.sampled_from(self.possible_acts(worker)))
        getattr(self, name)(worker, other, data)

    def possible_acts(self, worker: Worker) -> list[str]:
        seen = worker.seen
        acts = {
            "intend": seen.state is State.PLANNED and not worker.is_busy,
            "send": bool(worker.intents),
            "write": bool(worker.queue),
            "poll": seen.state is State.ACCEPTED,
            "poll_second_tasks": any(task.state is State.ACCEPTED for task in self.second_tasks()),
            "resend": seen.state in (State.UNCERTAIN, State.FAILED, State.EXPIRED) and not worker.is_busy,
            "sweep": seen.state is State.INTENT,
            "adopt": seen.state in (State.ACCEPTED, State.COMPLETED),
            "receive": seen.state is State.COMPLETED,
            "read_spool": bool(self.spool),
        }
        return [name for name, is_possible in acts.items() if is_possible] + ["stop", "resume", "crash"]

    def intend(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        reserved = PRICE * (worker.seen.uncertain_attempts + 1)
        step = new_step(Intended, worker.seen.attempt + 1, reserved=reserved, limit=LIMIT)
        if self.apply(worker, step, twice=data.draw(st.booleans())) is Verdict.APPLIED:
            worker.intents.append(step.attempt)
        worker.seen = self.read()

    def send(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        """Send a create request, unless the worker finds that it was stopped, and read the response, if one comes."""
        attempt, task_id = worker.intents.pop(0), next(self.task_ids)
        outcomes: dict[str, Step] = {
            "accepted": new_step(Accepted, attempt, task_id=task_id),
            "lost": new_step(Uncertain, attempt),
            "rejected": new_step(Failed, attempt, task_id=None),
            "refused, or not sent": new_step(Withdrawn, attempt),
        }
        outcome = data.draw(st.sampled_from(list(outcomes)))
        if outcome in ("accepted", "lost"):
            self.paid += 1
            self.outcomes[task_id] = ""
        worker.queue.append(outcomes[outcome])

    def write(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(worker.queue)))
        group, worker.queue = worker.queue[:count], worker.queue[count:]
        self.apply(worker, *group, twice=data.draw(st.booleans()))

    def poll(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        self.poll_task(worker, worker.seen.attempt, worker.seen.task_id or "", data)

    def poll_second_tasks(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        for task in self.second_tasks():
            if task.state is State.ACCEPTED:
                self.poll_task(worker, task.attempt, task.task_id, data)

    def poll_task(self, worker: Worker, attempt: int, task_id: str, data: st.DataObject) -> None:
        outcome = data.draw(st.sampled_from(("completed", "failed", "vanished")))
        if self.outcomes[task_id] in ("", outcome) or outcome == "vanished":
            self.outcomes[task_id] = self.outcomes[task_id] or outcome
        unknown = PRICE * (self.read().uncertain_attempts + 1)
        match outcome, self.outcomes[task_id]:
            case "vanished", _:
                step = new_step(Expired, attempt, task_id=task_id, reserved=unknown)
            case _, "failed":
                step = new_step(Failed, attempt, task_id=task_id)
            case _:
                step = new_step(Completed, attempt, task_id=task_id)
        worker.queue.append(step)

    def resend(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        uncertain = worker.seen.uncertain_attempts + (worker.seen.state is not State.FAILED)
        step = new_step(Resubmitted, worker.seen.attempt, uncertain_attempts=uncertain, reserved=PRICE * uncertain)
        self.apply(worker, step, twice=data.draw(st.booleans()))

    def sweep(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        self.apply(worker, new_step(Orphaned, worker.seen.attempt))

    def adopt(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        self.apply(worker, new_step(Adopted, worker.seen.attempt))

    def receive(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        self.apply(worker, new_step(Received, worker.seen.attempt))

    def stop(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        """The worker's lease passes: it is taken for dead, and goes on when it is its turn."""
        self.run(other.store.beat(other.number, 0.0))

    def resume(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        self.run(worker.store.beat(worker.number, LEASE))

    def crash(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        """Another worker takes the place of one that crashes; its spool is kept."""
        self.spool += [step for step in worker.queue if isinstance(step, Accepted)]
        self.run(worker.store.beat(worker.number, 0.0))
        self.workers[self.workers.index(worker)] = self.start_worker()

    def read_spool(self, worker: Worker, other: Worker, data: st.DataObject) -> None:
        group, self.spool = self.spool, []
        self.apply(worker, *group)

    def read(self) -> Row:
        row: Row = self.run(self.workers[0].store.find(1, [KEY]))[KEY]
        return row

    def second_tasks(self) -> list[SecondTask]:
        tasks: list[SecondTask] = self.run(self.workers[0].store.second_tasks(1))
        return tasks

    @invariant()
    def nothing_is_paid_twice_unasked(self) -> None:
        assert self.paid <= 1 + self.resubmitted

    @invariant()
    def what_is_known_is_recorded_once(self) -> None:
        row, second_tasks = self.read(), self.second_tasks()
        recorded = [task.task_id for task in second_tasks] + [row.task_id] * (row.task_id is not None)
        assert sorted(map(str, recorded)) == sorted(self.known)
        assert self.run(self.workers[0].store.summary(1)).spent == PRICE * len(self.completed)
        if any(task.state is State.ACCEPTED for task in second_tasks):
            assert row.state not in (State.PLANNED, State.UNCERTAIN), "it is paid for, and would be sent again"

    @invariant()
    def the_limit_holds(self) -> None:
        assert PRICE * sum(outcome != "failed" for outcome in self.outcomes.values()) <= LIMIT

    def teardown(self) -> None:
        try:
            for worker in self.workers:
                self.apply(worker, *worker.queue)
            self.apply(self.workers[0], *self.spool)
            self.what_is_known_is_recorded_once()
        finally:
            self.run(self.stores.__aexit__())
            self.runner.close()


class CrashesOnDisk(Crashes):
    """The same over an SQLite file."""

    def new_place(self) -> str:
        self.directory = tempfile.TemporaryDirectory()
        return f"sqlite:///{self.directory.name}/store.sqlite"

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.directory.cleanup()


@pytest.mark.timeout(300)  # a failure takes long to be made small
def test_nothing_is_paid_twice_or_lost_in_memory() -> None:
    run_state_machine_as_test(Crashes, settings=settings(max_examples=40, stateful_step_count=50, deadline=None))


@pytest.mark.timeout(300)  # as above
def test_nothing_is_paid_twice_or_lost_in_sqlite() -> None:
    run_state_machine_as_test(CrashesOnDisk, settings=settings(max_examples=4, stateful_step_count=30, deadline=None))

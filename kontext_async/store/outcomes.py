"""The effect of a step on a row and on the row's second tasks. Pure: no I/O, no clock.

A row has one task of its own. A second paid task comes about when an attempt was taken for uncertain, the row was sent
again on request, and both were accepted; or when the row's task failed or expired, and the row was sent again. It is
recorded beside the row, with its cost. No ID of a paid task is ever replaced: it is the row's, or a second task's.

- A task that completes or fails before its ID was recorded is recorded as accepted first.
- If a second task completes while the row has no result and no create request on the wire, it becomes the row's task,
  and the row's own accepted task becomes a second one: a key keeps the first task that completed.
- If the latest attempt of a row is withdrawn, becomes uncertain or is to be sent again while an accepted second task is
  there, that one becomes the row's task: it is paid for already.

For a row without second tasks, each of these follows from `judge` and `advance` alone, but for the first one and for a
resubmitted task.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from kontext_async.store.rows import Row, SecondTask
from kontext_async.store.states import advance, judge, reserved_after, takes_over
from kontext_async.store.steps import (
    Accepted,
    Completed,
    Expired,
    Failed,
    Forgotten,
    Orphaned,
    Resubmitted,
    State,
    Step,
    Uncertain,
    Verdict,
    Withdrawn,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Outcome", "decide", "outlives_row"]

NOTHING = Decimal(0)


@frozen(kw_only=True)
class Outcome:
    """The effect of a step.

    Attributes:
        verdict: What becomes of the step.
        row: The row after the step; None if it is gone.
        second_tasks: The second tasks of the row after the step, by task ID.
        spent: USD that the run has spent with this step.
    """

    verdict: Verdict
    row: Row | None
    second_tasks: Mapping[str, SecondTask]
    spent: Decimal = NOTHING


def decide(row: Row | None, step: Step, worker: int, *, run: str, second_tasks: Mapping[str, SecondTask]) -> Outcome:
    """Decide what a step does, apart from the cost limit.

    Args:
        row: The row as it is; None if it is gone.
        step: The step.
        worker: The number of the worker that takes the step.
        run: The name of the row's run.
        second_tasks: The second tasks of the row, by task ID.
    """
    if row is not None and isinstance(step, Accepted | Completed | Failed):
        if step.task_id in second_tasks:
            return _change_second_task(row, step, worker, run, second_tasks)
        if step.task_id not in (None, row.task_id) and not isinstance(step, Accepted):
            return _record_task_first(row, step, worker, run, second_tasks)
    verdict = judge(row, step, worker)
    if row is not None and verdict is Verdict.APPLIED:
        return _change_row(row, step, worker, run, second_tasks)
    if row is not None and isinstance(step, Accepted) and verdict is Verdict.SECOND_TASK:
        return Outcome(
            verdict=verdict, row=row, second_tasks={**second_tasks, step.task_id: _second_task(row, step, run)}
        )
    return Outcome(verdict=verdict, row=row, second_tasks=second_tasks)


def outlives_row(task: SecondTask) -> bool:
    """Return True if a second task is kept although its row is deleted."""
    return task.received_at is None and task.state in (State.ACCEPTED, State.COMPLETED)


def _record_task_first(
    row: Row, step: Completed | Failed, worker: int, run: str, second_tasks: Mapping[str, SecondTask]
) -> Outcome:
    accepted = Accepted(attempt=step.attempt, task_id=step.task_id or "", at=step.at)
    before = decide(row, accepted, worker, run=run, second_tasks=second_tasks)
    return decide(before.row, step, worker, run=run, second_tasks=before.second_tasks)


def _change_row(row: Row, step: Step, worker: int, run: str, second_tasks: Mapping[str, SecondTask]) -> Outcome:
    if isinstance(step, Forgotten):
        kept = {task_id: task for task_id, task in second_tasks.items() if outlives_row(task)}
        return Outcome(verdict=Verdict.APPLIED, row=None, second_tasks=kept)
    changed = advance(row, step, worker)
    if isinstance(step, Resubmitted):
        return _promote_accepted_task(changed, worker, {**second_tasks, **_own_task(row, run)})
    if isinstance(step, Withdrawn | Uncertain | Orphaned):
        return _promote_accepted_task(changed, worker, second_tasks)
    spent = (changed.cost or NOTHING) - (row.cost or NOTHING)
    return Outcome(verdict=Verdict.APPLIED, row=changed, second_tasks=second_tasks, spent=spent)


def _promote_accepted_task(row: Row, worker: int, second_tasks: Mapping[str, SecondTask]) -> Outcome:
    """Return the row with its accepted second task, if there is one: nobody needs to pay for another."""
    task = next((task for task in second_tasks.values() if task.state is State.ACCEPTED), None)
    if task is None:
        return Outcome(verdict=Verdict.APPLIED, row=row, second_tasks=second_tasks)
    accepted = Accepted(attempt=task.attempt, task_id=task.task_id, reference=task.reference, at=task.accepted_at)
    promoted = evolve(advance(row, accepted, worker), owner=None, owner_alive=False)
    return Outcome(verdict=Verdict.APPLIED, row=promoted, second_tasks=_without(second_tasks, task))


def _change_second_task(
    row: Row, step: Accepted | Completed | Failed, worker: int, run: str, second_tasks: Mapping[str, SecondTask]
) -> Outcome:
    task = second_tasks[step.task_id or ""]
    is_open = task.state is State.ACCEPTED or (task.state is State.EXPIRED and isinstance(step, Completed))
    if isinstance(step, Accepted) or not is_open:
        return Outcome(verdict=Verdict.SECOND_TASK, row=row, second_tasks=second_tasks)
    spent = (step.cost or NOTHING) - (task.cost or NOTHING)
    if isinstance(step, Completed) and takes_over(row):
        changed = _with_task(row, task, step, worker)
        others = {**_without(second_tasks, task), **_own_task(row, run)}
        return Outcome(verdict=Verdict.SECOND_TASK, row=changed, second_tasks=others, spent=spent)
    ended = evolve(task, state=_state_after(step), cost=step.cost)
    return Outcome(
        verdict=Verdict.SECOND_TASK,
        row=_without_uncertainty(row, step),
        second_tasks={**second_tasks, task.task_id: ended},
        spent=spent,
    )


def _without(second_tasks: Mapping[str, SecondTask], task: SecondTask) -> dict[str, SecondTask]:
    return {task_id: each for task_id, each in second_tasks.items() if each is not task}


def _second_task(row: Row, step: Accepted, run: str) -> SecondTask:
    return SecondTask(
        row=row.id,
        run=run,
        key=row.key,
        attempt=step.attempt,
        task_id=step.task_id,
        reference=step.reference,
        account=row.account,
        state=State.ACCEPTED,
        accepted_at=step.at,
    )


def _own_task(row: Row, run: str) -> dict[str, SecondTask]:
    """Return the row's own task as a second task; nothing if it has none."""
    if row.task_id is None:
        return {}
    task = SecondTask(
        row=row.id,
        run=run,
        key=row.key,
        attempt=row.attempt,
        task_id=row.task_id,
        reference=row.reference,
        account=row.account,
        state=row.state,
        cost=row.cost,
        accepted_at=row.accepted_at or 0.0,
        received_at=row.received_at,
    )
    return {row.task_id: task}


def _with_task(row: Row, task: SecondTask, step: Completed, worker: int) -> Row:
    """Return the row with a second task that has completed as its own."""
    changes = step.changes(worker) | {
        "state": State.COMPLETED,
        "task_id": task.task_id,
        "reference": task.reference,
        "accepted_at": task.accepted_at,
        "owner": worker,
        "owner_alive": True,
        "received_at": None,
        "reserved": reserved_after(row, step.cost),
    }
    if row.state in (State.PLANNED, State.FAILED):  # elsewhere another attempt of the row becomes the uncertain one
        changes["uncertain_attempts"] = max(row.uncertain_attempts - 1, 0)
    return evolve(row, **changes)


def _without_uncertainty(row: Row, step: Completed | Failed) -> Row:
    """Return the row once the cost of a second task is known, which was reserved as that of an uncertain attempt."""
    is_known = step.cost is not None or (isinstance(step, Failed) and not isinstance(step, Expired))
    if not is_known:
        return row
    return evolve(row, uncertain_attempts=max(row.uncertain_attempts - 1, 0), reserved=reserved_after(row, step.cost))


def _state_after(step: Completed | Failed) -> State:
    match step:
        case Completed():
            return State.COMPLETED
        case Expired():
            return State.EXPIRED
    return State.FAILED

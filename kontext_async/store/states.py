"""The states of a row of the store, the steps between them, and the fence of each step. Pure: no I/O, no clock.

A row is one request that is paid for once. Every step is durable before the next one is taken, so that the state is
always a certain fact:

=========  =====================================================  ============================================
state      meaning                                                what a caller with the same key gets
=========  =====================================================  ============================================
planned    the gateway has not accepted it                        owns it once its session has a slot
intent     its owner is about to send a create request            waits; uncertain once the owner is dead
uncertain  the gateway may have accepted it                       `SubmissionUncertain`, unless a resend is asked
accepted   the gateway accepted it; its task ID is known          follows the task
finished   its task completed                                     what was recorded
saved      its images are saved (bulk runs only)                  what was recorded
failed     rejected for good, or its task ended without an image  the same error, unless a retry is asked
expired    it was paid for, and the gateway no longer knows it    the same error, unless a retry is asked
=========  =====================================================  ============================================

A row may begin with its first attempt (`NewRow.intended`): it is planned and intended in one step.

The legal steps are `TRANSITIONS`; whether a step is legal also depends on its fence: see `judge`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kontext_async.store.steps import (
    Accepted,
    Adopted,
    Completed,
    Expired,
    Failed,
    Fence,
    FilesLost,
    Forgotten,
    Intended,
    Orphaned,
    Received,
    Resubmitted,
    Saved,
    State,
    Step,
    Uncertain,
    Verdict,
    Withdrawn,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.store.rows import NewRow, Row

__all__ = [
    "OPEN_STATES",
    "TRANSITIONS",
    "advance",
    "first_values",
    "is_moved",
    "is_ownerless",
    "judge",
    "reserved_after",
    "sources_of",
    "takes_over",
]

TRANSITIONS: Mapping[State, Mapping[type[Step], State]] = {
    State.PLANNED: {
        Intended: State.INTENT,
        Accepted: State.ACCEPTED,  # the response to a withdrawn or swept attempt came after all
        Failed: State.FAILED,
        Forgotten: State.PLANNED,
    },
    State.INTENT: {
        Accepted: State.ACCEPTED,
        Failed: State.FAILED,  # the gateway rejected it for good
        Withdrawn: State.PLANNED,
        Uncertain: State.UNCERTAIN,
        Orphaned: State.UNCERTAIN,
    },
    State.UNCERTAIN: {
        Accepted: State.ACCEPTED,
        Failed: State.FAILED,  # its stopped owner learned that the gateway had rejected it
        Withdrawn: State.PLANNED,  # its stopped owner found that it had sent nothing
        Uncertain: State.UNCERTAIN,  # its owner says what it saw
        Resubmitted: State.PLANNED,
    },
    State.ACCEPTED: {
        Adopted: State.ACCEPTED,
        Completed: State.COMPLETED,
        Failed: State.FAILED,
        Expired: State.EXPIRED,
    },
    State.COMPLETED: {
        Adopted: State.COMPLETED,
        Received: State.COMPLETED,
        Saved: State.SAVED,
        Failed: State.FAILED,
        Expired: State.EXPIRED,
        Forgotten: State.COMPLETED,
    },
    State.SAVED: {FilesLost: State.COMPLETED, Received: State.SAVED},
    State.FAILED: {Resubmitted: State.PLANNED, Received: State.FAILED, Forgotten: State.FAILED},
    State.EXPIRED: {
        Completed: State.COMPLETED,  # another worker saw it completed before the gateway forgot it
        Resubmitted: State.PLANNED,
        Received: State.EXPIRED,
        Forgotten: State.EXPIRED,
    },
}
"""The state that follows each legal step. A forgotten row is deleted. Any other step changes nothing."""

OPEN_STATES = frozenset({State.INTENT, State.UNCERTAIN, State.ACCEPTED})
"""The states in which a row is or may be billed, and its cost is not known yet."""


def sources_of(step: type[Step]) -> frozenset[State]:
    """Return the states from which a step is legal."""
    return frozenset(state for state, steps in TRANSITIONS.items() if step in steps)


def judge(row: Row | None, step: Step, worker: int) -> Verdict:
    """Decide what becomes of a step of a row, apart from its second tasks and the cost limit: see `outcomes.decide`.

    Args:
        row: The row as it is; None if it is gone.
        step: The step.
        worker: The number of the worker that takes the step.
    """
    if row is None:
        return Verdict.REPEATED if isinstance(step, Forgotten) else Verdict.LOST
    if _is_repeated(row, step, worker):
        return Verdict.REPEATED
    if _is_second_task(row, step):
        return Verdict.SECOND_TASK
    if type(step) in TRANSITIONS[row.state] and _holds(row, step):
        return Verdict.APPLIED
    return Verdict.LOST


def first_values(new: NewRow, *, run: int, worker: int | None = None, execution: int = 0) -> dict[str, Any]:
    """Return the attributes of the row that a store creates for a request, apart from its number and its defaults.

    Args:
        new: The request. The row begins with its first attempt, if it has one and a worker.
        run: The number of the run.
        worker: The number of the worker that plans it.
        execution: The number of the execution that reads it; 0 outside bulk runs.
    """
    state = State.PLANNED
    changes: dict[str, Any] = {"owner": worker, "owner_alive": worker is not None}
    if worker is not None and new.intended is not None:
        state, changes = TRANSITIONS[state][Intended], new.intended.changes(worker)
    return {
        "run": run,
        "key": new.key,
        "state": state,
        "digest": new.digest,
        "model": new.model,
        "images": new.images,
        "prompt": new.prompt,
        "fields": new.fields,
        "position": new.position,
        "execution": execution,
        **changes,
    }


def is_ownerless(row: Row) -> bool:
    """Return True if a row is planned, and its preferred owner is dead or it has none.

    The first worker whose execution reads such a row becomes its preferred owner. Otherwise all workers of a run would
    try to take the planned rows of a dead worker.
    """
    return row.state is State.PLANNED and not row.owner_alive


def is_moved(row: Row, *, position: int | None, execution: int) -> bool:
    """Return True if an execution gives a row that it reads another place in the run.

    One that began earlier than the latest does not. A saved row is written only for another position: its execution
    says nothing, because what a later one looks for is paid and not saved.

    Args:
        row: The row, as the store has it.
        position: Its position in the input of the execution.
        execution: The number of the execution.
    """
    if row.execution > execution:
        return False
    return row.position != position or (row.execution < execution and row.state is not State.SAVED)


def advance(row: Row, step: Step, worker: int) -> Row:
    """Return the row after a step that `judge` found `Verdict.APPLIED`."""
    changes = step.changes(worker)
    match step:
        case Accepted():
            changes["attempt"] = max(row.attempt, step.attempt)
            changes["uncertain_attempts"] = _uncertain_after(row, step)
        case Failed(cost=None):
            changes["cost"] = row.cost
    if isinstance(step, Withdrawn | Completed | Failed) and step.reserved is None and row.uncertain_attempts:
        changes["reserved"] = reserved_after(row, getattr(step, "cost", None))
    return row.with_changes({**changes, "state": TRANSITIONS[row.state][type(step)]})


def takes_over(row: Row) -> bool:
    """Return True if a second task that has completed becomes the task of the row: the first to complete is kept.

    The row's own task, if there is one, is then the second one. While a create request of the row is on the wire, its
    outcome has to find the row.
    """
    return row.state not in (State.INTENT, State.COMPLETED, State.SAVED)


def reserved_after(row: Row, cost: Decimal | None) -> Decimal | None:
    """Return what a row may still cost once a part of what it reserved is spent; None if it reserved nothing."""
    return None if row.reserved is None else max(row.reserved - (cost or 0), Decimal(0))


def _uncertain_after(row: Row, accepted: Accepted) -> int:
    """Return the number of uncertain attempts of a row once it is accepted: an earlier attempt was one until now."""
    is_late = row.attempt > accepted.attempt or row.state is State.PLANNED
    is_latest_uncertain = row.state is State.UNCERTAIN and row.attempt > accepted.attempt
    return max(row.uncertain_attempts - is_late, 0) + is_latest_uncertain


def _is_second_task(row: Row, step: Step) -> bool:
    """Return True if a step concerns another task than the row's own."""
    match step:
        case Accepted():
            is_later_on_the_wire = row.state is State.INTENT and row.attempt > step.attempt
            return is_later_on_the_wire or row.task_id is not None or row.state in (State.FAILED, State.EXPIRED)
        case Completed() | Failed():
            return step.task_id is not None and row.task_id != step.task_id
    return False


def _holds(row: Row, step: Step) -> bool:
    """Return True if the fence of a step lets it pass."""
    match step.fence:
        case Fence.FREE:
            return row.attempt == step.attempt - 1 and _pays(row, step)
        case Fence.OWNER_DEAD:
            return row.attempt == step.attempt and not row.owner_alive and _pays(row, step)
        case Fence.ATTEMPT:
            return row.attempt == step.attempt
        case Fence.TASK:
            task_id = getattr(step, "task_id", None)
            return row.task_id == task_id and (task_id is not None or row.attempt == step.attempt)
        case Fence.NONE:
            return True


def _pays(row: Row, step: Step) -> bool:
    """Return True if nothing of the row may be billed to another account than that of the step."""
    account = getattr(step, "account", None)
    return account is None or row.account in (None, account) or row.is_unbilled


SHOWN_BY: Mapping[type[Step], frozenset[State]] = {
    Intended: frozenset({State.INTENT}),
    Accepted: frozenset({State.ACCEPTED, State.COMPLETED, State.SAVED, State.FAILED, State.EXPIRED}),
    Adopted: frozenset({State.ACCEPTED, State.COMPLETED}),
    Withdrawn: frozenset({State.PLANNED}),
    Orphaned: frozenset({State.UNCERTAIN}),
    Completed: frozenset({State.COMPLETED, State.SAVED}),
    Failed: frozenset({State.FAILED}),
    Expired: frozenset({State.EXPIRED}),
    Resubmitted: frozenset({State.PLANNED}),
    Saved: frozenset({State.SAVED}),
    FilesLost: frozenset({State.COMPLETED}),
    Received: frozenset({State.COMPLETED, State.SAVED, State.FAILED, State.EXPIRED}),
}
"""The states that show that a step of the row's attempt was taken already."""


def _is_repeated(row: Row, step: Step, worker: int) -> bool:
    """Return True if the row shows that this very step was written before."""
    if row.state not in SHOWN_BY.get(type(step), ()):
        return False
    match step:
        case Accepted() | Completed() | Failed(task_id=str()):
            return row.task_id == step.task_id
        case Intended() | Adopted():
            return row.attempt == step.attempt and row.owner == worker
        case Saved():
            return row.files == step.files
        case Received():
            return row.received_at is not None
    return row.attempt == step.attempt

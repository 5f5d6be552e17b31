"""The action of a run for a row that it reads, and the consequence of an error for a row. Pure.

The states and the steps between them are `kontext_async.store.states`. A row may belong to another worker of a shared
run; a run then waits for what becomes of it.

=========  =====================  ====================================================================
state      owner                  what the run does
=========  =====================  ====================================================================
planned    none, dead, or itself  submits it
planned    another, alive         waits; submits it once it has read its input
intent     alive                  waits
intent     dead                   records that it is uncertain, and looks again
uncertain  any                    reports it; submits it with `resend_uncertain`
accepted   another, alive         waits
accepted   none, dead, or itself  polls it, and saves its images: it is already paid for
finished   as accepted            saves its images, from fresh URLs
saved      any                    skips it; downloads images of its own directory again if they are damaged
failed     any                    reports it; submits it with `retry_failed`
expired    any                    reports it; submits it with `retry_failed`
=========  =====================  ====================================================================

Until it is completed, a row is followed for the account that pays for it only.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING

from attrs import frozen

from kontext_async.errors import (
    AuthenticationFailed,
    CostLimitReached,
    CostUnknown,
    GatewayUnavailable,
    InvalidRequest,
    KontextError,
    Overloaded,
    PermissionDenied,
    RequestRejected,
    SessionError,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
)
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from kontext_async.store.rows import Row

__all__ = ["Action", "Consequence", "Policy", "Viewer", "consequence_of"]


PAID = frozenset({State.ACCEPTED, State.COMPLETED, State.SAVED})
"""The states in which a task is paid for, and not all of it is here yet or it is lost."""


class Action(enum.Enum):
    """The action that a run takes for a row."""

    SUBMIT = enum.auto()
    """Submit it. It is billed."""
    WAIT = enum.auto()
    """Wait: another worker submits it or follows it."""
    SWEEP = enum.auto()
    """Its owner died while it was sending: record that it is uncertain, and look again."""
    FETCH = enum.auto()
    """Poll it by its task ID, and save its images. It is already paid for."""
    SKIP = enum.auto()
    """Do nothing: its images are saved."""
    REPORT = enum.auto()
    """Report its error, and do nothing else."""
    REFUSE = enum.auto()
    """Report that another account or gateway has it, and do nothing else."""


@frozen(kw_only=True)
class Viewer:
    """The worker that looks at a row.

    Attributes:
        worker: Its number; None for one that only looks.
        account: The number of its account; None for one that only looks.
        folder: The number of the folder of its images.
        takes_planned: True if it takes planned rows that another worker prefers.
    """

    worker: int | None = None
    account: int | None = None
    folder: int | None = None
    takes_planned: bool = True

    def is_elsewhere(self, row: Row) -> bool:
        """Return True if another worker that is alive owns a row, or is its preferred owner."""
        return row.owner is not None and row.owner != self.worker and row.owner_alive

    def is_payer(self, row: Row) -> bool:
        """Return True if the viewer's account pays for a row, or nobody does yet."""
        return self.account is None or row.account in (None, self.account) or row.is_unbilled


@frozen(kw_only=True)
class Policy:
    """The requests of earlier runs that a run resubmits. Resubmitted requests are billed again.

    Attributes:
        resend_uncertain: Resubmit uncertain requests. They may be billed twice.
        retry_failed: Resubmit failed and expired requests.
        began: When the run began, in Unix seconds: what failed later is resubmitted by the next run at the earliest.
    """

    resend_uncertain: bool = False
    retry_failed: bool = False
    began: float = math.inf

    def action(self, row: Row, viewer: Viewer, *, files_intact: bool) -> Action:
        """Return the action for a row.

        Args:
            row: The row.
            viewer: The worker that looks at it.
            files_intact: True if the images of the row are in the viewer's folder, and intact.
        """
        match row.state:
            case State.SAVED if files_intact or row.folder != viewer.folder:
                return Action.SKIP
            case State.INTENT:
                return Action.WAIT if row.owner_alive else Action.SWEEP
            case State.UNCERTAIN | State.FAILED | State.EXPIRED:
                return self._after_failure(row, viewer)
        if not viewer.is_payer(row):
            return Action.REFUSE
        if row.state is State.PLANNED:
            waits = viewer.is_elsewhere(row) and not viewer.takes_planned
            return Action.WAIT if waits else Action.SUBMIT
        return Action.WAIT if viewer.is_elsewhere(row) else Action.FETCH

    def _after_failure(self, row: Row, viewer: Viewer) -> Action:
        is_uncertain = row.state is State.UNCERTAIN
        wanted = self.resend_uncertain if is_uncertain else self.retry_failed
        failed_at = row.intended_at if is_uncertain else row.completed_at
        if not wanted or (failed_at or 0.0) >= self.began:
            return Action.REPORT
        return Action.SUBMIT if viewer.is_payer(row) else Action.REFUSE


class Consequence(enum.Enum):
    """The consequence of an error for a row."""

    OPEN = enum.auto()
    """It is not the request's fault: the connection, a proxy, the key, the balance or the session is to blame. Nothing
    failed, and the next run takes the next step."""
    UNCERTAIN = enum.auto()
    """The request may be billed."""
    FAILED = enum.auto()
    """The request failed for good."""
    EXPIRED = enum.auto()
    """It was paid for, and the gateway does not know its task any more."""
    UNCHANGED = enum.auto()
    """The request failed in this run, and the next one takes its next step again."""


OTHERS_FAULTS = (
    GatewayUnavailable,
    AuthenticationFailed,
    PermissionDenied,
    SessionError,
    Overloaded,
    CostLimitReached,
    CostUnknown,
)
"""Errors that are not the request's fault."""


def consequence_of(error: KontextError, row: Row) -> Consequence:
    """Return the consequence of an error for a row in its state."""
    if isinstance(error, SubmissionUncertain):
        return Consequence.UNCERTAIN
    if isinstance(error, OTHERS_FAULTS):
        return Consequence.OPEN
    if isinstance(error, TaskNotFound):  # rows of version 1 have no account: another one may know the task
        return Consequence.UNCHANGED if row.account is None else Consequence.EXPIRED
    if isinstance(error, InvalidRequest) and row.state in PAID:  # it is about the way to the task, such as its host
        return Consequence.UNCHANGED
    if isinstance(error, TaskFailed | RequestRejected | InvalidRequest):
        return Consequence.FAILED
    return Consequence.UNCHANGED

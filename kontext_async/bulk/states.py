"""The states of a request in the journal, and the action that the next run takes for each. Pure.

The journal is written before each step, so that the state is always a certain fact:

========  ==============================================  ==========================================================
state     meaning                                         action of the next run
========  ==============================================  ==========================================================
planned   read, and not accepted by the gateway           submits it
intent    a create request was about to be sent           reports it as uncertain; submits it with `resend_uncertain`
accepted  the gateway accepted it; its ID is known        polls it and saves its images: it is already paid for
finished  completed; its images are not saved yet         requests fresh URLs and saves its images
saved     its images are saved                            skips it; downloads it again if a file is missing or damaged
failed    rejected permanently, or ended without image    reports it; submits it with `retry_failed`
expired   paid for, but the gateway deleted the task      reports it; submits it with `retry_failed`
========  ==============================================  ==========================================================

The value of `State.COMPLETED` in the journal is ``finished``, as in existing journals.
"""

from __future__ import annotations

import enum

from attrs import frozen

from kontext_async.errors import (
    AuthenticationFailed,
    GatewayUnavailable,
    InvalidRequest,
    KontextError,
    PermissionDenied,
    RequestRejected,
    SessionError,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
)

__all__ = ["Action", "Policy", "State", "is_open_after", "state_after"]


class State(enum.StrEnum):
    """The state of a request in the journal."""

    PLANNED = "planned"
    INTENT = "intent"
    ACCEPTED = "accepted"
    COMPLETED = "finished"
    SAVED = "saved"
    FAILED = "failed"
    EXPIRED = "expired"


class Action(enum.Enum):
    """The action that a run takes for a request."""

    SUBMIT = enum.auto()
    """Submit it. It is billed."""
    FETCH = enum.auto()
    """Poll it by its task ID, and save its images. It is already paid for."""
    SKIP = enum.auto()
    """Do nothing: its images are saved."""
    REPORT = enum.auto()
    """Report its error, and do nothing else."""


@frozen(kw_only=True)
class Policy:
    """The requests of earlier runs that a run resubmits. Resubmitted requests are billed again.

    Attributes:
        resend_uncertain: Resubmit uncertain requests. They may be billed twice.
        retry_failed: Resubmit failed and expired requests.
    """

    resend_uncertain: bool = False
    retry_failed: bool = False

    def action(self, state: State, *, files_present: bool) -> Action:
        """Return the action for a request that an earlier run left in `state`."""
        match state:
            case State.PLANNED:
                return Action.SUBMIT
            case State.INTENT:
                return Action.SUBMIT if self.resend_uncertain else Action.REPORT
            case State.ACCEPTED | State.COMPLETED:
                return Action.FETCH
            case State.SAVED:
                return Action.SKIP if files_present else Action.FETCH
        return Action.SUBMIT if self.retry_failed else Action.REPORT


def state_after(error: KontextError, state: State) -> State:
    """Return the state of a request after `error` occurred in `state`.

    Errors that a later attempt may not meet leave the state as it is, and an uncertain request remains uncertain.
    """
    if state is State.INTENT or isinstance(error, SubmissionUncertain):
        return State.INTENT
    if isinstance(error, TaskNotFound):
        return State.EXPIRED
    if isinstance(error, TaskFailed | RequestRejected | InvalidRequest):
        return State.FAILED
    return state


def is_open_after(error: KontextError) -> bool:
    """Return True for an error that is not the request's fault: nothing failed, and the next run takes its next step.

    The connection, a proxy, the key, the balance or the session is to blame.
    """
    return isinstance(error, GatewayUnavailable | AuthenticationFailed | PermissionDenied | SessionError)

"""Where a request stands in the journal, and what that means. Pure.

A row is written before each step is taken, so that its state is what certainly happened:

========  ==========================================  ==========================================================
state     what is known                               what the next run does
========  ==========================================  ==========================================================
planned   read, and certainly not accepted            submits it
intent    a create was about to go out                lists it as uncertain; with `resend_uncertain`, submits it
accepted  the gateway has it, its id is known         asks for it, and saves its pictures: it is paid
finished  its result is known, its files are not      asks for fresh URLs, and saves its pictures
saved     its files are in their place                nothing; fetches it again where a file is missing or damaged
failed    refused for good, or ended without picture  lists it; with `retry_failed`, submits it
expired   paid, and the gateway knows it no more      lists it; with `retry_failed`, submits it
========  ==========================================  ==========================================================
"""

from __future__ import annotations

import enum

from attrs import frozen

from kontext_async.errors import (
    InvalidRequest,
    KontextError,
    RequestRejected,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
)

__all__ = ["Action", "Policy", "State", "state_after"]


class State(enum.StrEnum):
    """How far a request has come."""

    PLANNED = "planned"
    INTENT = "intent"
    ACCEPTED = "accepted"
    FINISHED = "finished"
    SAVED = "saved"
    FAILED = "failed"
    EXPIRED = "expired"


class Action(enum.Enum):
    """What a run does with a request."""

    SUBMIT = enum.auto()
    """Pay for it."""
    FETCH = enum.auto()
    """Ask for it by its id, and save its pictures: it is paid."""
    SKIP = enum.auto()
    """Nothing: its pictures are there."""
    LIST = enum.auto()
    """Say what became of it."""


@frozen(kw_only=True)
class Policy:
    """What is paid for once more.

    Attributes:
        resend_uncertain: Requests of which nobody knows whether they were accepted.
        retry_failed: Requests that failed, or whose pictures can be had no more.
    """

    resend_uncertain: bool = False
    retry_failed: bool = False

    def action(self, state: State, *, files_present: bool) -> Action:
        """What to do with a request that an earlier run left in `state`."""
        match state:
            case State.PLANNED:
                return Action.SUBMIT
            case State.INTENT:
                return Action.SUBMIT if self.resend_uncertain else Action.LIST
            case State.ACCEPTED | State.FINISHED:
                return Action.FETCH
            case State.SAVED:
                return Action.SKIP if files_present else Action.FETCH
        return Action.SUBMIT if self.retry_failed else Action.LIST


def state_after(error: KontextError, state: State) -> State:
    """Where a request stands after `error`, having come as far as `state`.

    What may go better another time leaves it where it was, and what is uncertain remains so.
    """
    if state is State.INTENT or isinstance(error, SubmissionUncertain):
        return State.INTENT
    if isinstance(error, TaskNotFound):
        return State.EXPIRED
    if isinstance(error, TaskFailed | RequestRejected | InvalidRequest):
        return State.FAILED
    return state

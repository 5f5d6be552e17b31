"""The phases of a submission, and the consequence of an interruption in each. Pure: no await, no clock.

A submission advances through four phases:

==========  ==========================  =======================================================================
phase       on the wire?                what happens in it
==========  ==========================  =======================================================================
QUEUED      no                          it loads images, waits for a slot, or waits to retry
CONNECTING  no                          the journal has recorded the attempt; the connection is not ready
SENDING     perhaps                     the first piece of the body was requested; the request may be out
ACCEPTED    done                        the gateway has returned a task ID and bills the task
==========  ==========================  =======================================================================

An attempt that ends without an accepted task moves a submission back to QUEUED.

The consequence of an interruption depends on the phase alone:

==========  ==========================  =====================================  =======================================
phase       the caller is cancelled     the caller's deadline passes           the session closes
==========  ==========================  =====================================  =======================================
QUEUED      NOTHING_SENT: it leaves     NOTHING_SENT: `GatewayUnavailable`     SESSION_CLOSED: `SessionClosed`
CONNECTING  NOTHING_SENT: the attempt   NOTHING_SENT: `GatewayUnavailable`     SESSION_CLOSED: `SessionClosed`
            is called off
SENDING     AWAIT_RESPONSE, bounded by  UNCERTAIN: `SubmissionUncertain`       AWAIT_RESPONSE, bounded by
            `Timeouts.cancel`; then an                                         `Timeouts.cancel`; then
            `Abandoned` event, no ID                                           `SubmissionUncertain`
ACCEPTED    ABANDONED: an `Abandoned`   TASK_TIMEOUT: `TaskTimeout`, with the  SESSION_CLOSED: `SessionClosed`, with
            event with the task ID      task ID                                the task ID
==========  ==========================  =====================================  =======================================
"""

from __future__ import annotations

import enum

__all__ = ["Consequence", "Interruption", "Phase", "Step", "advance", "consequence_of"]


class Phase(enum.Enum):
    """The phase that a submission has reached."""

    QUEUED = enum.auto()
    CONNECTING = enum.auto()
    SENDING = enum.auto()
    ACCEPTED = enum.auto()

    __hash__ = object.__hash__  # the tables are looked up for every request, and Enum hashes its name in Python


class Step(enum.Enum):
    """A step of a submission from one phase to another."""

    CONNECT = enum.auto()
    SEND = enum.auto()
    END_ATTEMPT = enum.auto()
    ACCEPT = enum.auto()

    __hash__ = object.__hash__  # as above


class Interruption(enum.Enum):
    """A reason to end the wait for a submission early."""

    CANCELLED = enum.auto()
    DEADLINE = enum.auto()
    CLOSED = enum.auto()


class Consequence(enum.Enum):
    """The consequence of an interruption."""

    NOTHING_SENT = enum.auto()
    AWAIT_RESPONSE = enum.auto()
    UNCERTAIN = enum.auto()
    ABANDONED = enum.auto()
    TASK_TIMEOUT = enum.auto()
    SESSION_CLOSED = enum.auto()


TRANSITIONS: dict[tuple[Phase, Step], Phase] = {
    (Phase.QUEUED, Step.CONNECT): Phase.CONNECTING,
    (Phase.CONNECTING, Step.SEND): Phase.SENDING,
    (Phase.CONNECTING, Step.END_ATTEMPT): Phase.QUEUED,
    (Phase.QUEUED, Step.END_ATTEMPT): Phase.QUEUED,  # the journal refused it
    (Phase.SENDING, Step.END_ATTEMPT): Phase.QUEUED,
    (Phase.SENDING, Step.ACCEPT): Phase.ACCEPTED,
}

CONSEQUENCES: dict[tuple[Phase, Interruption], Consequence] = {
    (Phase.QUEUED, Interruption.CANCELLED): Consequence.NOTHING_SENT,
    (Phase.QUEUED, Interruption.DEADLINE): Consequence.NOTHING_SENT,
    (Phase.QUEUED, Interruption.CLOSED): Consequence.SESSION_CLOSED,
    (Phase.CONNECTING, Interruption.CANCELLED): Consequence.NOTHING_SENT,
    (Phase.CONNECTING, Interruption.DEADLINE): Consequence.NOTHING_SENT,
    (Phase.CONNECTING, Interruption.CLOSED): Consequence.SESSION_CLOSED,
    (Phase.SENDING, Interruption.CANCELLED): Consequence.AWAIT_RESPONSE,
    (Phase.SENDING, Interruption.DEADLINE): Consequence.UNCERTAIN,
    (Phase.SENDING, Interruption.CLOSED): Consequence.AWAIT_RESPONSE,
    (Phase.ACCEPTED, Interruption.CANCELLED): Consequence.ABANDONED,
    (Phase.ACCEPTED, Interruption.DEADLINE): Consequence.TASK_TIMEOUT,
    (Phase.ACCEPTED, Interruption.CLOSED): Consequence.SESSION_CLOSED,
}


def advance(phase: Phase, step: Step) -> Phase:
    """Return the phase that follows.

    Raises:
        KeyError: The step is not legal in this phase.
    """
    return TRANSITIONS[phase, step]


def consequence_of(phase: Phase, interruption: Interruption) -> Consequence:
    """Return the consequence of an interruption in a phase."""
    return CONSEQUENCES[phase, interruption]

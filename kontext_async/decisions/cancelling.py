"""The next request that cancels a task. No await, no clock.

A cancel request says little by itself: a gateway takes it before it knows whether it is in time, and its response may
be lost. So each one is followed by a status request, and the status alone says what became of the task.

==================  =================================  ==================================================
the cancel request  the task                           what is done
==================  =================================  ==================================================
any                 has ended                          nothing more
taken               is in progress, or not readable    it is polled again: the gateway may need a moment
refused             is in progress                     nothing more: it cannot be cancelled
refused             is not readable                    it is polled again
refused             is not found                       both again: it may only not be known yet
lost                is in progress, or not readable    both again: cancelling twice does no harm
==================  =================================  ==================================================

A gateway may accept a task some time before all of it knows the task. A refusal counts only if a status had shown the
task before the request was sent. Any other one may come from a server that does not know the task yet, and is treated
as a lost response, although the status that follows is the first to show the task.

The caller bounds all of it with a deadline.
"""

from __future__ import annotations

import enum

from attrs import define, field

__all__ = ["CancelProgress", "CancelStep"]


class CancelStep(enum.Enum):
    """The next step."""

    SEND = enum.auto()
    """A cancel request, and then a status request."""
    POLL = enum.auto()
    """A status request."""
    END = enum.auto()


class Reply(enum.Enum):
    """The response to the last cancel request."""

    NONE = enum.auto()
    TAKEN = enum.auto()
    REFUSED = enum.auto()


@define
class CancelProgress:
    """The state of a task that is being cancelled.

    Attributes:
        not_found_until: The time until which the gateway may not know the task yet.
        is_known: True if the last that the gateway said is that it knows the task.
        rounds: The steps so far.
    """

    not_found_until: float
    is_known: bool
    rounds: int = field(default=0, init=False)
    _reply: Reply = field(default=Reply.NONE, init=False)
    _is_terminal: bool | None = field(default=None, init=False)

    def record_reply(self, *, is_taken: bool | None) -> None:
        """Record the response to a cancel request; None if there was none that says anything."""
        if is_taken:
            self._reply = Reply.TAKEN
        else:
            self._reply = Reply.REFUSED if is_taken is False and self.is_known else Reply.NONE

    def record_status(self, *, is_terminal: bool | None) -> None:
        """Record whether the task has ended; None if its status could not be read."""
        self._is_terminal = is_terminal
        self.is_known = self.is_known or is_terminal is not None

    def record_not_found(self) -> None:
        """Record that the gateway does not know the task. That it refused to cancel it says nothing then."""
        self._is_terminal = None
        self.is_known = False
        if self._reply is Reply.REFUSED:
            self._reply = Reply.NONE

    def next_step(self) -> CancelStep:
        """Return the next step, by the table above."""
        if self._is_terminal or (self._reply is Reply.REFUSED and self._is_terminal is False):
            return CancelStep.END
        return CancelStep.SEND if self._reply is Reply.NONE else CancelStep.POLL

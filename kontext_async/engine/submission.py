"""One request on its way to being accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from kontext_async.decisions.submission import Consequence, Interruption, Phase, Step, advance, consequence_of

if TYPE_CHECKING:
    import anyio

    from kontext_async.engine.submission_journal import SubmissionJournal
    from kontext_async.engine.task_record import TaskRecord
    from kontext_async.models import KontextRequest, TaskStatus

__all__ = ["Submission"]


@define(eq=False)
class Submission:
    """One request on its way to being accepted.

    Attributes:
        request: The request.
        journal: Records each step before the next one is taken.
        fingerprint: The request's fingerprint, if it is known already; None until its images are loaded.
        attempt: The number of the current attempt, from 1.
        excused: The attempts that did not fail: they ended with 429, or were held back before the first byte.
        phase: How far it has come: see `decisions.submission`.
        caller_cancelled: True once the caller is cancelled.
        has_uncertain_attempt: True if the gateway may have accepted an earlier attempt.
        is_trial: True if the current attempt is the trial of the circuit breaker.
        scope: Cancels the current attempt; None before the first one.
        task: The accepted task; None before.
        accept_body: The body of the response that accepted it.
        status: The status in that response; None before.
    """

    request: KontextRequest
    journal: SubmissionJournal | None = None
    fingerprint: str | None = None
    attempt: int = field(default=0, init=False)
    excused: int = field(default=0, init=False)
    phase: Phase = field(default=Phase.QUEUED, init=False)
    caller_cancelled: bool = field(default=False, init=False)
    has_uncertain_attempt: bool = field(default=False, init=False)
    is_trial: bool = field(default=False, init=False)
    scope: anyio.CancelScope | None = field(default=None, init=False, repr=False)
    task: TaskRecord | None = field(default=None, init=False)
    accept_body: bytes | None = field(default=None, init=False, repr=False)
    status: TaskStatus | None = field(default=None, init=False, repr=False)

    @property
    def failed_attempts(self) -> int:
        """The attempts that failed. One that ended with 429 did not: an account that is full is no failure."""
        return self.attempt - self.excused

    @property
    def may_be_billed(self) -> bool:
        """True if the deadline of the caller leaves the outcome unknown: an attempt is or was on the wire."""
        is_on_the_wire = consequence_of(self.phase, Interruption.DEADLINE) is Consequence.UNCERTAIN
        return is_on_the_wire or self.has_uncertain_attempt

    def advance(self, step: Step) -> None:
        """Go to the phase that follows a step."""
        self.phase = advance(self.phase, step)

    def call_off(self) -> None:
        """Cancel the current attempt. Nothing must have been sent for it."""
        if self.scope:
            self.scope.cancel()

"""One request on its way to being accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from kontext_async.decisions.shares import UNBOUNDED
from kontext_async.decisions.submission import Consequence, Interruption, Phase, Step, advance, consequence_of
from kontext_async.engine.task_record import TaskRecord, TaskRecordWithDigest
from kontext_async.errors import GatewayUnavailable
from kontext_async.protocol import clean_body, fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kontext_async.decisions.shares import Queueing
    from kontext_async.engine.slots import Slot
    from kontext_async.engine.submission_journal import SubmissionJournal
    from kontext_async.gateways import Acceptance, Webhook
    from kontext_async.images import LoadedImage
    from kontext_async.models import KontextRequest
    from kontext_async.protocol.http import Response

__all__ = ["Submission", "not_sent"]


@define(eq=False)
class Submission:
    """One request on its way to being accepted.

    Attributes:
        request: The request.
        journal: Records each step before the next one is taken.
        is_prompt_only: True if the request was made here from nothing but a prompt.
        queueing: The terms on which it waits for a slot.
        webhook: The address to which the gateway reports the end of the task; None for none.
        attempt: The number of the current attempt, from 1.
        excused: The attempts that did not fail: they ended with 429, or were stopped before the first byte.
        phase: How far it has come: see `decisions.submission`.
        caller_cancelled: True once the caller is cancelled.
        has_uncertain_attempt: True if the gateway may have accepted an earlier attempt.
        is_trial: True if the current attempt is the trial of the circuit breaker.
        task: The accepted task; None before.
        accept_body: The body of the response that accepted it.
        acceptance: What that response says, unless it only says that the task is in progress; None before.
        queued_at: The time from which it waits for a slot; None before.
        sent_at: The time at which the last attempt left the queue.
    """

    request: KontextRequest
    journal: SubmissionJournal | None = None
    _fingerprint: str | None = None
    is_prompt_only: bool = field(default=False, kw_only=True)
    queueing: Queueing = field(default=UNBOUNDED, kw_only=True)
    webhook: Webhook | None = field(default=None, kw_only=True)
    attempt: int = field(default=0, init=False)
    excused: int = field(default=0, init=False)
    phase: Phase = field(default=Phase.QUEUED, init=False)
    caller_cancelled: bool = field(default=False, init=False)
    has_uncertain_attempt: bool = field(default=False, init=False)
    is_trial: bool = field(default=False, init=False)
    task: TaskRecord | None = field(default=None, init=False)
    accept_body: bytes | None = field(default=None, init=False, repr=False)
    acceptance: Acceptance | None = field(default=None, init=False, repr=False)
    queued_at: float | None = field(default=None, init=False)
    sent_at: float = field(default=0.0, init=False)

    @property
    def fingerprint(self) -> str | None:
        """The request's fingerprint; None until its images are loaded. It is computed for those who need it."""
        if self._fingerprint is None and not self.request.input_images:
            self._fingerprint = fingerprint(self.request, ())
        return self._fingerprint

    @property
    def kind(self) -> tuple[str, int]:
        """The model and the number of input images."""
        return self.request.model, len(self.request.input_images)

    def identify(self, images: Sequence[LoadedImage]) -> None:
        """Compute the fingerprint while the images are there, unless it is known or needs none."""
        if self._fingerprint is None and images:
            self._fingerprint = fingerprint(self.request, images)

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

    def make_record(self, task_id: str, slot: Slot, now: float) -> TaskRecord:
        """Return the record of the task that the gateway accepted, which takes over the slot."""
        request, slots = self.request, slot.accepted(now)
        if not request.input_images:
            known = request.prompt if self.is_prompt_only else request
            return TaskRecord(task_id, now, request=known, slots=slots, share=slot.share, paid_until=slot.paid_until)
        return TaskRecordWithDigest(
            task_id,
            now,
            request=request,
            slots=slots,
            share=slot.share,
            paid_until=slot.paid_until,
            digest=bytes.fromhex(self.fingerprint or ""),
        )

    def clean_response(self, response: Response) -> None:
        """Remove the secret of the webhook, which the gateway may echo, from a response."""
        if self.webhook and self.webhook.secret:
            response.body = clean_body(response.body, self.webhook.secret)

    def start_sending(self) -> None:
        """Note that the request is about to go out, unless its caller was cancelled meanwhile.

        Raises:
            KontextError: It must not be sent.
        """
        if self.caller_cancelled:
            raise not_sent()
        if self.journal:
            self.journal.check_before_first_byte()
        self.advance(Step.SEND)


def not_sent() -> GatewayUnavailable:
    """Return the error of a request whose caller left before it was sent."""
    return GatewayUnavailable("the caller was cancelled before the request was sent")

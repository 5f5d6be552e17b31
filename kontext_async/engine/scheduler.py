"""Submits requests under the slots, and pays for each once. `decisions.resend` says what may be retried.

Each attempt in flight is a task of the scheduler: cancelling the caller does not touch it, so the session always
learns the ID of a task that it pays for. `decisions.submission` says what a cancellation, a deadline or the end of the
session means for a submission.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from logging import DEBUG
from typing import TYPE_CHECKING, Any

import anyio

from kontext_async.decisions.circuit_breaker import Admission, CircuitState
from kontext_async.decisions.resend import (
    AttemptOutcome,
    GiveUp,
    decide_retry,
    outcome_of_response,
)
from kontext_async.decisions.submission import Consequence, Interruption, Phase, Step, consequence_of
from kontext_async.engine.attempt import Attempt, FailedAttempt
from kontext_async.engine.clock import sleep_until
from kontext_async.engine.request_log import LOGGER, LoggedRequest
from kontext_async.engine.row_journal import NotSubmitted
from kontext_async.engine.submission import not_sent
from kontext_async.engine.submission_gate import StoppedAtGate
from kontext_async.engine.task_record import TaskRecord, reference_text
from kontext_async.engine.transport import TransportError
from kontext_async.errors import (
    AuthenticationFailed,
    GatewayError,
    InvalidResponse,
    KontextError,
    RateLimited,
    SessionClosed,
    SubmissionUncertain,
)
from kontext_async.events import Abandoned, Accepted, Failed, Retrying, Submitting, Throttled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from kontext_async.engine.attempt import AttemptResult
    from kontext_async.engine.context import Context
    from kontext_async.engine.poll_loop import PollLoop
    from kontext_async.engine.slot_pools import SlotPools
    from kontext_async.engine.slots import Slot
    from kontext_async.engine.spending import Spending
    from kontext_async.engine.submission import Submission
    from kontext_async.engine.submission_gate import SubmissionGate
    from kontext_async.engine.submission_journal import SubmissionJournal
    from kontext_async.engine.transport import Response, Transport
    from kontext_async.engine.uploads import RequestImages, UploadLimiter
    from kontext_async.gateways import Acceptance, GatewayRequest

__all__ = ["Scheduler"]


WAITING_ELSEWHERE = {AttemptOutcome.THROTTLED, AttemptOutcome.STOPPED}
"""Outcomes after which the slots, or the gate, let the submission wait with the whole session."""


class Scheduler:
    """Turns requests into accepted tasks."""

    def __init__(
        self,
        transport: Transport,
        uploads: UploadLimiter,
        slots: SlotPools,
        gate: SubmissionGate,
        *,
        spending: Spending,
        poll_loop: PollLoop,
        context: Context,
    ) -> None:
        self._transport = transport
        self._gateway = transport.gateway
        self._uploads = uploads
        self._slots = slots
        self._gate = gate
        self._spending = spending
        self._poll_loop = poll_loop
        self._settings = context.settings
        self._clock = context.clock
        self._hub = context.hub
        self._random = context.random
        self._crash = context.crash
        self._in_flight: dict[asyncio.Task[None], Attempt] = {}
        self._end_error: KontextError | None = None
        self._pauses: set[anyio.CancelScope] = set()

    def has_room(self, model: str) -> bool:
        """Return True if a request for a model would be sent at once."""
        return self._slots.has_room(model) and self._gate.state is CircuitState.CLOSED

    async def submit(self, submission: Submission) -> TaskRecord:
        """Submit a request: wait for a slot, send it, and retry it where that is safe.

        Raises:
            KontextError: The gateway refused it, or its outcome is unknown.
        """
        try:
            self._slots.of(submission.request.model).check_room(submission.queueing)
            with await self._uploads.open_images(submission.request.input_images) as images:
                return await self._send(submission, images)
        except KontextError as error:
            self._report(submission, error)
            raise

    async def submit_opened(self, submission: Submission, images: RequestImages) -> TaskRecord:
        """Submit a request whose images the caller has opened, as `submit` does otherwise.

        Raises:
            KontextError: The gateway refused it, or its outcome is unknown.
        """
        try:
            return await self._send(submission, images)
        except KontextError as error:
            self._report(submission, error)
            raise

    async def drain(self, seconds: float) -> None:
        """Call off the attempts that have sent nothing, and wait for the others, for a bounded time."""
        self._end_error = SessionClosed("the session is closed")
        for attempt in self._in_flight.values():
            submission = attempt.submission
            if (
                not submission.task
                and consequence_of(submission.phase, Interruption.CLOSED) is Consequence.SESSION_CLOSED
            ):
                attempt.cancel()
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=seconds)

    def close(self, error: KontextError) -> None:
        """Cancel all attempts, but for those whose task was accepted: these only record it."""
        self._end_error = error
        self.end_pauses()
        for attempt in self._in_flight.values():
            if attempt.submission.phase is not Phase.ACCEPTED:
                attempt.cancel()

    async def wait_closed(self) -> None:
        """Wait until all attempts have ended, and everybody who waited for one has its result."""
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        for attempt in tuple(self._in_flight.values()):  # the loop cancelled these before their first step
            self._end_attempt(attempt, _closed())

    def end_pauses(self) -> None:
        """Wake the submissions that wait to retry; they find the slots closed."""
        for pause in tuple(self._pauses):
            pause.cancel()

    async def _pause(self, seconds: float) -> None:
        with anyio.CancelScope() as pause:
            self._pauses.add(pause)
            try:
                await sleep_until(self._clock, self._clock.time() + seconds)
            finally:
                self._pauses.discard(pause)

    def _send(self, submission: Submission, images: RequestImages) -> Coroutine[Any, Any, TaskRecord]:
        submission.queued_at = self._clock.time()
        if self._spending.concerns(submission.queueing.share):
            return self._send_within_limit(submission, images)
        return self._send_until_accepted(submission, images)

    async def _send_within_limit(self, submission: Submission, images: RequestImages) -> TaskRecord:
        async with self._spending.reserve(submission):
            return await self._send_until_accepted(submission, images)

    async def _send_until_accepted(self, submission: Submission, images: RequestImages) -> TaskRecord:
        submission.identify(images.images)
        outgoing = self._gateway.create(submission.request, images.images, submission.webhook)
        while True:
            slot = await self._acquire_slot(submission)
            result = await self._await_attempt(submission, outgoing, images, slot)
            if isinstance(result, TaskRecord):
                return result
            if isinstance(result.error, RateLimited | StoppedAtGate):
                submission.excused += 1
            decision = decide_retry(
                result.outcome,
                submission.failed_attempts,
                self._settings.retries,
                self._random.random(),
                result.retry_after,
            )
            if isinstance(decision, GiveUp):
                raise self._uncertain(submission, result.error) if decision.uncertain else result.error
            if result.outcome not in WAITING_ELSEWHERE:
                fields = self._event_fields(submission)
                self._hub.emit(Retrying(**fields, operation="create", attempt=submission.attempt, error=result.error))
                await self._pause(decision.after)

    async def _acquire_slot(self, submission: Submission) -> Slot:
        """Take a slot once the circuit breaker admits the submission."""
        deadline: float | None = None
        slots = self._slots.of(submission.request.model)
        while True:
            slot = await slots.acquire(submission.queueing, submission.kind, priority=submission.attempt > 0)
            try:
                admission = self._gate.admit()
            except KontextError:
                slot.release()
                raise
            if admission is not Admission.WAIT:
                submission.is_trial = admission is Admission.SEND_AS_TRIAL
                return slot
            slot.release()
            if deadline is None:
                deadline = self._clock.time() + self._settings.outages.wait
            await self._gate.wait(deadline)

    async def _await_attempt(
        self, submission: Submission, outgoing: GatewayRequest, images: RequestImages, slot: Slot
    ) -> TaskRecord | FailedAttempt:
        """Run one attempt in a task of its own, and wait for its result."""
        if self._end_error:
            self._release(submission, slot)
            raise self._end_error.copy()
        submission.attempt += 1
        upload = self._uploads.upload(outgoing.body, partial(self._start_sending, submission))
        images.acquire()
        loop = asyncio.get_running_loop()
        attempt = Attempt(submission, outgoing, upload, images, slot, loop.create_future())
        task = attempt.task = loop.create_task(self._attempt(attempt))
        self._in_flight[task] = attempt
        try:
            result = await attempt.done
        except asyncio.CancelledError:
            await self._on_caller_cancelled(attempt, task)
            raise
        if isinstance(result, KontextError):
            raise result
        return result

    def _end_attempt(self, attempt: Attempt, result: AttemptResult) -> None:
        """Release what an attempt holds, and pass on its result, whether or not anybody still waits for it."""
        if attempt.task:
            self._in_flight.pop(attempt.task, None)
        self._release(attempt.submission, attempt.slot)
        attempt.images.release()
        if not attempt.done.done():
            attempt.done.set_result(result)
        elif attempt.done.cancelled():  # by the caller, who may not have had a turn since
            self._report_orphaned(attempt.submission, result)

    async def _on_caller_cancelled(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        """Wait for the response to a request in flight, for a bounded time, so that the task's ID becomes known."""
        submission = attempt.submission
        submission.caller_cancelled = True
        attempt.done.cancel()
        if not attempt.done.cancelled():  # the result came in the turn of the loop in which the caller was cancelled
            self._report_orphaned(submission, attempt.done.result())
            return
        if consequence_of(submission.phase, Interruption.CANCELLED) is Consequence.NOTHING_SENT:
            attempt.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task], timeout=self._settings.timeouts.cancel)
        if not task.done():
            reason = "the caller was cancelled before the gateway responded"
            self._hub.emit(Abandoned(**self._event_fields(submission), reason=reason))

    async def _attempt(self, attempt: Attempt) -> None:
        """Send the request once, and record the result."""
        submission = attempt.submission
        result: AttemptResult | None = None
        try:
            attempt.begin()
            result = await (self._try_logged(attempt) if LOGGER.isEnabledFor(DEBUG) else self._try(attempt))
            await self._record_attempt(submission, result)
            if isinstance(result, TaskRecord):
                self._follow(submission, result)
        except KontextError as error:
            result = self._not_accepted(submission, error)
        except asyncio.CancelledError:
            if (
                consequence_of(submission.phase, Interruption.CLOSED) is Consequence.AWAIT_RESPONSE
            ):  # and it did, long enough
                result = self._uncertain(submission, _closed())
                if submission.journal:
                    submission.journal.uncertain(result)
            elif submission.phase is not Phase.ACCEPTED:
                result = self._not_accepted(submission, not_sent() if submission.caller_cancelled else _closed())
            raise
        except Exception as error:  # noqa: BLE001 # the session ends with it
            self._crash(error)
        finally:
            if submission.phase is not Phase.ACCEPTED:
                submission.advance(Step.END_ATTEMPT)
            self._end_attempt(attempt, result or _closed())

    async def _try_logged(self, attempt: Attempt) -> TaskRecord | FailedAttempt:
        with LoggedRequest("create", self._clock, attempt=attempt.submission.attempt) as logged:
            result = await self._try(attempt, logged)
            if isinstance(result, FailedAttempt):
                logged.error = result.error
            else:
                logged.task_id = result.task_id
        return result

    async def _try(self, attempt: Attempt, logged: LoggedRequest | None = None) -> TaskRecord | FailedAttempt:
        submission, slot = attempt.submission, attempt.slot
        try:
            before = partial(self._before_send, submission)
            response = await self._transport.create(attempt.outgoing, attempt.upload, before=before)
            submission.clean_response(response)
        except StoppedAtGate as stopped:
            return FailedAttempt(AttemptOutcome.STOPPED, stopped)
        except TransportError as lost:
            return self._fail(FailedAttempt.by_transport(lost))
        if logged:
            logged.responded(response.status)
        if not response.ok:
            return await self._handle_refusal(submission, response, slot)
        try:
            accepted = self._gateway.read_accepted(response, model=submission.request.model)
        except InvalidResponse as invalid:
            return self._fail(FailedAttempt(AttemptOutcome.UNKNOWN, self._transport.redact(invalid)))
        except GatewayError as refusal:  # despite the HTTP status
            return self._fail(FailedAttempt(AttemptOutcome.REJECTED, self._transport.redact(refusal)))
        return self._accept(submission, accepted, response, slot)

    def _before_send(self, submission: Submission) -> Awaitable[None] | None:
        """Let the journal record the attempt; the first byte goes out after this."""
        if submission.journal:
            return self._connect_when_recorded(submission, submission.journal)
        self._connect(submission)
        return None

    async def _connect_when_recorded(self, submission: Submission, journal: SubmissionJournal) -> None:
        await journal.before_send(submission.fingerprint or "", submission.attempt)
        self._connect(submission)

    def _connect(self, submission: Submission) -> None:
        if submission.caller_cancelled:
            raise not_sent()
        self._gate.check_before_first_byte(is_trial=submission.is_trial)
        submission.sent_at = self._clock.time()
        self._hub.emit_if_wanted(Submitting, None, self._submitting, submission)
        submission.advance(Step.CONNECT)

    def _start_sending(self, submission: Submission) -> None:
        """Note that the request is about to go out, unless something has changed while it was on its way."""
        self._gate.check_before_first_byte(is_trial=submission.is_trial)
        submission.start_sending()

    def _submitting(self, submission: Submission) -> Submitting:
        return Submitting(**self._event_fields(submission), attempt=submission.attempt)

    def _fail(self, attempt: FailedAttempt) -> FailedAttempt:
        """Let the circuit breaker learn from a failed attempt."""
        self._gate.record_failure(attempt.outcome, attempt.error, attempt.failure)
        return attempt

    async def _handle_refusal(
        self, submission: Submission, response: Response, slot: Slot
    ) -> TaskRecord | FailedAttempt:
        requested = self._gateway.retry_after(response, self._clock.utcnow())
        error = self._transport.read_refusal(response)
        outcome = outcome_of_response(
            response.status, has_retry_after=requested is not None, from_gateway=error.from_gateway
        )
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:  # with Retry-After too: another one is billed too
            acceptance = self._gateway.accepted_despite_error(response, model=submission.request.model)
            if acceptance:
                return self._accept(submission, acceptance, response, slot)
        if isinstance(error, AuthenticationFailed) and error.from_gateway:
            submission.advance(Step.END_ATTEMPT)  # the gateway refused it: nothing is in flight any longer
            outcome = AttemptOutcome.REJECTED if await self._gate.confirm_key(error) else AttemptOutcome.NOT_ACCEPTED
        if isinstance(error, RateLimited):
            error.retry_after = requested
        if outcome is AttemptOutcome.THROTTLED:
            pause = slot.refused(requested, self._random.random())
            if response.status == HTTPStatus.SERVICE_UNAVAILABLE:  # a 429 concerns the models of the pool
                self._slots.pause_until(self._clock.time() + pause)
            self._hub.emit(Throttled(**self._event_fields(submission), seconds=pause, scope="submit"))
        return self._fail(FailedAttempt(outcome, error, requested))

    def _accept(self, submission: Submission, accepted: str | Acceptance, response: Response, slot: Slot) -> TaskRecord:
        """Record the accepted task: what the response says or, if that is only that it is in progress, its ID."""
        acceptance = None if isinstance(accepted, str) else accepted
        task_id = accepted if isinstance(accepted, str) else accepted.status.task_id
        task = submission.make_record(task_id, slot, self._clock.time())
        if acceptance:
            submission.acceptance = acceptance
            task.reference = None if acceptance.reference.is_plain else acceptance.reference
            task.price = acceptance.status.usage if self._gateway.features.price_at_create else None
        submission.task = task
        submission.advance(Step.ACCEPT)
        self._gate.record_accepted()
        submission.accept_body = response.body
        self._hub.emit_if_wanted(Accepted, task_id, self._accepted, submission, response)
        return task

    def _accepted(self, submission: Submission, response: Response) -> Accepted:
        model = submission.request.model
        acceptance = submission.acceptance or self._gateway.read_created(response, model=model)
        began = submission.sent_at if submission.queued_at is None else submission.queued_at
        return Accepted(
            **self._event_fields(submission),
            status=acceptance.status,
            model=model,
            queued=submission.sent_at - began,
            sent=self._clock.time() - submission.sent_at,
        )

    def _follow(self, submission: Submission, task: TaskRecord) -> None:
        """Poll an accepted task, unless its create request returned the end of it, or it must not be polled."""
        acceptance = submission.acceptance
        if acceptance and acceptance.status.state.is_terminal:
            submission.accept_body = None
            self._poll_loop.finish(task, acceptance.status, acceptance.status)
        elif acceptance and acceptance.problem:
            self._poll_loop.fail(task, self._transport.redact(acceptance.problem))
        else:
            self._poll_loop.track(task)

    async def _record_attempt(self, submission: Submission, result: TaskRecord | FailedAttempt) -> None:
        """Record the result in the journal, and in the submission."""
        is_uncertain = isinstance(result, FailedAttempt) and result.outcome is AttemptOutcome.UNKNOWN
        submission.has_uncertain_attempt |= is_uncertain
        if submission.journal is None:
            return
        if isinstance(result, TaskRecord):
            await submission.journal.accepted(result.task_id, result.stored_reference)  # nothing cancels it now
        elif result.outcome is AttemptOutcome.UNKNOWN:
            submission.journal.uncertain(self._uncertain(submission, result.error))
        else:
            submission.journal.not_accepted()

    def _not_accepted(self, submission: Submission, error: KontextError) -> KontextError:
        """Record an error of the attempt itself. If the gateway had accepted the task before, the error names it."""
        if submission.task:
            reference = reference_text(submission.task, self._gateway)
            return error.with_task(submission.task.task_id, reference, may_be_charged=True)
        if submission.journal:
            submission.journal.not_accepted()
        return error

    def _release(self, submission: Submission, slot: Slot) -> None:
        """Release what an attempt holds: its slot, unless the accepted task has it, and its place as a trial."""
        slot.release()
        if submission.is_trial:
            submission.is_trial = False
            self._gate.end_trial()

    def _uncertain(self, submission: Submission, cause: KontextError) -> SubmissionUncertain:
        submission.has_uncertain_attempt = True
        error = SubmissionUncertain(
            request=submission.request,
            fingerprint=submission.fingerprint or "",
            seen=str(cause),
            request_id=cause.request_id,
        )
        error.__cause__ = cause
        return error

    def _report_orphaned(self, submission: Submission, result: AttemptResult) -> None:
        """Report the result as an event, because the caller was cancelled."""
        if isinstance(result, TaskRecord):
            self._poll_loop.abandon(result, "the caller was cancelled while it submitted the request")
        elif isinstance(result, FailedAttempt):
            unknown = result.outcome is AttemptOutcome.UNKNOWN
            self._report(submission, self._uncertain(submission, result.error) if unknown else result.error)
        else:
            self._report(submission, result)

    def _report(self, submission: Submission, error: KontextError) -> None:
        if isinstance(error, NotSubmitted):  # another worker has the request, or it is tried again
            return
        began = submission.queued_at
        elapsed = None if began is None else self._clock.time() - began
        self._hub.emit(Failed(**self._event_fields(submission), error=error, elapsed=elapsed))

    def _event_fields(self, submission: Submission) -> dict[str, Any]:
        task = submission.task
        return {
            "at": self._clock.utcnow(),
            "task_id": task.task_id if task else None,
            "reference": reference_text(task, self._gateway) if task else None,
            "fingerprint": submission.fingerprint,
        }


def _closed() -> SessionClosed:
    return SessionClosed("the session was closed before the gateway responded")

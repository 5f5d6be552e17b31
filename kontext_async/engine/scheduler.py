"""Submits requests, under the slots, and pays for each once. The rule is `decisions.resend`'s; here it is carried out.

Each attempt that is on the wire is a task of the owner's: the caller's cancellation does not touch it, so the id of
what is paid for is always learned.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from attrs import define, field

from kontext_async.decisions.resend import Fate, GiveUp, fate_of_answer, fate_of_loss, next_step, wait_for
from kontext_async.engine.clock import sleep_until
from kontext_async.engine.pending import Pending, PendingWithImages
from kontext_async.engine.transport import RequestLost
from kontext_async.errors import GatewayUnavailable, KontextError, MalformedAnswer, RateLimited, SubmissionUncertain
from kontext_async.events import Abandoned, Accepted, Failed, HeldBack, Submitting
from kontext_async.protocol import (
    encode_create,
    fingerprint,
    read_accepted,
    read_created,
    refusal,
    retry_after,
)

if TYPE_CHECKING:
    from kontext_async.engine.context import Context
    from kontext_async.engine.journaling import SubmissionJournal
    from kontext_async.engine.poll_loop import PollLoop
    from kontext_async.engine.slots import Slot, Slots
    from kontext_async.engine.transport import Answer, Transport
    from kontext_async.engine.uploads import Cargo
    from kontext_async.models import KontextRequest, TaskStatus
    from kontext_async.protocol import CreateBody

__all__ = ["Scheduler", "Submission"]


@define(eq=False)
class Submission:
    """One request on its way to being accepted.

    Attributes:
        request: What is asked for.
        journal: What is told of each step before the next one is taken.
        fingerprint: Known once the images have been read.
        attempt: Which attempt this is, from 1.
        sending: Whether a create request may be out, and nobody knows yet what becomes of it.
        task: The accepted task.
        answer: The body of the answer that accepted it.
        deserted: Whether the caller has gone.
    """

    request: KontextRequest
    journal: SubmissionJournal | None = None
    fingerprint: str | None = field(default=None, init=False)
    attempt: int = field(default=0, init=False)
    sending: bool = field(default=False, init=False)
    task: Pending | None = field(default=None, init=False)
    answer: bytes | None = field(default=None, init=False, repr=False)
    deserted: bool = field(default=False, init=False)


@define
class _Setback:
    """An attempt that did not succeed."""

    fate: Fate
    error: KontextError
    retry_after: float | None = None


Attempted: TypeAlias = Pending | _Setback | KontextError


class Scheduler:
    """Turns requests into accepted tasks."""

    def __init__(
        self,
        transport: Transport,
        slots: Slots,
        poll_loop: PollLoop,
        context: Context,
    ) -> None:
        self._transport = transport
        self._slots = slots
        self._poll_loop = poll_loop
        self._settings = context.settings
        self._clock = context.clock
        self._hub = context.hub
        self._random = context.random
        self._start_soon = context.start_soon
        self._on_wire: set[asyncio.Future[Attempted]] = set()
        self._pauses: set[anyio.CancelScope] = set()

    async def submit(self, submission: Submission) -> Pending:
        """Submit a request: wait for a slot, send it, and send it again where that is safe.

        Raises:
            KontextError: It was refused, or its fate is not known.
        """
        try:
            return await self._submit(submission)
        except KontextError as error:
            self._report(submission, error)
            raise

    async def settle_attempts(self, seconds: float) -> None:
        """Wait, for a bounded time, until nothing is on the wire."""
        if self._on_wire:
            await asyncio.wait(self._on_wire, timeout=seconds)

    def close(self, error: KontextError) -> None:
        """Fail everybody who still waits for an attempt: those whose task never began, too."""
        self.end_pauses()
        for done in tuple(self._on_wire):
            if not done.done():
                done.set_result(error.copy())

    def end_pauses(self) -> None:
        """Wake those who wait to send again: they find the slots closed."""
        for pause in tuple(self._pauses):
            pause.cancel()

    async def _pause(self, seconds: float) -> None:
        with anyio.CancelScope() as pause:
            self._pauses.add(pause)
            try:
                await sleep_until(self._clock, self._clock.time() + seconds)
            finally:
                self._pauses.discard(pause)

    async def _submit(self, submission: Submission) -> Pending:
        async with self._transport.uploads.carrying(submission.request.input_images) as cargo:
            return await self._send(submission, cargo)

    async def _send(self, submission: Submission, cargo: Cargo) -> Pending:
        submission.fingerprint = fingerprint(submission.request, cargo.images)
        body = encode_create(submission.request, cargo.images)
        while True:
            slot = await self._slots.acquire(returning=submission.attempt > 0)
            setback = await self._shielded_attempt(submission, body, cargo, slot)
            if isinstance(setback, Pending):
                return setback
            step = next_step(
                setback.fate,
                submission.attempt,
                self._settings.retries,
                self._random.random(),
                setback.retry_after,
            )
            if isinstance(step, GiveUp):
                raise self._uncertain(submission, setback.error) if step.uncertain else setback.error
            if setback.fate is not Fate.HELD_BACK:  # then the session's pause does the waiting
                await self._pause(step.after)

    async def _shielded_attempt(
        self, submission: Submission, body: CreateBody, cargo: Cargo, slot: Slot
    ) -> Pending | _Setback:
        """One attempt, as a task of the owner's. A caller who is cancelled stays until its end, or a while."""
        done: asyncio.Future[Attempted] = asyncio.get_running_loop().create_future()
        submission.attempt += 1
        try:
            self._start_soon(self._attempt, submission, body, slot, done)
        except BaseException:
            slot.give_back()
            raise
        self._on_wire.add(done)
        done.add_done_callback(self._on_wire.discard)
        cargo.carry()  # the caller may go while it is on the wire
        done.add_done_callback(cargo.drop)
        try:
            result = await asyncio.shield(done)
        except asyncio.CancelledError:
            submission.deserted = True
            if done.done():  # answered in the very turn of the loop in which the caller was cancelled
                self._report_deserted(submission, done.result())
                raise
            if not submission.sending:  # and so it will not be
                raise
            with anyio.CancelScope(shield=True):
                await asyncio.wait([done], timeout=self._settings.timeouts.cancel)
            if not done.done():
                self._hub.emit(Abandoned(**self._about(submission), reason="cancelled before it was answered"))
            raise
        if isinstance(result, KontextError):
            raise result
        return result

    async def _attempt(
        self, submission: Submission, body: CreateBody, slot: Slot, done: asyncio.Future[Attempted]
    ) -> None:
        """Send the request once; what comes of it is taken down here, whether or not anybody still waits."""
        closed = GatewayUnavailable("the session was closed before it was answered")
        result: Attempted = closed
        try:
            result = await self._try(submission, body, slot)
            await _take_down(submission, result)
        except KontextError as error:
            result = self._with_task(submission, error)
        except asyncio.CancelledError:
            if submission.sending:
                result = self._uncertain(submission, closed)
            raise
        finally:
            submission.sending = False
            if not isinstance(result, Pending):
                slot.give_back()
            if submission.deserted:
                self._report_deserted(submission, result)
            if not done.done():
                done.set_result(result)

    async def _try(self, submission: Submission, body: CreateBody, slot: Slot) -> Pending | _Setback:
        self._hub.emit(Submitting(**self._about(submission), attempt=submission.attempt))
        try:
            answer = await self._transport.create(body, before=partial(_intend, submission))
        except RequestLost as lost:
            error = GatewayUnavailable(f"no answer to a create request: {lost}")
            error.__cause__ = lost.__cause__
            return _Setback(fate_of_loss(handed_over=lost.handed_over), error)
        if answer.ok:
            try:
                return self._accept(submission, read_created(answer.body, status=answer.status), answer.body, slot)
            except MalformedAnswer as malformed:
                return _Setback(Fate.UNKNOWN, self._transport.told(malformed))
        return self._refused(submission, answer, slot)

    def _refused(self, submission: Submission, answer: Answer, slot: Slot) -> Pending | _Setback:
        named = retry_after(answer.retry_after, self._clock.utcnow())
        fate = fate_of_answer(answer.status, names_wait=named is not None)
        if fate is Fate.UNKNOWN and (status := read_accepted(answer.body)):
            return self._accept(submission, status, answer.body, slot)
        error = self._transport.told(refusal(answer.status, answer.body, request_id=answer.request_id))
        if isinstance(error, RateLimited):
            error.retry_after = named
        if fate is Fate.HELD_BACK:
            pause = wait_for(named, submission.attempt, self._settings.retries, self._random.random())
            slot.refused(self._clock.time(), pause)
            self._hub.emit(HeldBack(**self._about(submission), seconds=pause, creates=True))
        return _Setback(fate, error, named)

    def _accept(self, submission: Submission, status: TaskStatus, body: bytes, slot: Slot) -> Pending:
        task = _pending(submission, status.task_id, self._clock.time(), slot.accepted())
        submission.task = task
        self._hub.emit(Accepted(**self._about(submission), status=status))
        if status.state.finished:
            self._poll_loop.settle(task, status, body)
        else:
            submission.answer = body
            self._poll_loop.follow(task)
        return task

    def _with_task(self, submission: Submission, error: KontextError) -> KontextError:
        """An error of the attempt itself. What was accepted before it is paid for, whatever went wrong then."""
        if submission.task:
            return error.about(submission.task.task_id, may_be_charged=True)
        if submission.journal:
            submission.journal.withdrawn()
        return error

    def _uncertain(self, submission: Submission, cause: KontextError) -> SubmissionUncertain:
        error = SubmissionUncertain(
            request=submission.request,
            fingerprint=submission.fingerprint or "",
            seen=str(cause),
            request_id=cause.request_id,
        )
        error.__cause__ = cause
        return error

    def _report_deserted(self, submission: Submission, result: Attempted) -> None:
        """The caller has gone: what came of its request goes out as an event."""
        if isinstance(result, Pending):
            self._poll_loop.abandon(result, "cancelled while it was being submitted")
        elif isinstance(result, _Setback):
            unknown = result.fate is Fate.UNKNOWN
            self._report(submission, self._uncertain(submission, result.error) if unknown else result.error)
        else:
            self._report(submission, result)

    def _report(self, submission: Submission, error: KontextError) -> None:
        self._hub.emit(Failed(**self._about(submission), error=error))

    def _about(self, submission: Submission) -> dict[str, Any]:
        task = submission.task
        return {
            "at": self._clock.utcnow(),
            "task_id": task.task_id if task else None,
            "fingerprint": submission.fingerprint,
        }


def _pending(submission: Submission, task_id: str, now: float, slots: Slots | None) -> Pending:
    request = submission.request
    if not request.input_images:
        return Pending(task_id, now, request=request, slots=slots)
    digest = bytes.fromhex(submission.fingerprint or "")
    return PendingWithImages(task_id, now, request=request, slots=slots, digest=digest)


async def _intend(submission: Submission) -> None:
    """What must have happened before the first byte of an attempt goes out."""
    if submission.journal:
        await submission.journal.intend(submission.fingerprint or "", submission.attempt)
    if submission.deserted:
        raise GatewayUnavailable("its caller had gone before it was sent")
    submission.sending = True


async def _take_down(submission: Submission, result: Pending | _Setback) -> None:
    """Tell the journal what is known of an attempt; of one whose fate is not known, it knows all there is."""
    if submission.journal is None:
        return
    if isinstance(result, Pending):
        with anyio.CancelScope(shield=True):
            await submission.journal.accepted(result.task_id)
    elif result.fate is not Fate.UNKNOWN:
        submission.journal.withdrawn()

"""The values of requests with rows in a store: what a caller says, one request under way, and its accepted task."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field, frozen

from kontext_async.decisions.shares import UNBOUNDED
from kontext_async.errors import KontextError, SessionClosed, SubmissionUncertain
from kontext_async.gateways import plain_reference
from kontext_async.store.base import DEFAULT_RUN
from kontext_async.store.steps import State
from kontext_async.waitable import Waitable

if TYPE_CHECKING:
    import asyncio

    from kontext_async.decisions.shares import Queueing
    from kontext_async.engine.submission import Submission
    from kontext_async.engine.task_record import TaskRecord
    from kontext_async.gateways import Webhook
    from kontext_async.models import KontextRequest
    from kontext_async.store.rows import Row
    from kontext_async.store.step_queue import QueuedStep

__all__ = ["Flight", "FlightResult", "Followed", "StoreCall"]


@frozen(kw_only=True)
class StoreCall:
    """The options of a caller about the row of a request.

    Attributes:
        key: The key; None for a row that nobody else knows, and that is deleted once its result is received.
        run: The name of the run.
        resend_uncertain: Send an uncertain request again.
        retry_failed: Send a failed or expired request again.
        webhook: The address to which the gateway reports the end of the task, if this call submits the request.
    """

    key: str | None = None
    run: str = DEFAULT_RUN
    resend_uncertain: bool = False
    retry_failed: bool = False
    webhook: Webhook | None = None

    def covers(self, other: StoreCall) -> bool:
        """Return True if this call asks for all that the other one asks for."""
        return self.resend_uncertain >= other.resend_uncertain and self.retry_failed >= other.retry_failed


@define(eq=False)
class Followed:
    """The row of an accepted task, while the task runs and until its result is received.

    Attributes:
        row: The row, as it was before the step that this session took last, or as it was found.
        is_private: True if nobody else knows its key.
        written: The step that records the result; None before there is one.
    """

    row: Row
    is_private: bool
    written: QueuedStep | None = None


FlightResult: TypeAlias = "TaskRecord | KontextError"


@define(eq=False)
class Flight(Waitable):
    """One request on its way to an accepted task, for all callers of its key.

    Attributes:
        request: The request.
        digest: Its digest.
        fingerprint: Its fingerprint.
        call: What its first caller said.
        queueing: The terms of its first caller on which it waits for a slot.
        submission: The submission, while or after this session submits it; None while it does not.
        row: The row as it was last known.
        resent_attempt: The number of the attempt that is sent again, because a caller asked for it.
        callers: The number of callers that wait.
        task: The task that works on it; None before it starts.
        result: The result; None while there is none.
        is_called_off: True if its callers have left, or the session closes.
    """

    request: KontextRequest
    digest: bytes
    fingerprint: str
    call: StoreCall
    queueing: Queueing = UNBOUNDED
    submission: Submission | None = None
    row: Row | None = None
    resent_attempt: int | None = None
    callers: int = 0
    task: asyncio.Task[None] | None = field(default=None, init=False, repr=False)
    result: FlightResult | None = field(default=None, init=False)
    is_called_off: bool = field(default=False, init=False)

    def call_off(self) -> None:
        """Cancel it, once: it may have to wait for the response to a request that was sent."""
        if self.task and not self.is_called_off:
            self.is_called_off = True
            self.task.cancel()

    def end(self, result: FlightResult) -> None:
        """Record the result, and wake those who wait for it."""
        self.result = result
        self.wake_waiters()

    async def wait(self) -> FlightResult:
        """Return the result once there is one."""
        while self.result is None:
            await self.next_change()
        return self.result

    def cancelled_error(self, gateway: str) -> KontextError:
        """Return what it means that the flight was cancelled, because the session closes or nobody waits any longer.

        Args:
            gateway: The name of the gateway.
        """
        submission = self.submission
        if submission and submission.task:
            error = SessionClosed("the session was closed while the task was running")
            task_id = submission.task.task_id
            reference = submission.task.stored_reference or plain_reference(gateway, task_id)
            return error.with_task(task_id, reference, may_be_charged=True)
        if submission and submission.may_be_billed:
            seen = "the session was closed before the gateway responded"
            return SubmissionUncertain(request=self.request, fingerprint=self.fingerprint, seen=seen)
        return SessionClosed("the session was closed before the request was submitted")

    def deadline_error(self, waited: float) -> SubmissionUncertain | None:
        """Return what the deadline of a caller means while another worker has the row; None if nothing is sent."""
        if self.submission or self.row is None or self.row.state is not State.INTENT:
            return None
        return SubmissionUncertain(
            request=self.request,
            fingerprint=self.fingerprint,
            seen=f"another worker is submitting it, without a response within {waited:.1f} s",
        )

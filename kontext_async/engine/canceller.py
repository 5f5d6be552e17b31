"""Cancels tasks at the gateway, and finds out what became of them. `decisions.cancelling` says what is sent next.

A cancel request that has begun runs to its end, even if nobody waits for it any longer: what it changes must be known.
Several callers who cancel one task share one attempt.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from attrs import define

from kontext_async.cancellation import Cancellation, CancelOutcome
from kontext_async.decisions.cancelling import CancelProgress, CancelStep
from kontext_async.decisions.resend import backoff
from kontext_async.engine.clock import cancel_at, sleep_until
from kontext_async.engine.request_log import LoggedRequest
from kontext_async.engine.task_record import reference_text
from kontext_async.engine.transport import TransportError
from kontext_async.errors import (
    GatewayError,
    KontextError,
    SessionClosed,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
)
from kontext_async.events import CancelRequested
from kontext_async.gateways import CancelReply
from kontext_async.models import Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from decimal import Decimal
    from typing import Any

    from kontext_async.engine.context import Context
    from kontext_async.engine.poll_loop import PollLoop
    from kontext_async.engine.task_record import Result, TaskRecord
    from kontext_async.engine.transport import Transport
    from kontext_async.gateways import GatewayRequest
    from kontext_async.models import TaskStatus

    StartTask = Callable[[Coroutine[Any, Any, None], Callable[[asyncio.Task[None]], object]], asyncio.Task[None]]

__all__ = ["Canceller"]

Done: TypeAlias = "asyncio.Future[CancelOutcome | KontextError]"


@define(eq=False)
class Cancelling:
    """A task that is being cancelled.

    Attributes:
        task: The task.
        request: The cancel request.
        done: The result, or the error that stands for it.
        progress: What is known so far.
        status: The last status since the first cancel request; None before.
    """

    task: TaskRecord
    request: GatewayRequest
    done: Done
    progress: CancelProgress
    status: TaskStatus | None = None


class Canceller:
    """Cancels tasks at the gateway.

    Args:
        transport: Sends the requests.
        poll_loop: Polls the tasks, and ends cancelled ones.
        context: The engine's surroundings.
        start_task: Runs a coroutine in a task of the engine.
    """

    def __init__(self, transport: Transport, poll_loop: PollLoop, context: Context, start_task: StartTask) -> None:
        self._transport = transport
        self._gateway = transport.gateway
        self._poll_loop = poll_loop
        self._settings = context.settings
        self._clock = context.clock
        self._random = context.random
        self._hub = context.hub
        self._start_task = start_task
        self._cancelling: dict[str, Cancelling] = {}
        self._expired: set[str] = set()

    @property
    def cancels_on_timeout(self) -> bool:
        """True if a task is to be cancelled when the wait for it ends by a deadline, and the gateway can."""
        return self._settings.timeouts.cancel_on_timeout and self._gateway.features.cancel

    async def cancel(self, task: TaskRecord) -> CancelOutcome:
        """Cancel a task, unless it has ended, and return what became of it.

        Raises:
            ConfigurationError: The gateway cannot cancel tasks; nothing was sent.
            InvalidRequest: What is known of the task is not enough, or its address is not trusted; nothing was sent.
            TaskNotFound: The gateway does not know the task.
            GatewayError: The gateway refused the request, or the key.
            SessionClosed: The session was closed meanwhile.
        """
        result = await asyncio.shield(self.start(task))
        if isinstance(result, KontextError):
            raise result.copy()
        return result

    async def end_wait(self, task: TaskRecord, waited: float, last_status: TaskStatus | None) -> Result:
        """Return what a wait that ended by its deadline comes to. Cancel the task where the settings say so.

        Args:
            task: The task. It is not cancelled if anybody else waits for it.
            waited: The seconds of the wait.
            last_status: The last known status.
        """
        outcome: CancelOutcome | None = None
        if self.cancels_on_timeout and not task.has_observers and task.result is None:
            with suppress(KontextError):  # of the cancel request: the deadline is what the caller has to know of
                outcome = await self.cancel(task)
        result = task.copy_result()
        if result is not None and not (outcome and isinstance(result, TaskCancelled)):
            return result
        return TaskTimeout(
            task_id=task.task_id,
            waited=waited,
            last_status=(outcome and outcome.status) or last_status,
            reference=self._refer(task),
            cancelled=outcome,
        )

    def cancel_expired(self, task: TaskRecord) -> bool:
        """Start to cancel a task that took longer than `Timeouts.wait`.

        Returns:
            True if the task is being cancelled, so that its wait continues; False if it is not, or no longer.
        """
        if not self.cancels_on_timeout:
            return False
        if task.task_id in self._cancelling:
            return True
        if task.task_id in self._expired:
            self._expired.discard(task.task_id)
            return False
        try:
            self.start(task)
        except KontextError:
            return False
        self._expired.add(task.task_id)
        return True

    def start(self, task: TaskRecord) -> Done:
        """Start what `cancel` waits for, unless it is under way or the task has ended.

        Raises:
            ConfigurationError: The gateway cannot cancel tasks; nothing was sent.
            InvalidRequest: What is known of the task is not enough, or its address is not trusted; nothing was sent.
        """
        request = self._gateway.cancel(task)
        if known := self._cancelling.get(task.task_id):
            return known.done
        done: Done = asyncio.get_running_loop().create_future()
        if task.result is not None:
            done.set_result(self._make_outcome(task, task.read_status(self._gateway), task.result))
            return done
        deadline = self._clock.time() + self._settings.timeouts.cancel
        is_new = task.request_kind is not None  # an attached task was accepted a while ago
        grace = self._settings.retries.not_found_grace if is_new else 0.0
        is_known = task.is_seen or not is_new
        progress = CancelProgress(not_found_until=self._clock.time() + grace, is_known=is_known)
        cancelling = Cancelling(task, request, done, progress)
        self._cancelling[task.task_id] = cancelling
        self._start_task(self._run(cancelling, deadline), partial(self._end, cancelling))
        return done

    def _end(self, cancelling: Cancelling, _: asyncio.Task[None]) -> None:
        """Give those who wait a result, however the attempt ended."""
        task = cancelling.task
        self._cancelling.pop(task.task_id, None)
        if task.result is not None:  # it is not polled again
            self._expired.discard(task.task_id)
        if not cancelling.done.done():
            closed = SessionClosed("the session was closed while the task was being cancelled")
            cancelling.done.set_result(closed.with_task(task.task_id, self._refer(task), may_be_charged=True))

    async def _run(self, cancelling: Cancelling, deadline: float) -> None:
        error: KontextError | None = None
        with cancel_at(self._clock, deadline):
            try:
                await self._cancel(cancelling)
            except KontextError as failure:
                error = failure
        task = cancelling.task
        if error is not None:
            cancelling.done.set_result(error.with_task(task.task_id, self._refer(task), may_be_charged=True))
            return
        outcome = self._make_outcome(task, cancelling.status, task.result)
        self._hub.emit(
            CancelRequested(
                at=self._clock.utcnow(),
                task_id=task.task_id,
                reference=outcome.reference,
                fingerprint=task.fingerprint,
                outcome=outcome,
            )
        )
        cancelling.done.set_result(outcome)

    async def _cancel(self, cancelling: Cancelling) -> None:
        """Send cancel requests and status requests, until the status says what became of the task.

        Raises:
            KontextError: The gateway refused a request for good.
        """
        progress = cancelling.progress
        while (step := progress.next_step()) is not CancelStep.END:
            if progress.rounds:
                pause = backoff(progress.rounds, self._settings.retries, self._random.random())
                await sleep_until(self._clock, self._clock.time() + pause)
            progress.rounds += 1
            if step is CancelStep.SEND:
                await self._send(cancelling)
            await self._poll(cancelling)

    async def _send(self, cancelling: Cancelling) -> None:
        """Send the cancel request once. A response that is lost may have cancelled the task."""
        progress = cancelling.progress
        task_id = cancelling.task.task_id
        try:
            async with self._transport.connection_slots:
                with LoggedRequest("cancel", self._clock, attempt=progress.rounds, task_id=task_id) as logged:
                    response = await self._transport.poll(cancelling.request)
                    logged.responded(response.status)
        except TransportError:
            progress.record_reply(is_taken=None)
            return
        try:
            reply = self._gateway.read_cancelled(response)
        except GatewayError as error:
            self._transport.redact(error)
            if not error.retryable:
                raise
            progress.record_reply(is_taken=None)
        else:
            progress.record_reply(is_taken=reply is CancelReply.TAKEN)

    async def _poll(self, cancelling: Cancelling) -> None:
        progress = cancelling.progress
        try:
            cancelling.status = await self._poll_loop.poll_now(cancelling.task)
        except TaskNotFound:
            if self._clock.time() >= progress.not_found_until:
                raise
            progress.record_not_found()
        except GatewayError as error:
            if not error.retryable:
                raise
            progress.record_status(is_terminal=None)
        else:
            progress.record_status(is_terminal=cancelling.status.state.is_terminal)

    def _make_outcome(self, task: TaskRecord, status: TaskStatus | None, result: Result | None) -> CancelOutcome:
        return CancelOutcome(
            task_id=task.task_id,
            reference=self._refer(task),
            cancellation=self._judge(status, result),
            status=status,
            cost=_cost_of(task, status, result),
            may_be_charged=not isinstance(result, TaskFailed) or result.may_be_charged,
        )

    def _judge(self, status: TaskStatus | None, result: Result | None) -> Cancellation:
        """Return whether the task was cancelled: by its end, if that is known, which the poll loop may have seen."""
        if isinstance(result, TaskCancelled):
            return Cancellation.IN_TIME
        if isinstance(result, Generation | TaskFailed):
            return Cancellation.TOO_LATE
        return self._gateway.judge_cancellation(status)

    def _refer(self, task: TaskRecord) -> str:
        return reference_text(task, self._gateway)


def _cost_of(task: TaskRecord, status: TaskStatus | None, result: Result | None) -> Decimal | None:
    """Return what a task costs, as far as the gateway stated it: at its end, or when it accepted it."""
    if isinstance(result, Generation):
        return result.usage.cost
    if isinstance(result, TaskCancelled):
        return result.cost
    usage = (status.usage if status else None) or task.price
    return usage.cost if usage else None

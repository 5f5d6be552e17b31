"""The shared poll loop: the registry of all pending tasks of a session, and what the responses about them mean.

`decisions.polling` says which task to poll and when, and what a failed poll means; `poll_workers` sends the requests.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from kontext_async.decisions.polling.adaptive import AdaptiveTiming
from kontext_async.decisions.polling.batch_end import BatchEnd
from kontext_async.decisions.polling.entry import Place
from kontext_async.decisions.polling.failures import FailureAction, PollFailure, record_failure
from kontext_async.decisions.polling.queue import GRAIN, PollQueue
from kontext_async.decisions.resend import retry_delay
from kontext_async.engine.poll_workers import PollWorkers
from kontext_async.engine.task_record import TaskRecord, refer, reference_text, result_of
from kontext_async.errors import (
    AuthenticationFailed,
    GatewayError,
    KontextError,
    PermissionDenied,
    RateLimited,
    TaskNotFound,
    TaskTimeout,
)
from kontext_async.events import Abandoned, Completed, Failed, Retrying, StatusReceived, Throttled
from kontext_async.gateways import Purpose
from kontext_async.models import Generation, TaskStatus
from kontext_async.protocol import InProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    from kontext_async.engine.context import Context
    from kontext_async.engine.poll_workers import Polled
    from kontext_async.engine.slot_pools import SlotPools
    from kontext_async.engine.submission_gate import SubmissionGate
    from kontext_async.engine.transport import Response, Transport
    from kontext_async.gateways import Reference

__all__ = ["PollLoop"]

THROTTLING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

OK = HTTPStatus.OK.value
STATUS = Purpose.STATUS

WAKE_UPS_PER_INTERVAL = 8
"""The most wake-ups in `Polling.min_interval`."""


class PollLoop:
    """Polls every pending task of a session, and ends their waits.

    Attributes:
        cancel_expired: Is called for a task that took longer than `Timeouts.wait`; returns True if the task is being
            cancelled, so that it is polled on.
    """

    def __init__(self, transport: Transport, gate: SubmissionGate, slots: SlotPools, context: Context) -> None:
        settings = context.settings
        self._transport = transport
        self._gateway = transport.gateway
        self._gate = gate
        self._slots = slots
        self._retries = settings.retries
        self._wait = settings.timeouts.wait
        self._clock = context.clock
        self._hub = context.hub
        self._random = context.random
        self._timing: AdaptiveTiming[TaskRecord] = AdaptiveTiming(settings.polling, _kind_of)
        grain = min(GRAIN, settings.polling.min_interval / WAKE_UPS_PER_INTERVAL)
        self._queue: PollQueue[TaskRecord] = PollQueue(
            settings.limits, self._timing, grain, least=settings.polling.min_interval
        )
        self._batch_end = BatchEnd()
        self._judged = 0
        self._workers = PollWorkers(self._queue, transport, self._handle_response, context)
        self._tasks: dict[str, TaskRecord] = {}
        self._urgent: dict[TaskRecord, asyncio.Future[Polled | KontextError]] = {}
        self.cancel_expired: Callable[[TaskRecord], bool] = lambda _: False
        self._to_repeat: set[TaskRecord] = set()

    @property
    def pending(self) -> int:
        """The number of tasks that are polled."""
        return len(self._tasks)

    @property
    def polls_in_flight(self) -> int:
        """The number of status requests in flight."""
        return self._queue.in_flight

    @property
    def has_waiters(self) -> bool:
        """True if anybody waits for a task."""
        return any(task.has_observers for task in self._tasks.values())

    def unfinished(self) -> tuple[str, ...]:
        """Return the IDs of the pending tasks."""
        return tuple(self._tasks)

    def learn(self, model: str, images: int, duration: float) -> None:
        """Learn from a task of an earlier session: see `AdaptiveTiming.learn`."""
        self._timing.learn((model, images), duration)
        self._slots.waiting.durations.observe_ended((model, images), duration)

    def find(self, task_id: str) -> TaskRecord | None:
        """Return the record of a pending task, if there is one."""
        return self._tasks.get(task_id)

    def stop(self) -> None:
        """Stop waking up."""
        self._workers.stop()

    def track(self, task: TaskRecord, *, at_once: bool = False) -> TaskRecord:
        """Poll a task from now on; with `at_once`, before all others.

        Returns:
            The record to wait on: the earlier one if the task is polled already. The task then ends with that one.
        """
        if known := self._tasks.get(task.task_id):
            known.add_twin(task)
            return known
        self._tasks[task.task_id] = task
        task.failure_streak = None  # earlier failures belong to another wait
        now = self._clock.time()
        self._batch_end.record_accepted(len(self._tasks))
        self._judge_urgency(now)
        self._queue.add(task, now, self._random.random())
        if at_once:
            self._queue.expedite(task, now)
        self._wake_workers(now, task.due)
        return task

    def expedite(self, task_id: str) -> bool:
        """Poll a pending task before all others, because something says that it has ended.

        A poll that is in flight may have been read before that, so it is repeated.

        Returns:
            True if the task is pending in this session.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return False
        if task.place is Place.IN_FLIGHT:
            self._to_repeat.add(task)
        elif task.place is not Place.URGENT:
            self._expedite(task, self._clock.time())
        return True

    def _expedite(self, task: TaskRecord, now: float) -> None:
        self._queue.expedite(task, now)
        self._wake_workers(now, now)

    async def watch(self, task: TaskRecord, every: float) -> KontextError | None:
        """Wait for the next change of a task's status, and poll it at least once in `every` seconds meanwhile.

        Returns:
            None, or the error that ends the wait.
        """
        with task.watcher(every) as change:
            self._queue.watch(task)
            self._wake_workers(self._clock.time(), task.due)
            return await change

    def finish(self, task: TaskRecord, status: TaskStatus, last: bytes | TaskStatus) -> None:
        """End a task with its terminal status.

        Args:
            task: The task.
            status: The status.
            last: The status as the record keeps it: the body of a 200 to a create or status request, or the status.
        """
        self._untrack(task)
        task.record_status(last)
        now = self._clock.time()
        result = result_of(task, status, now)
        if task.slots:
            self._slots.waiting.durations.observe_ended(task.request_kind, now - task.since)
        if isinstance(result, Generation):
            self._hub.emit_completed(result, self._completed, task, result)
        else:
            self._transport.redact(result).reference = self._refer(task)
            self._hub.emit(Failed(**self._event_fields(task), error=result))
        task.set_result(result)

    def fail(self, task: TaskRecord, error: KontextError) -> None:
        """End a task that cannot be polled with an error, which it keeps. It keeps running and is billed."""
        task.result = error
        self._fail(task, error)

    def fail_all(self, error: KontextError) -> None:
        """End every wait with `error`, which then names the task. The tasks keep running and are billed."""
        for task in tuple(self._tasks.values()):
            self._fail(task, error.copy())
        for task, polled in self._urgent.items():
            if not polled.done():
                polled.set_result(error.copy().with_task(task.task_id, self._refer(task)))

    def abandon(self, task: TaskRecord, reason: str) -> None:
        """Report a task that nobody waits for any longer. It is still polled, because it still holds its slot."""
        if not task.has_observers and task.result is None:
            self._hub.emit(Abandoned(**self._event_fields(task), reason=reason))

    def report_unreceived(self, task: TaskRecord, reason: str) -> None:
        """Report a result that nobody has received: it came as its caller left."""
        if isinstance(task.result, Generation) and not task.has_observers:
            self._hub.emit(Abandoned(**self._event_fields(task), reason=reason))

    async def poll_now(self, task: TaskRecord) -> TaskStatus:
        """Poll immediately, bypassing the schedule. Other waiters see the result too.

        Raises:
            KontextError: The poll failed; it is not repeated.
        """
        status = await self._poll_immediately(task)
        self._on_status(task, status, status)
        return status

    async def fetch_status(self, reference: Reference) -> TaskStatus:
        """Poll a task immediately, without any effect on those who wait for it.

        Raises:
            KontextError: The poll failed; it is not repeated.
        """
        task = TaskRecord(reference.task_id, self._clock.time(), reference=reference)
        status = await self._poll_immediately(task)
        self._hub.emit(StatusReceived(**self._event_fields(task), status=status))
        return status

    async def _poll_immediately(self, task: TaskRecord) -> TaskStatus:
        """Poll before all scheduled tasks, under the same limits, by an entry of its own in the queue."""
        now = self._clock.time()
        entry = TaskRecord(task.task_id, now, reference=refer(task, self._gateway))
        future: asyncio.Future[Polled | KontextError] = asyncio.get_running_loop().create_future()
        self._urgent[entry] = future
        self._queue.expedite(entry, now)
        self._wake_workers(now, now)
        try:
            polled = await future
        finally:
            del self._urgent[entry]
            self._queue.remove(entry)
        if isinstance(polled, KontextError):
            raise polled
        status = polled.read
        if isinstance(status, KontextError):
            if polled.response is None:
                raise status
            self._pause_if_throttled(task, polled.response)
            self._report_refusal(status)
            raise self._not_found(task) if _failure_of(status) is PollFailure.NOT_FOUND else status
        return self._read_in_full(task, polled)

    def _wake_workers(self, now: float, due: float) -> None:
        self._workers.ensure(len(self._tasks) + len(self._urgent), now, due)

    def _handle_response(self, task: TaskRecord, polled: Polled, now: float) -> None:
        """Record what a response says of a task. The response to an immediate poll belongs to its caller."""
        if self._urgent and (future := self._urgent.get(task)):
            if not future.done():
                future.set_result(polled)
            return
        self._handle_status(task, polled, now)
        if self._to_repeat and task in self._to_repeat:
            self._to_repeat.discard(task)
            if self._tasks.get(task.task_id) is task:
                self._expedite(task, now)
        if now - task.since >= self._wait:
            self._expire_unwatched(task, polled, now)
        if len(self._tasks) != self._judged:
            self._judge_urgency(now)

    def _judge_urgency(self, now: float) -> None:
        """Have the last tasks of a batch polled sooner."""
        self._judged = len(self._tasks)
        urgency = self._batch_end.urgency(self._judged, more_to_come=self._slots.has_demand)
        if self._queue.set_urgency(urgency):
            for task in self._tasks.values():
                self._queue.replan(task, now, self._random.random())
            self._wake_workers(now, now)

    def _handle_status(self, task: TaskRecord, polled: Polled, now: float) -> None:
        status = polled.read
        if isinstance(status, InProgress):
            self._queue.reschedule(task, status.progress, now, self._random.random())
            self._hub.emit_if_wanted(StatusReceived, task.task_id, self._status_polled, task, polled)
            if task.retains_status:
                task.record_status(self._retained(task, polled))
        elif isinstance(status, KontextError):
            if polled.response is not None:
                self._pause_if_throttled(task, polled.response)
            if polled.request is None:  # nothing may be sent, now or later
                self._fail(task, status)
            else:
                self._on_poll_failed(task, status, now)
        else:
            self._queue.status_received(task, status, now, self._random.random())
            self._on_status(task, status, self._retained(task, polled) if task.retains_status else status)

    def _retained(self, task: TaskRecord, polled: Polled) -> bytes | TaskStatus:
        """Return a status as a record keeps it: the body alone, if that says it all, because it is smaller."""
        request, response = polled.request, polled.response
        if request and response and request.purpose is STATUS and response.status == OK:
            return response.body
        return self._read_in_full(task, polled)

    def _read_in_full(self, task: TaskRecord, polled: Polled) -> TaskStatus:
        """Return the whole status of a poll that succeeded."""
        if isinstance(polled.read, TaskStatus):
            return polled.read
        request, response = polled.request, polled.response
        status = self._gateway.read_status(task, request, response) if request and response else None
        if not isinstance(status, TaskStatus):
            raise TypeError(f"a poll without a status: {status!r}")
        return status

    def _pause_if_throttled(self, task: TaskRecord, response: Response) -> None:
        if response.ok:
            return
        requested = self._gateway.retry_after(response, self._clock.utcnow())
        if response.status not in THROTTLING and requested is None:
            return
        seconds = retry_delay(requested, task.failures + 1, self._retries, self._random.random())
        self._queue.pause_until(self._clock.time() + seconds)
        self._hub.emit(Throttled(**self._event_fields(task), seconds=seconds, scope="poll"))

    def _on_status(self, task: TaskRecord, status: TaskStatus, last: bytes | TaskStatus) -> None:
        self._hub.emit_if_wanted(StatusReceived, task.task_id, self._status_received, task, status)
        if not status.state.is_terminal:
            task.record_status(last)
        elif task.result is None:
            self.finish(task, status, last)

    def _status_polled(self, task: TaskRecord, polled: Polled) -> StatusReceived:
        return self._status_received(task, self._read_in_full(task, polled))

    def _status_received(self, task: TaskRecord, status: TaskStatus) -> StatusReceived:
        return StatusReceived(**self._event_fields(task), status=status)

    def _completed(self, task: TaskRecord, generation: Generation) -> Completed:
        return Completed(**self._event_fields(task), generation=generation)

    def _on_poll_failed(self, task: TaskRecord, error: KontextError, now: float) -> None:
        self._report_refusal(error)
        failure = _failure_of(error)
        action = record_failure(task, failure, now, self._retries)
        if action is FailureAction.FAIL_TASK:
            self._fail(task, self._not_found(task) if failure is PollFailure.NOT_FOUND else error)
        else:
            self._report_retry(task, error)
            self._queue.retry_later(task, now, self._retries, self._random.random())

    def _report_retry(self, task: TaskRecord, error: KontextError) -> None:
        if not isinstance(error, RateLimited):  # that is reported as `Throttled`
            fields = self._event_fields(task)
            self._hub.emit(Retrying(**fields, operation="status", attempt=task.failures, error=error))

    def _report_refusal(self, error: KontextError) -> None:
        """Have a 401 of the gateway itself confirmed; stop submitting after a refusal because of the balance."""
        if isinstance(error, AuthenticationFailed) and error.from_gateway:
            self._gate.start_confirmation(error)
        elif isinstance(error, PermissionDenied) and error.concerns_balance:
            self._gate.record_low_balance(error)

    def _expire_unwatched(self, task: TaskRecord, polled: Polled, now: float) -> None:
        """Stop polling a task after `Timeouts.wait`, unless somebody waits for it with a deadline of their own."""
        is_unwatched = self._tasks.get(task.task_id) is task and not task.has_waiters
        if is_unwatched and not self.cancel_expired(task):
            self._hub.emit(Abandoned(**self._event_fields(task), reason="not finished within Timeouts.wait"))
            self._untrack(task)
            has_failed = isinstance(polled.read, KontextError)
            last = task.read_status(self._gateway) if has_failed else self._read_in_full(task, polled)
            waited = now - task.since
            timeout = TaskTimeout(task_id=task.task_id, waited=waited, last_status=last, reference=self._refer(task))
            task.set_result(timeout)

    def _fail(self, task: TaskRecord, error: KontextError) -> None:
        error.task_id, error.reference = task.task_id, self._refer(task)
        error.may_be_charged = True
        self._untrack(task)
        self._hub.emit(Failed(**self._event_fields(task), error=error))
        task.set_result(error)

    def _untrack(self, task: TaskRecord) -> None:
        if self._tasks.get(task.task_id) is task:
            del self._tasks[task.task_id]
        self._to_repeat.discard(task)
        self._queue.remove(task)

    def _refer(self, task: TaskRecord) -> str:
        return reference_text(task, self._gateway)

    def _not_found(self, task: TaskRecord) -> TaskNotFound:
        error = TaskNotFound("the gateway does not know this task, or no longer keeps it", task_id=task.task_id)
        error.reference = self._refer(task)
        return error

    def _event_fields(self, task: TaskRecord) -> dict[str, Any]:
        return {
            "at": self._clock.utcnow(),
            "task_id": task.task_id,
            "reference": self._refer(task),
            "fingerprint": task.fingerprint,
        }


def _kind_of(task: TaskRecord) -> Hashable | None:
    """Return the kind of a request: those of one model with as many input images take similar times.

    None for an attached task, because its age is not known.
    """
    return task.request_kind


def _failure_of(error: KontextError) -> PollFailure:
    is_missing = isinstance(error, GatewayError) and error.status == HTTPStatus.NOT_FOUND
    if is_missing or isinstance(error, TaskNotFound):
        return PollFailure.NOT_FOUND
    return PollFailure.TRANSIENT

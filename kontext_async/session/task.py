"""The handle of an accepted task."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from attrs import frozen

from kontext_async.cancellation import CancelOutcome  # noqa: TC001 # as above
from kontext_async.engine.clock import cancel_at
from kontext_async.engine.task_record import refer
from kontext_async.errors import InvalidRequest, KontextError, TaskFailed
from kontext_async.models import Generation, TaskStatus  # noqa: TC001 # attrs and users resolve them
from kontext_async.protocol.http import Response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from kontext_async.engine.clock import Clock
    from kontext_async.engine.engine import Engine
    from kontext_async.engine.task_record import Result, TaskRecord
    from kontext_async.gateways import Gateway, Reference
    from kontext_async.models import KontextRequest

__all__ = ["GenerationTask", "RecoveredTask", "deadline_of", "last_status", "unwrap"]


class GenerationTask:
    """An accepted task, to await now or later. Made by `KontextSession.submit` and `KontextSession.attach`."""

    __slots__ = ("__weakref__", "_accept_body", "_engine", "_record")

    def __init__(self, engine: Engine, record: TaskRecord, accept_body: bytes | None = None) -> None:
        self._engine = engine
        self._record = record
        # Kept as bytes and parsed on demand: a hundred thousand handles may exist, and few are asked for their status.
        self._accept_body = accept_body
        record.retain_status()

    @property
    def id(self) -> str:
        """The task ID. Where it is not enough to find the task, `reference` is."""
        return self._record.task_id

    @property
    def reference(self) -> Reference:
        """The task's reference. Pass it, or its text, to `KontextSession.attach` to resume the task anywhere.

        Errors and events have its text.
        """
        return refer(self._record, self._engine.gateway)

    @property
    def request(self) -> KontextRequest | None:
        """The request; None if the task was attached."""
        return self._record.request

    @property
    def last_status(self) -> TaskStatus | None:
        """The last known status; None before the first response. Sends nothing."""
        return last_status(self._engine.gateway, self._record, self._accept_body)

    async def wait(self, timeout: float | None = None) -> Generation:  # noqa: ASYNC109 # the clock is a port
        """Wait until the task completes. Several callers may wait for one task; cancelling one affects no other.

        Args:
            timeout: Seconds; None is `Timeouts.wait` from when the task was accepted or attached.

        Raises:
            TaskFailed: The task ended without an image.
            TaskNotFound: The gateway does not know the task.
            TaskTimeout: The task is not finished; it keeps running, unless `Timeouts.cancel_on_timeout` is set.
            GatewayError: The gateway refuses the key, or status requests have failed for too long.
            SessionError: The session is not running.
        """
        self._ensure_running()
        clock = self._engine.clock
        began = clock.time()
        timeouts = self._engine.settings.timeouts
        # a wait that begins late still gets the time of one poll
        longest = max(self._record.since + timeouts.wait, began + min(timeouts.wait, timeouts.status))
        deadline = longest if timeout is None else deadline_of(clock, timeout)
        result: Result | None = None
        with cancel_at(clock, deadline):
            result = await self._result()
        if result is None:  # it may still have come in the moment of the deadline
            result = await self._engine.canceller.end_wait(self._record, clock.time() - began, self.last_status)
        if self._engine.stored:
            await self._engine.stored.receive(self._record, self._record.copy_result() or result)
        return unwrap(result)

    async def cancel(self) -> CancelOutcome:
        """Cancel the task at the gateway, and return whether that was in time and what is known of the cost.

        If it was in time, everybody who waits for the task gets `TaskCancelled`, and its slot is free. If it was too
        late, they get what the task came to. If the gateway does not say what became of the task within
        `Timeouts.cancel`, it is polled as before. Cancelling this call does not call off the cancel request.

        Raises:
            ConfigurationError: The gateway cannot cancel tasks; nothing was sent.
            TaskNotFound: The gateway does not know the task.
            GatewayError: The gateway refuses the key or the request.
            SessionError: The session is not running.
        """
        self._ensure_running()
        self._record = self._engine.poll_loop.find(self.id) or self._record
        outcome = await self._engine.canceller.cancel(self._record)
        if self._engine.stored and (result := self._record.copy_result()):
            await self._engine.stored.receive(self._record, result)
        return outcome

    async def status(self) -> TaskStatus:
        """Poll the task once, now: ahead of the schedule, but within the session's limits on status requests.

        Raises:
            TaskNotFound: The gateway does not know the task.
            GatewayError: The poll failed; it is not repeated.
            SessionError: The session is not running.
        """
        self._ensure_running()
        return await self._engine.poll_loop.poll_now(self._record)

    def updates(self, every: float | None = 1.0) -> AsyncGenerator[TaskStatus, None]:
        """Yield the task's status whenever it changes; end with the terminal status.

        A slow consumer gets the latest status and misses those between.

        Args:
            every: While the consumer waits for an update, the task is polled at least once in so many seconds, within
                the session's limits and not more often than `Polling.min_interval`. The shortest of several watchers
                counts. Once nobody waits, the task is polled as any other. None leaves the schedule as it is.

        Raises:
            InvalidRequest: `every` is not a finite number of seconds above 0; nothing was sent.
            KontextError: As in `wait`, except that a failed task is a status here.
        """
        return self._updates(math.inf if every is None else check_seconds(every, "every"))

    async def _updates(self, every: float) -> AsyncGenerator[TaskStatus, None]:
        self._ensure_running()
        shown: TaskStatus | None = None
        self._track()
        while True:
            status = self.last_status
            if status is not None and status != shown:
                shown = status
                yield status
                continue
            if (result := self._record.copy_result()) is not None:
                if isinstance(result, KontextError) and not isinstance(result, TaskFailed):
                    raise result
                return
            self._ensure_running()
            self._track()  # a poll that failed while nobody listened is repeated
            if error := await self._engine.poll_loop.watch(self._record, every):
                if self._record.result is None:
                    raise error
                return

    def __repr__(self) -> str:
        status = self.last_status
        return f"<GenerationTask {self.id} {status.raw_status if status else 'not polled yet'}>"

    def _ensure_running(self) -> None:
        """Raise unless the session is running. The error names this task, which keeps running on the gateway."""
        self._engine.ensure_running_for(self.id, str(self.reference))

    async def _result(self) -> Result:
        self._track()
        return await self._record.wait()

    async def _wait_or_abandon(self) -> Generation:
        """Wait as `wait` does, for the only caller that knows of this task."""
        try:
            return await self.wait()
        except BaseException:
            self._engine.poll_loop.abandon(self._record, "the caller stopped waiting")
            raise

    def _track(self) -> None:
        """Have the poll loop poll the task: at once, unless it does so already."""
        if self._record.result is None:
            self._record = self._engine.poll_loop.track(self._record, at_once=True)
            self._record.retain_status()


@frozen
class RecoveredTask:
    """Work that the store knows of, that was paid for or may have been, and that nobody has received.

    Attributes:
        key: The key of the request.
        run: The name of its run.
        state: ``accepted``, ``finished`` (completed) or ``uncertain``.
        task: The task; None for an uncertain request, which has no task ID. Waiting for it receives it.
    """

    key: str
    run: str
    state: str
    task: GenerationTask | None


def unwrap(result: Result) -> Generation:
    """Return a generation, or raise an error."""
    if isinstance(result, KontextError):
        raise result
    return result


def last_status(gateway: Gateway, record: TaskRecord, accept_body: bytes | None) -> TaskStatus | None:
    """Return the last known status: before the first poll, that of the response that accepted the task."""
    status = record.read_status(gateway)
    if status is not None or accept_body is None:
        return status
    return gateway.read_created(Response(HTTPStatus.OK, accept_body), model=record.model or "").status


def deadline_of(clock: Clock, timeout: Any) -> float | None:
    """Return the time at which a timeout ends.

    Raises:
        InvalidRequest: It is not a number of seconds above 0.
    """
    return None if timeout is None else clock.time() + check_seconds(timeout, "timeout")


def check_seconds(value: Any, name: str) -> float:
    """Return a number of seconds that a caller gave as the argument `name`.

    Raises:
        InvalidRequest: It is not a finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidRequest(name, value, "it must be a finite number of seconds above 0")
    return value

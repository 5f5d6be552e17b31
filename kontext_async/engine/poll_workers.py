"""The tasks of the event loop that poll, and the timer for the next due time. `decisions.polling` says when that is.

A worker takes the next due task as soon as it has handled a response, in the same turn of the loop. When nothing is due
the workers idle, and one timer wakes the loop for whatever is due first.
"""

from __future__ import annotations

import asyncio
import math
from logging import DEBUG
from typing import TYPE_CHECKING

from attrs import define, field

from kontext_async.engine.request_log import LOGGER, log_poll
from kontext_async.engine.task_record import reference_text
from kontext_async.engine.transport import TransportError
from kontext_async.errors import GatewayUnavailable, KontextError
from kontext_async.gateways import GatewayRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.decisions.polling.queue import PollQueue
    from kontext_async.engine.clock import Timer
    from kontext_async.engine.context import Context
    from kontext_async.engine.task_record import TaskRecord
    from kontext_async.engine.transport import Response, Transport
    from kontext_async.models import TaskStatus
    from kontext_async.protocol import InProgress

    Read = InProgress | TaskStatus | GatewayRequest | KontextError

__all__ = ["PollWorkers", "Polled"]

MAX_FOLLOWED = 5
"""The most requests that one poll sends after its first: for a result, and for redirects."""

REQUESTS = range(1 + MAX_FOLLOWED)
"""The requests of one poll."""


@define  # a frozen class would take four times as long to create
class Polled:
    """One poll of a task.

    Attributes:
        request: The last request that was sent; None if there was none.
        response: The response to it; None if none came.
        read: What it says, or the error that stands for it.
    """

    request: GatewayRequest | None
    response: Response | None
    read: InProgress | TaskStatus | KontextError = field(repr=False)


class PollWorkers:
    """Sends the status requests that a queue has due, and passes on the responses.

    Args:
        queue: Says which task is due, and when.
        transport: Sends the requests.
        handle: Handles a poll, with the time at which its response came. Not called for a task that left the queue
            meanwhile.
        context: The engine's surroundings; `Limits.max_polls_in_flight` bounds the number of workers.
    """

    def __init__(
        self,
        queue: PollQueue[TaskRecord],
        transport: Transport,
        handle: Callable[[TaskRecord, Polled, float], None],
        context: Context,
    ) -> None:
        self._queue = queue
        self._gateway = transport.gateway
        self._transport = transport
        self._handle = handle
        self._clock = context.clock
        self._start_soon = context.start_soon
        self._crash = context.crash
        self._most = context.settings.limits.max_polls_in_flight
        self._count = 0
        self._idle: list[asyncio.Future[TaskRecord]] = []
        self._timer: Timer | None = None
        self._wakes_at = math.inf

    def ensure(self, tasks: int, now: float, due: float) -> None:
        """Take note of a new task in the queue, which now holds `tasks`; start a worker if that may help.

        Args:
            tasks: The tasks in the queue.
            now: The present time.
            due: The time at which the new task is due.
        """
        if self._count < min(self._most, tasks):
            self._count += 1
            self._start_soon(self._work)
        if due < self._wakes_at:
            self._dispatch_and_arm(now)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer:
            self._timer.cancel()
        self._timer, self._wakes_at = None, math.inf

    async def _work(self) -> None:
        """Poll one due task after another: the body of a worker."""
        now = self._clock.time()
        task: TaskRecord | None = None
        while True:
            following = self._queue.pop_due(now)
            if following is None or task is None or task.due < self._wakes_at:
                self._dispatch_and_arm(now)
            task = following or await self._next_assignment()
            try:
                step = self._begin(task)
                for _ in REQUESTS:
                    if isinstance(step, Polled):
                        break
                    began = self._clock.time() if LOGGER.isEnabledFor(DEBUG) else None
                    received: Response | TransportError
                    try:
                        received = await self._transport.poll(step)
                    except TransportError as lost:
                        received = lost
                    step = self._read(task, step, received, began)
            finally:
                counts = self._queue.poll_done(task)
            now = self._clock.time()
            if counts:
                self._handle(task, step if isinstance(step, Polled) else self._give_up(task, step), now)

    def _begin(self, task: TaskRecord) -> GatewayRequest | Polled:
        """Return the status request of a task; or the poll, if none may be sent."""
        try:
            return self._gateway.status(task)
        except KontextError as error:
            return Polled(None, None, self._with_task(error, task))

    def _read(
        self, task: TaskRecord, request: GatewayRequest, received: Response | TransportError, began: float | None
    ) -> GatewayRequest | Polled:
        """Read a response, or take note that there is none. Return the request that it leads to, or the poll."""
        response: Response | None = None
        read: Read
        if isinstance(received, TransportError):
            read = self._with_task(_no_response(received), task)
        else:
            response = received
            try:
                read = self._gateway.read_poll(task, request, response)
            except KontextError as error:
                read = self._with_task(self._transport.redact(error.with_traceback(None)), task)
        if began is not None:
            shown = response or (read if isinstance(read, KontextError) else None)
            log_poll(task.task_id, task.failures + 1, shown, self._clock.time() - began)
        return read if isinstance(read, GatewayRequest) else Polled(request, response, read)

    def _give_up(self, task: TaskRecord, request: GatewayRequest) -> Polled:
        """Return the poll of a task whose responses lead to ever more requests."""
        text = f"a poll leads to more than {MAX_FOLLOWED} further requests"
        return Polled(request, None, self._with_task(GatewayUnavailable(text), task))

    def _with_task(self, error: KontextError, task: TaskRecord) -> KontextError:
        return error.with_task(task.task_id, reference_text(task, self._gateway))

    async def _next_assignment(self) -> TaskRecord:
        """Idle until a task is assigned."""
        assignment: asyncio.Future[TaskRecord] = asyncio.get_running_loop().create_future()
        self._idle.append(assignment)
        return await assignment

    def _dispatch_and_arm(self, now: float) -> None:
        """Assign due tasks to idle workers, and set the timer for the next one."""
        when = self._queue.wake_at()
        if when <= now:
            self._dispatch_due(now)
            when = self._queue.wake_at()
            if when <= now:  # no worker is idle: the first one to be done takes what is due
                return
        when = self._queue.on_grid(when)
        if when < self._wakes_at:
            self.stop()
            self._wakes_at = when
            self._timer = self._clock.call_at(when, self._on_timer)

    def _dispatch_due(self, now: float) -> None:
        """Assign due tasks to idle workers; busy workers take theirs when they are done."""
        while self._idle and (task := self._queue.pop_due(now)):
            assignment = self._idle.pop()
            if not assignment.done():  # it is cancelled while the session closes
                assignment.set_result(task)

    def _on_timer(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        try:
            self._dispatch_and_arm(self._clock.time())
        except Exception as error:  # noqa: BLE001 # the session ends with it
            self._crash(error)


def _no_response(lost: TransportError) -> GatewayUnavailable:
    error = GatewayUnavailable(f"no response to a status request: {lost}")
    error.__cause__ = lost.__cause__
    return error

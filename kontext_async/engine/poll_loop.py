"""The shared poll loop: one for all pending tasks of a session. What to ask, and when, is `decisions.polling`'s to say.

It is a timer for what is due first, and as many tasks of the event loop as there may be asks at once, or tasks to ask
about. An idle one wakes nobody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kontext_async.decisions.learning import LearnedTiming
from kontext_async.decisions.polling import GRAIN, Agenda, FailedAsk, Verdict, after_failure
from kontext_async.decisions.resend import wait_for
from kontext_async.engine.pending import Pending, result_of
from kontext_async.engine.transport import RequestLost
from kontext_async.errors import (
    AuthenticationFailed,
    GatewayError,
    GatewayUnavailable,
    KontextError,
    PermissionDenied,
    TaskNotFound,
    TaskTimeout,
)
from kontext_async.events import Abandoned, Asked, Failed, Finished, HeldBack
from kontext_async.models import Generation, TaskStatus
from kontext_async.protocol import read_status, read_unfinished, refusal, retry_after

if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from kontext_async.engine.clock import Timer
    from kontext_async.engine.context import Context
    from kontext_async.engine.transport import Answer, Transport

__all__ = ["PollLoop"]

NOT_FOUND = 404
BUSY = (429, 503)
PER_INTERVAL = 8
"""Wake-ups, at most, in the shortest interval at which one task is asked about."""


class PollLoop:
    """Asks about every pending task of a session."""

    def __init__(
        self,
        transport: Transport,
        context: Context,
    ) -> None:
        self._transport = transport
        settings = context.settings
        self._retries = settings.retries
        self._wait = settings.timeouts.wait
        self._clock = context.clock
        self._hub = context.hub
        self._random = context.random
        self._start_soon = context.start_soon
        timing = LearnedTiming(settings.polling, _kind_of)
        grain = min(GRAIN, settings.polling.min_interval / PER_INTERVAL)
        self._agenda: Agenda[Pending] = Agenda(settings.limits, timing, grain)
        self._tasks: dict[str, Pending] = {}
        self._errands: dict[Pending, asyncio.Future[Answer | KontextError]] = {}
        self._idle: list[asyncio.Future[Pending]] = []
        self._workers = 0
        self._most_workers = settings.limits.max_polls_in_flight
        self._timer: Timer | None = None
        self._wakes_at = float("inf")

    @property
    def pending(self) -> int:
        """How many tasks are asked about."""
        return len(self._tasks)

    @property
    def polls_in_flight(self) -> int:
        """How many status requests are on the wire."""
        return self._agenda.in_flight

    def find(self, task_id: str) -> Pending | None:
        """The record of a task that is being asked about."""
        return self._tasks.get(task_id)

    def stop(self) -> None:
        """Wake for nothing any more."""
        if self._timer:
            self._timer.cancel()
        self._timer, self._wakes_at = None, float("inf")

    def follow(self, task: Pending, *, at_once: bool = False) -> Pending:
        """Ask about a task from now on; with `at_once`, first of all now.

        Returns:
            The record to wait on: that of an earlier caller, when the same id is being asked about already.
        """
        if known := self._tasks.get(task.task_id):
            return known
        self._tasks[task.task_id] = task
        task.trouble = None  # what failed before was another wait's
        now = self._clock.time()
        self._agenda.add(task, now, self._random.random())
        if at_once:
            self._agenda.hurry(task, now)
        self._go_on(now)
        return task

    def settle(self, task: Pending, status: TaskStatus, body: bytes) -> None:
        """A task was seen finished."""
        self._forget(task)
        task.hear(body)
        result = result_of(task, status, self._clock.time())
        if isinstance(result, Generation):
            self._hub.emit(Finished(**self._about(task), generation=result))
        else:
            self._hub.emit(Failed(**self._about(task), error=self._transport.told(result)))
        task.settle(result)

    def fail_all(self, error: KontextError) -> None:
        """End every wait with `error`, naming each task: they go on at the gateway, and are paid for."""
        for task in tuple(self._tasks.values()):
            self._fail(task, error.copy())
        for errand, answer in self._errands.items():
            if not answer.done():
                answer.set_result(error.copy().about(errand.task_id))

    def abandon(self, task: Pending, reason: str) -> None:
        """Say that nobody waits for a task any more. It is still asked about, since it still takes its slot."""
        if not task.wanted and task.result is None:
            self._hub.emit(Abandoned(**self._about(task), reason=reason))

    async def ask_now(self, task: Pending) -> TaskStatus:
        """Ask once, at once, whatever the schedule says; whoever waits for the task profits.

        Raises:
            KontextError: What the answer means; nothing is asked again.
        """
        answer, read = await self._out_of_turn(task)
        self._heard(task, read, answer.body)
        return read

    async def look_up(self, task_id: str) -> TaskStatus:
        """What the gateway says of a task at present, for itself: nothing else follows from it.

        Raises:
            KontextError: What the answer means.
        """
        errand = Pending(task_id, self._clock.time())
        _, read = await self._out_of_turn(errand)
        self._hub.emit(Asked(**self._about(errand), status=read))
        return read

    async def _out_of_turn(self, task: Pending) -> tuple[Answer, TaskStatus]:
        """Ask once, before all that is due, under the same bounds: a record of its own stands in the agenda for it."""
        now = self._clock.time()
        errand = Pending(task.task_id, now)
        answered: asyncio.Future[Answer | KontextError] = asyncio.get_running_loop().create_future()
        self._errands[errand] = answered
        self._agenda.hurry(errand, now)
        self._go_on(now)
        try:
            answer = await answered
        finally:
            del self._errands[errand]
            self._agenda.remove(errand)
        if isinstance(answer, KontextError):
            raise answer
        read = self._understood(task, answer)
        if isinstance(read, KontextError):
            raise _not_found(task) if _failure_of(read) is FailedAsk.NOT_FOUND else read
        return answer, read

    def _go_on(self, now: float) -> None:
        """There is something new to ask about."""
        if self._workers < min(self._most_workers, len(self._tasks) + len(self._errands)):
            self._workers += 1
            self._start_soon(self._ask_on)
        self._look_out(now)

    def _look_out(self, now: float) -> None:
        """Hand out what is due, and be there when something else will be."""
        when = self._agenda.wake_at()
        if when <= now:
            self._hand_out(now)
            when = self._agenda.wake_at()
        when = self._agenda.on_grid(when)
        if when < self._wakes_at:
            self.stop()
            self._wakes_at = when
            self._timer = self._clock.call_at(when, self._tick)

    def _hand_out(self, now: float) -> None:
        """Give what is due to those who have nothing to do; the others look for themselves."""
        while self._idle and (task := self._agenda.take_one(now)):
            worker = self._idle.pop()
            if not worker.done():  # or cancelled, as the session is being closed
                worker.set_result(task)

    def _tick(self) -> None:
        self._timer, self._wakes_at = None, float("inf")
        try:
            self._look_out(self._clock.time())
        except Exception as error:
            if not self._idle:
                raise
            self._idle.pop().set_exception(error)  # as the fault of a task of the owner's, it ends the session

    async def _ask_on(self) -> None:
        """Ask about whatever is due next, and so on; there are as many of these as there may be asks at once."""
        now = self._clock.time()
        task: Pending | None = None
        while True:
            following = self._agenda.take_one(now)
            if following is None or task is None or task.due < self._wakes_at:
                self._look_out(now)
            task = following or await self._handed_out()
            answer: Answer | KontextError
            try:
                answer = await self._transport.status(task.task_id)
            except RequestLost as lost:
                answer = _unanswered(task, lost)
            finally:
                counts = self._agenda.back(task)
            now = self._clock.time()
            if counts:
                self._take_in(task, answer, now)

    async def _handed_out(self) -> Pending:
        """The next task that is due."""
        following: asyncio.Future[Pending] = asyncio.get_running_loop().create_future()
        self._idle.append(following)
        return await following

    def _take_in(self, task: Pending, answer: Answer | KontextError, now: float) -> None:
        """What follows from the answer about a task: for those who asked out of turn, it is theirs."""
        if self._errands and (answered := self._errands.get(task)):
            if not answered.done():
                answered.set_result(answer)
            return
        if isinstance(answer, KontextError):
            self._ask_failed(task, answer, now)
        elif answer.ok and (unfinished := read_unfinished(answer.body, task.task_id)):
            self._agenda.unfinished(task, unfinished.progress, now, self._random.random())
            self._hub.emit_if_heard(Asked, self._asked, task, answer.body)
            task.hear(answer.body)
        else:
            self._take_in_whole(task, answer, now)
        if now - task.since >= self._wait:
            self._drop_unless_waited_for(task, answer, now)

    def _take_in_whole(self, task: Pending, answer: Answer, now: float) -> None:
        read = self._understood(task, answer)
        if isinstance(read, KontextError):
            self._ask_failed(task, read, now)
        else:
            self._agenda.answered(task, read, now, self._random.random())
            self._heard(task, read, answer.body)

    def _understood(self, task: Pending, answer: Answer) -> TaskStatus | KontextError:
        if answer.ok:
            try:
                return read_status(answer.body, task.task_id, status=answer.status)
            except KontextError as malformed:
                return self._transport.told(malformed).about(task.task_id)
        self._hold_back_if_asked(task, answer)
        return self._transport.told(
            refusal(answer.status, answer.body, request_id=answer.request_id, task_id=task.task_id)
        )

    def _hold_back_if_asked(self, task: Pending, answer: Answer) -> None:
        named = retry_after(answer.retry_after, self._clock.utcnow())
        if answer.status not in BUSY and named is None:
            return
        seconds = wait_for(named, task.failures + 1, self._retries, self._random.random())
        self._agenda.hold_back(self._clock.time() + seconds)
        self._hub.emit(HeldBack(**self._about(task), seconds=seconds, creates=False))

    def _heard(self, task: Pending, status: TaskStatus, body: bytes) -> None:
        self._hub.emit(Asked(**self._about(task), status=status))
        if not status.state.finished:
            task.hear(body)
        elif task.result is None:
            self.settle(task, status, body)

    def _asked(self, task: Pending, body: bytes) -> Asked:
        return Asked(**self._about(task), status=read_status(body, task.task_id))

    def _ask_failed(self, task: Pending, error: KontextError, now: float) -> None:
        failure = _failure_of(error)
        verdict = after_failure(task, failure, now, self._retries)
        if verdict is Verdict.FAIL_ALL:
            self.fail_all(error)
        elif verdict is Verdict.FAIL_TASK:
            self._fail(task, _not_found(task) if failure is FailedAsk.NOT_FOUND else error)
        else:
            self._agenda.again_after_failure(task, now, self._retries, self._random.random())

    def _drop_unless_waited_for(self, task: Pending, answer: Answer | KontextError, now: float) -> None:
        """No task is asked about for ever: after `Timeouts.wait` it goes on only for those with a deadline."""
        if self._tasks.get(task.task_id) is task and not task.waited_for:
            self._hub.emit(Abandoned(**self._about(task), reason="not finished within Timeouts.wait"))
            self._forget(task)
            task.settle(TaskTimeout(task_id=task.task_id, waited=now - task.since, last_status=_said(task, answer)))

    def _fail(self, task: Pending, error: KontextError) -> None:
        error.task_id = task.task_id
        error.may_be_charged = True
        self._forget(task)
        self._hub.emit(Failed(**self._about(task), error=error))
        task.settle(error)

    def _forget(self, task: Pending) -> None:
        if self._tasks.get(task.task_id) is task:
            del self._tasks[task.task_id]
        self._agenda.remove(task)

    def _about(self, task: Pending) -> dict[str, Any]:
        return {"at": self._clock.utcnow(), "task_id": task.task_id, "fingerprint": task.fingerprint}


def _kind_of(task: Pending) -> Hashable | None:
    """Requests of one model with as many input images take similar times; an attached task's age is not known."""
    request = task.request
    return None if request is None else (request.model, len(request.input_images))


def _unanswered(task: Pending, lost: RequestLost) -> GatewayUnavailable:
    error = GatewayUnavailable(f"no answer to a status request: {lost}", task_id=task.task_id)
    error.__cause__ = lost.__cause__
    return error


def _said(task: Pending, answer: Answer | KontextError) -> TaskStatus | None:
    """What the gateway said of a task last, as far as it is known."""
    if isinstance(answer, KontextError) or not answer.ok:
        return task.status
    try:
        return read_status(answer.body, task.task_id)
    except KontextError:
        return task.status


def _not_found(task: Pending) -> TaskNotFound:
    return TaskNotFound("the gateway does not know this task, or does not any more", task_id=task.task_id)


def _failure_of(error: KontextError) -> FailedAsk:
    if isinstance(error, AuthenticationFailed | PermissionDenied):
        return FailedAsk.FORBIDDEN
    if isinstance(error, GatewayError) and error.status == NOT_FOUND:
        return FailedAsk.NOT_FOUND
    return FailedAsk.PASSING

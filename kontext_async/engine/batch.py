"""Many requests: read lazily, submitted under the session's slots, and yielded as they complete.

An accepted request needs no asyncio task: its record calls back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import anyio
from attrs import evolve

from kontext_async.decisions.shares import UNBOUNDED
from kontext_async.engine.outcome_queue import OutcomeQueue
from kontext_async.engine.submission import Submission
from kontext_async.errors import InvalidRequest, KontextError
from kontext_async.models import Generation, KontextRequest, Outcome, RequestLike

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.decisions.shares import Queueing
    from kontext_async.engine.engine import Engine
    from kontext_async.engine.task_record import Result, TaskRecord

__all__ = ["Batch", "Requests"]

Requests: TypeAlias = Iterable[RequestLike] | AsyncIterable[RequestLike]

WINDOW_PER_SLOT = 2
"""Open requests for each slot: one in flight, and one ready to follow it."""

UNACCEPTED_PER_CONNECTION = 2
"""Requests for each connection that are read but not accepted yet. Each is an asyncio task, so they are bounded."""

READ_PER_TURN = 8
"""Requests to read in one turn of the event loop."""


Ended: TypeAlias = "tuple[Outcome, TaskRecord | None]"
"""An outcome, and its task if the gateway accepted the request."""


class Batch:
    """Runs the requests of one iterable."""

    def __init__(self, engine: Engine, requests: Requests, queueing: Queueing = UNBOUNDED) -> None:
        limits = engine.settings.limits
        self._engine = engine
        self._requests = _as_async(requests)
        self._queueing = evolve(queueing, is_patient=True)  # the batch bounds its own requests
        self._outcomes: OutcomeQueue[tuple[Outcome, TaskRecord | None]] = OutcomeQueue(
            lambda: WINDOW_PER_SLOT * engine.settings.limits.max_in_flight
        )
        self._unaccepted = asyncio.Semaphore(UNACCEPTED_PER_CONNECTION * limits.max_connections)
        self._reading = True
        self._read_error: Exception | None = None
        self._open = 0
        self._reader = anyio.CancelScope()
        self._submitting: set[asyncio.Task[None]] = set()
        self._accepted: dict[TaskRecord, int] = {}
        self._on_result = self._handle_result  # one bound method for all tasks
        self._closed = False

    def start(self) -> None:
        """Start to read and to submit.

        Raises:
            SessionError: The session is not running.
        """
        self._engine.start_soon(self._feed)
        self._engine.on_end.add(self._outcomes.end)
        self._engine.on_new_ceiling.add(self._outcomes.check_room)

    async def next(self) -> Outcome | None:
        """Return the next outcome, in order of completion; None after the last one.

        Raises:
            Exception: The error that the iterable raised, after the outcomes of all requests read before it.
            SessionError: The session ended; raised after the outcomes that were ready.
        """
        item = await self._outcomes.get()
        if item is None:
            return None
        outcome, task = item
        result = outcome.generation or outcome.error
        if task and result and self._engine.stored:
            await self._engine.stored.receive(task, result)
        return outcome

    def close(self) -> None:
        """Cancel the requests that are not submitted, and report accepted tasks as abandoned. They keep running."""
        self._engine.on_end.discard(self._outcomes.end)
        self._engine.on_new_ceiling.discard(self._outcomes.check_room)
        self._closed = True
        self._reader.cancel()
        for submitting in tuple(self._submitting):
            submitting.cancel()
        for task in self._accepted:
            task.remove_done_callback()
            self._abandon(task)
        self._accepted.clear()

    async def _feed(self) -> None:
        with self._reader:
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001 # the user's iterable may raise anything; the consumer gets it
                self._read_error = error
            finally:
                self._reading = False
                self._end_if_done()

    async def _read(self) -> None:
        index = 0
        while True:
            await self._outcomes.reserve()
            await self._unaccepted.acquire()
            if not index % READ_PER_TURN:
                await asyncio.sleep(0)  # neither semaphore may make this wait, and other tasks need the loop
            try:
                given = await anext(self._requests)
            except StopAsyncIteration:
                return
            self._open += 1
            submitting = self._engine.start_task(self._submit(index, given), self._submitting.discard)
            self._submitting.add(submitting)
            index += 1

    async def _submit(self, index: int, given: RequestLike) -> None:
        request: KontextRequest | None = None
        try:
            request = _to_request(given)
            task = await self._engine.submit(self._make_submission(request, given))
            self._await_result(task, index)
        except KontextError as error:
            self._put(Outcome(index=index, request=request, error=error))
        finally:
            self._unaccepted.release()

    def _make_submission(self, request: KontextRequest, given: RequestLike) -> Submission:
        return Submission(
            request, is_prompt_only=isinstance(given, str), queueing=self._queueing, webhook=self._engine.webhook
        )

    def _await_result(self, task: TaskRecord, index: int) -> None:
        if self._closed:  # the gateway accepted it in the same turn of the loop in which the iterator was closed
            self._abandon(task)
            return
        self._accepted[task] = index
        task.add_done_callback(self._on_result)

    def _handle_result(self, task: TaskRecord, result: Result) -> None:
        index = self._accepted.pop(task)
        if isinstance(result, Generation):
            outcome = Outcome(index=index, request=result.request, task_id=task.task_id, generation=result)
        else:
            outcome = Outcome(index=index, request=task.request, task_id=task.task_id, error=result)
        self._put(outcome, task)

    def _abandon(self, task: TaskRecord) -> None:
        self._engine.poll_loop.abandon(task, "its iterator was closed")

    def _put(self, outcome: Outcome, task: TaskRecord | None = None) -> None:
        self._open -= 1
        self._outcomes.put((outcome, task))
        self._end_if_done()

    def _end_if_done(self) -> None:
        if not self._reading and not self._open:
            self._outcomes.end(self._read_error)


def _to_request(given: RequestLike) -> KontextRequest:
    """Make the request. Whatever that raises becomes the outcome of this one request."""
    try:
        return KontextRequest.of(given)
    except KontextError:
        raise
    except Exception as error:
        raise InvalidRequest("request", given, f"it must be readable: {type(error).__name__}: {error}") from error


def _as_async(requests: object) -> AsyncIterator[RequestLike]:
    if isinstance(requests, AsyncIterable):
        return aiter(requests)
    if isinstance(requests, Iterable) and not isinstance(requests, str | bytes | Mapping):
        return _aiter_sync(requests)
    raise InvalidRequest("requests", requests, "it must be an iterable or an async iterable of requests")


async def _aiter_sync(requests: Iterable[RequestLike]) -> AsyncIterator[RequestLike]:
    for request in requests:
        yield request

"""Many requests: read lazily, submitted under the session's slots, handed out as they finish.

What was read and not yet handed out is bounded, whatever the length of the iterable and the pace of the consumer. An
accepted request takes no task of the event loop's: its record calls back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import anyio
from attrs import evolve

from kontext_async.engine.scheduler import Submission
from kontext_async.errors import InvalidRequest, KontextError
from kontext_async.models import Generation, KontextRequest, Outcome, RequestLike

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.engine.pending import Pending, Result
    from kontext_async.engine.service import Service

__all__ = ["Batch", "Requests"]

Requests: TypeAlias = Iterable[RequestLike] | AsyncIterable[RequestLike]

WINDOW_PER_SLOT = 2
"""Requests that are read and not yet handed out, for each slot: one in flight, one ready to follow it."""

UNACCEPTED_PER_CONNECTION = 2
"""Requests that are read and not yet accepted, for each connection: a task of the loop each, and so not all at once."""

READ_AT_ONCE = 8
"""Requests that are read in one turn of the loop."""


class Batch:
    """One run over an iterable of requests."""

    def __init__(self, service: Service, requests: Requests) -> None:
        self._service = service
        self._requests = _as_async(requests)
        self._window = asyncio.Semaphore(WINDOW_PER_SLOT * service.settings.limits.max_in_flight)
        self._unaccepted = asyncio.Semaphore(UNACCEPTED_PER_CONNECTION * service.settings.limits.max_connections)
        self._ready: deque[Outcome] = deque()
        self._news = asyncio.Event()
        self._reading = True
        self._open = 0
        self._failure: Exception | None = None
        self._ended: KontextError | None = None
        self._scopes: set[anyio.CancelScope] = set()
        self._accepted: dict[Pending, int] = {}
        self._when_settled = self._settled  # one bound method for all tasks
        self._closed = False

    def start(self) -> None:
        """Begin to read and to submit.

        Raises:
            SessionClosed: The session is not running.
        """
        self._service.start_soon(self._feed)
        self._service.when_ended.add(self._end)

    async def next(self) -> Outcome | None:
        """The next outcome, in order of completion; None after the last one.

        Raises:
            Exception: What the iterable raised, after the outcomes of everything that had been read from it.
            SessionClosed: The session has ended, after the outcomes that there were.
        """
        while not self._ready:
            if not self._reading and not self._open:
                if self._failure:
                    raise self._failure
                return None
            if self._ended:
                raise self._ended
            self._news.clear()
            await self._news.wait()
        self._window.release()
        return self._ready.popleft()

    def close(self) -> None:
        """Stop: what was not submitted is not. What was accepted goes on, and its id goes out as an event."""
        self._service.when_ended.discard(self._end)
        self._closed = True
        for scope in tuple(self._scopes):
            scope.cancel()
        for task in self._accepted:
            task.call_off()
            self._abandon(task)
        self._accepted.clear()

    async def _feed(self) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001 # the user's iterable may raise anything; it is theirs to see
                self._failure = error
            finally:
                self._scopes.discard(scope)
                self._reading = False
                self._news.set()

    async def _read(self) -> None:
        index = 0
        while True:
            await self._window.acquire()
            await self._unaccepted.acquire()
            if not index % READ_AT_ONCE:
                await asyncio.sleep(0)  # neither semaphore may ever make this wait, and the loop has others to serve
            try:
                given = await anext(self._requests)
            except StopAsyncIteration:
                return
            self._open += 1
            self._service.start_soon(self._submit, index, given)
            index += 1

    async def _submit(self, index: int, given: RequestLike) -> None:
        request: KontextRequest | None = None
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                request = _made(given)
                task = await self._service.scheduler.submit(Submission(request))
                self._await_end_of(task, index)
            except KontextError as error:
                self._finish(Outcome(index=index, request=request, error=error))
            finally:
                self._scopes.discard(scope)
                self._unaccepted.release()

    def _await_end_of(self, task: Pending, index: int) -> None:
        if self._closed:  # it was accepted in the very turn of the loop in which the iterator was closed
            self._abandon(task)
            return
        self._accepted[task] = index
        task.when_settled(self._when_settled)

    def _settled(self, task: Pending, result: Result) -> None:
        outcome = Outcome(index=self._accepted.pop(task), request=task.request, task_id=task.task_id)
        if isinstance(result, Generation):
            self._finish(evolve(outcome, generation=result))
        else:
            self._finish(evolve(outcome, error=result))

    def _abandon(self, task: Pending) -> None:
        self._service.poll_loop.abandon(task, "its iterator was closed")

    def _finish(self, outcome: Outcome) -> None:
        self._open -= 1
        self._ready.append(outcome)
        self._news.set()

    def _end(self, error: KontextError) -> None:
        self._ended = error
        self._news.set()


def _made(given: RequestLike) -> KontextRequest:
    """The request that was given; whatever the making of it raises is the outcome of this one request."""
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
        return _stepping(requests)
    raise InvalidRequest("requests", requests, "it must be an iterable or an async iterable of requests")


async def _stepping(requests: Iterable[RequestLike]) -> AsyncIterator[RequestLike]:
    for request in requests:
        yield request

"""Plans the rows of concurrent calls together: few statements, for any number of calls."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING

from attrs import define

from kontext_async.decisions.resend import backoff
from kontext_async.errors import KontextError, SessionClosed, StoreError, StoreUnusable
from kontext_async.store.calls import call_store
from kontext_async.store.group_commit import BACKOFF, gather_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import TypeAlias

    from kontext_async.store.rows import NewRow, Row

    Plan: TypeAlias = Callable[[int, Sequence[NewRow], int | None], Awaitable[list[Row]]]

__all__ = ["Planner"]

LARGEST = 500
"""Rows of a statement, unless one call has more."""


@define(eq=False)
class _Call:
    run: int
    rows: Sequence[NewRow]
    execution: int | None
    planned: asyncio.Future[list[Row] | KontextError]
    """An error is its result: its caller may have left, and asyncio reports an error that nobody looks at."""
    tries: int = 0

    @property
    def begins(self) -> bool:
        """True if attempts begin with the rows."""
        return any(row.intended for row in self.rows)

    @property
    def is_over(self) -> bool:
        """True if its caller left, and no attempt of it may have been written."""
        return self.planned.done() and not (self.tries and self.begins)


class Planner:
    """Collects calls, and plans the rows of one run and execution with one statement. Create it in a running loop.

    A call whose rows begin their first attempt is repeated until it is known what was written, whether or not its
    caller still waits.

    Args:
        plan: Plans rows of a run, for an execution: `Store.plan`. Keys must differ.
        time_limit: Seconds for one statement.
        on_unclaimed: Receives a row that was written after its caller had left, with the request.
    """

    def __init__(self, plan: Plan, time_limit: float, on_unclaimed: Callable[[NewRow, Row], None]) -> None:
        self._plan = plan
        self._time_limit = time_limit
        self._on_unclaimed = on_unclaimed
        self._calls: deque[_Call] = deque()
        self._news = asyncio.Event()
        self._is_closed = False
        self._previous = 0
        self._failures = 0
        self._owner = asyncio.get_running_loop().create_task(self._run(), name="kontext_async plan")

    async def plan(self, run: int, rows: Sequence[NewRow], execution: int | None) -> list[Row]:
        """Return the rows of keys, in order; create the missing ones as planned.

        Raises:
            StoreUnavailable: They could not be written; nothing was sent, and it may be repeated. Not for rows that
                begin: they are repeated for as long as the caller waits.
        """
        if self._is_closed:
            raise SessionClosed("the store is closed: nothing was planned, and nothing was sent")
        call = _Call(run=run, rows=rows, execution=execution, planned=asyncio.get_running_loop().create_future())
        self._calls.append(call)
        self._news.set()
        try:
            planned = await call.planned
        except asyncio.CancelledError:
            if not call.planned.cancelled() and isinstance(planned := call.planned.result(), list):
                self._give_back(call, planned)  # they came in the same turn of the loop
            raise
        if isinstance(planned, KontextError):
            raise planned
        return planned

    async def aclose(self) -> None:
        """Write what may have begun, for up to the time limit, and stop. Other callers fail with `SessionClosed`."""
        self._is_closed = True
        self._news.set()
        _fail((call for call in self._calls if not call.tries), _closed())
        await asyncio.wait([self._owner], timeout=self._time_limit)
        self._owner.cancel()
        await asyncio.wait([self._owner])
        _fail(self._calls, _closed())

    async def _run(self) -> None:
        while self._calls or not self._is_closed:
            await self._news.wait()
            await asyncio.sleep(self._pause())
            calls = self._take()
            self._previous = len(calls)
            try:
                again = await self._plan_together(calls)
            except BaseException:
                self._calls.extendleft(reversed(calls))
                raise
            self._calls.extendleft(reversed(again))
            if not self._calls:
                self._news.clear()

    def _pause(self) -> float:
        if self._failures:
            return backoff(self._failures, BACKOFF, random.random())  # noqa: S311 # no secret
        return 0.0 if self._is_closed else gather_seconds(self._previous)

    def _take(self) -> list[_Call]:
        """Take the first call, and those that fit into its statement; the others stay in order."""
        taken: list[_Call] = []
        others: deque[_Call] = deque()
        keys: set[str] = set()
        for call in self._calls:
            if call.is_over:
                continue
            new = {row.key for row in call.rows}
            is_alike = not taken or (call.run, call.execution) == (taken[0].run, taken[0].execution)
            if is_alike and not keys & new and (not taken or len(keys) + len(new) <= LARGEST):
                taken.append(call)
                keys |= new
            else:
                others.append(call)
        self._calls = others
        return taken

    async def _plan_together(self, calls: list[_Call]) -> list[_Call]:
        """Plan the rows of calls, and return the calls that are repeated."""
        if not calls:
            return []
        for call in calls:
            call.tries += 1
        rows = [row for call in calls for row in call.rows]
        try:
            planned = await call_store(self._plan(calls[0].run, rows, calls[0].execution), self._time_limit)
        except StoreError as error:
            again = [call for call in calls if call.begins]
            self._failures = self._failures + 1 if again else 0  # the others are repeated by their callers
            _fail(calls if isinstance(error, StoreUnusable) else (call for call in calls if not call.begins), error)
            return again
        self._failures = 0
        self._distribute(calls, planned)
        return []

    def _distribute(self, calls: list[_Call], planned: list[Row]) -> None:
        first = 0
        for call in calls:
            last = first + len(call.rows)
            if call.planned.done():
                self._give_back(call, planned[first:last])
            else:
                call.planned.set_result(planned[first:last])
            first = last

    def _give_back(self, call: _Call, planned: list[Row]) -> None:
        """Report the attempts that began although their caller has left."""
        for new, row in zip(call.rows, planned, strict=True):
            if new.intended:
                self._on_unclaimed(new, row)


def _closed() -> SessionClosed:
    return SessionClosed("the session was closed: nothing was planned, and nothing was sent")


def _fail(calls: Iterable[_Call], error: StoreError | SessionClosed) -> None:
    for call in calls:
        if not call.planned.done():
            call.planned.set_result(error.copy())

"""Plans the rows of concurrent calls together: few statements, for any number of calls."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from attrs import define

from kontext_async.errors import SessionClosed, StoreError
from kontext_async.store.calls import call_store, quiet_future
from kontext_async.store.group_commit import gather_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
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
    planned: asyncio.Future[list[Row]]


class Planner:
    """Collects calls, and plans the rows of one run and execution with one statement. Create it in a running loop.

    Args:
        plan: Plans rows of a run, for an execution: `Store.plan`. Keys must differ.
        time_limit: Seconds for one statement.
    """

    def __init__(self, plan: Plan, time_limit: float) -> None:
        self._plan = plan
        self._time_limit = time_limit
        self._calls: deque[_Call] = deque()
        self._news = asyncio.Event()
        self._is_closed = False
        self._owner = asyncio.get_running_loop().create_task(self._run(), name="kontext_async plan")

    async def plan(self, run: int, rows: Sequence[NewRow], execution: int | None) -> list[Row]:
        """Return the rows of keys, in order; create the missing ones as planned.

        Raises:
            StoreUnavailable: They could not be written; nothing was sent, and it may be repeated.
        """
        if self._is_closed:
            raise SessionClosed("the store is closed: nothing was planned, and nothing was sent")
        call = _Call(run=run, rows=rows, execution=execution, planned=quiet_future())
        self._calls.append(call)
        self._news.set()
        return await call.planned

    async def aclose(self) -> None:
        """Stop. Callers fail with `SessionClosed`."""
        self._is_closed = True
        self._owner.cancel()
        await asyncio.wait([self._owner])
        _fail(self._calls, SessionClosed("the session was closed: nothing was planned, and nothing was sent"))

    async def _run(self) -> None:
        previous = 0
        while True:
            await self._news.wait()
            await asyncio.sleep(gather_seconds(previous))
            calls = self._take()
            previous = len(calls)
            try:
                await self._plan_together(calls)
            except BaseException:
                self._calls.extendleft(reversed(calls))
                raise
            if not self._calls:
                self._news.clear()

    def _take(self) -> list[_Call]:
        """Take the first call, and those that fit into its statement; the others stay in order."""
        taken: list[_Call] = []
        others: deque[_Call] = deque()
        keys: set[str] = set()
        for call in self._calls:
            if call.planned.done():  # its caller left
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

    async def _plan_together(self, calls: list[_Call]) -> None:
        if not calls:
            return
        rows = [row for call in calls for row in call.rows]
        try:
            planned = await call_store(self._plan(calls[0].run, rows, calls[0].execution), self._time_limit)
        except StoreError as error:
            _fail(calls, error)
        else:
            _distribute(calls, planned)


def _distribute(calls: list[_Call], planned: list[Row]) -> None:
    first = 0
    for call in calls:
        last = first + len(call.rows)
        if not call.planned.done():
            call.planned.set_result(planned[first:last])
        first = last


def _fail(calls: Sequence[_Call], error: StoreError | SessionClosed) -> None:
    for call in calls:
        if not call.planned.done():
            call.planned.set_exception(error.copy())

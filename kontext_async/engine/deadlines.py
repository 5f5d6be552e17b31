"""Deadlines for many short waits that all may last equally long: one timer for all of them.

`asyncio.timeout` sets and cancels a timer for each request, which is a few per cent of what a status request costs. As
all of these last equally long, the first to begin is the first to be overdue, and one timer for it is enough.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Deadlines"]


class Deadlines:
    """A context in which the task that enters it may spend `seconds`, for any number of tasks; none enters it twice.

    Raises:
        TimeoutError: On leaving it, when it took longer.
        RuntimeError: On entering it, when there is no task that could be interrupted.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: dict[asyncio.Task[object], tuple[float, int]] = {}
        self._overdue: dict[asyncio.Task[object], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = _this_task()
        loop = asyncio.get_running_loop()
        when = loop.time() + self._seconds
        self._waits[task] = when, task.cancelling()
        if self._timer is None:
            self._timer = loop.call_at(when, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = _this_task()
        if self._waits.pop(task, None):
            return
        cancelling = self._overdue.pop(task)
        if task.uncancel() <= cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        """Interrupt what is overdue, and come back for the first that is not."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, (when, cancelling) in tuple(self._waits.items()):
            if when > loop.time():
                self._timer = loop.call_at(when, self._expire)
                return
            del self._waits[task]
            self._overdue[task] = cancelling
            task.cancel()


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("there is no task that could be interrupted")
    return task

"""Deadlines for many short waits that all may last equally long: one timer for all of them.

`asyncio.timeout` sets and cancels a timer for each request, which is a few per cent of what a status request costs. As
all of these last equally long, the first to begin is the first to be overdue, and one timer for it is enough.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Deadlines"]


class _Within:
    """One wait. Ends with `TimeoutError` when it is overdue, and with the cancellation of others as it is."""

    __slots__ = ("_cancelling", "_overdue", "_task", "when")

    def __init__(self, when: float, task: asyncio.Task[object]) -> None:
        self.when = when
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._overdue = False

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to be overdue."""
        return self._task is None

    def expire(self) -> None:
        """It is overdue."""
        if self._task is not None:
            self._overdue = True
            self._task.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if not self._overdue or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


class Deadlines:
    """Makes waits that may last `seconds` each."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: deque[_Within] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def within(self) -> _Within:
        """A context in which the current task may spend `seconds`.

        Raises:
            TimeoutError: On leaving it, when it took longer.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task that could be interrupted")
        loop = asyncio.get_running_loop()
        while self._waits and self._waits[0].ended:
            self._waits.popleft()
        wait = _Within(loop.time() + self._seconds, task)
        self._waits.append(wait)
        if self._timer is None:
            self._timer = loop.call_at(wait.when, self._expire)
        return wait

    def _expire(self) -> None:
        """Interrupt what is overdue, and come back for the first that is not."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waits:
            wait = self._waits[0]
            if not wait.ended:
                if wait.when > loop.time():
                    self._timer = loop.call_at(wait.when, self._expire)
                    return
                wait.expire()
            self._waits.popleft()

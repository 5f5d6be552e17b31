"""One timer for many waits with the same timeout.

`asyncio.timeout` sets and cancels a timer for each request, which is a few per cent of the cost of a status request.
With one timeout for all, the first wait to start is the first to expire, so one timer is enough.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["SharedTimeout"]


class SharedTimeout:
    """A context in which each task may spend `seconds`. Any number of tasks may be inside; none may enter twice.

    Raises:
        TimeoutError: On exit, if it took longer.
        RuntimeError: On entry, if there is no current task to interrupt.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: dict[asyncio.Task[object], tuple[float, int]] = {}
        self._expired: dict[asyncio.Task[object], int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("there is no current task to interrupt")
        when = loop.time() + self._seconds
        self._waits[task] = when, task.cancelling()
        if self._timer is None:
            self._timer = loop.call_at(when, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = asyncio.current_task(self._loop)
        if task is None or self._waits.pop(task, None) is not None:
            return
        cancelling = self._expired.pop(task)
        if task.uncancel() <= cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        """Interrupt the expired tasks, and set the timer for the next one."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, (when, cancelling) in tuple(self._waits.items()):
            if when > loop.time():
                self._timer = loop.call_at(when, self._expire)
                return
            del self._waits[task]
            self._expired[task] = cancelling
            task.cancel()

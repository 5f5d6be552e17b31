"""Plain asyncio tasks with one owner, which cancels them and waits for them.

A child of an anyio task group costs eight times as much: 18.6 against 2.1 us (Python 3.11). So what runs once for each
request is started here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["OwnedTasks"]


class OwnedTasks:
    """The tasks of one owner.

    Args:
        on_crash: Called with the error of a task that fails.
    """

    def __init__(self, on_crash: Callable[[Exception], object]) -> None:
        self._on_crash = on_crash
        self._running: dict[asyncio.Task[None], Callable[[asyncio.Task[None]], object]] = {}

    def start(
        self, work: Coroutine[Any, Any, None], on_end: Callable[[asyncio.Task[None]], object]
    ) -> asyncio.Task[None]:
        """Run a coroutine in a task.

        Args:
            work: The coroutine.
            on_end: Called with the task when it has ended, even if it was cancelled before its first step.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._running[task] = on_end
        task.add_done_callback(self._end)
        return task

    def cancel(self) -> None:
        """Cancel all tasks."""
        for task in tuple(self._running):
            task.cancel()

    async def wait(self) -> None:
        """Wait until all tasks have ended."""
        while self._running:
            await asyncio.wait(self._running)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task)(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._on_crash(error)

"""SIGTERM ends a command as SIGINT does: by cancelling it, so that it can say what is paid for and not finished."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kontext_async.cli.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["until_terminated"]


async def until_terminated(work: Coroutine[Any, Any, int]) -> int:
    """Await a command's work; on SIGTERM, cancel it.

    Returns:
        Its exit code, or that of a terminated process.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if task:
            task.cancel()

    with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows has no such handlers, nor have threads
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await work
    except asyncio.CancelledError:
        if terminated:
            return ExitCode.TERMINATED
        raise
    finally:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGTERM)

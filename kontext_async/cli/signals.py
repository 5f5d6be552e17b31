"""What SIGINT and SIGTERM do to a command: they cancel it, so that it can say what is paid for and not finished.

A command that can end well is asked to first, and cancelled by the second signal. A third one finds no handler.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kontext_async.cli.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["until_terminated"]

CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


async def until_terminated(work: Coroutine[Any, Any, int], *, stop: Callable[[], object] | None = None) -> int:
    """Await a command's work.

    Args:
        work: The command's work.
        stop: Asks it to end well; None where it cannot. With it, SIGINT is taken care of, too.

    Returns:
        Its exit code, or that of a terminated process, if it was and is not done.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    received: list[signal.Signals] = []
    watched = CODES if stop else (signal.SIGTERM,)

    def receive(number: signal.Signals) -> None:
        received.append(number)
        if stop and len(received) == 1:
            stop()
            return
        for each in watched:
            _unwatch(loop, each)
        if task:
            task.cancel()

    for each in watched:
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows has no such handlers, nor have threads
            loop.add_signal_handler(each, receive, each)
    try:
        code = await work
    except asyncio.CancelledError:
        if received:
            return CODES[received[0]]
        raise
    finally:
        for each in watched:
            _unwatch(loop, each)
    return CODES[received[0]] if received and code != ExitCode.DONE else code


def _unwatch(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.remove_signal_handler(number)

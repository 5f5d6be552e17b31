"""SIGINT and SIGTERM cancel a command, so that it can print which tasks are billed but not saved.

A command that can stop in order is stopped by the first signal and cancelled by the second. After that the handlers
are gone, and a third signal ends the process.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kontext_async.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["run_with_signals"]

EXIT_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


async def run_with_signals(work: Coroutine[Any, Any, int], *, stop: Callable[[], object] | None = None) -> int:
    """Await a command's work, and handle signals meanwhile.

    Args:
        work: The command's work. It returns the exit code.
        stop: Stops the work in order; the first signal calls it. None cancels the work at the first SIGTERM, and
            leaves SIGINT to asyncio, which cancels it too.

    Returns:
        The exit code of the work; that of the signal, if the signal kept the work from being done.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    received: list[signal.Signals] = []
    handled = EXIT_CODES if stop else (signal.SIGTERM,)

    def receive(number: signal.Signals) -> None:
        received.append(number)
        if stop and len(received) == 1:
            stop()
            return
        for each in handled:
            _remove_handler(loop, each)
        if task:
            task.cancel()

    for each in handled:
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not on Windows, and not outside the main thread
            loop.add_signal_handler(each, receive, each)
    try:
        code = await work
    except asyncio.CancelledError:
        if received:
            return EXIT_CODES[received[0]]
        raise
    finally:
        for each in handled:
            _remove_handler(loop, each)
    return EXIT_CODES[received[0]] if received and code != ExitCode.DONE else code


def _remove_handler(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    with suppress(NotImplementedError, RuntimeError, ValueError):  # where none could be added
        loop.remove_signal_handler(number)

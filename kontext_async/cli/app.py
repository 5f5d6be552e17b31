"""The commands and their common frame: what is parsed, what is run, and what a failure of each kind exits with."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError, Parameter

from kontext_async.cli.bulk import bulk
from kontext_async.cli.emulator import emulator
from kontext_async.cli.exits import ExitCode, cause_of, exit_code_of
from kontext_async.cli.fetch import fetch
from kontext_async.cli.generate import generate
from kontext_async.cli.invocation import invoked_with
from kontext_async.cli.output import one_line
from kontext_async.cli.report import report
from kontext_async.cli.status import status
from kontext_async.errors import KontextError
from kontext_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "run"]

app = App(
    name="kontext-async",
    help="Make and edit images with FLUX.1 Kontext [pro].",
    help_epilogue=(
        "The key comes from KONTEXT_API_KEY or --key-file, the gateway's address from KONTEXT_BASE_URL or --base-url. "
        "Exit codes: 0 all done, 1 some failed, 2 misuse, 3 key or balance, 4 uncertain whether it was accepted, "
        "130 interrupted, 143 terminated."
    ),
    help_format="plaintext",
    version=__version__,
    default_parameter=Parameter(negative=()),
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
for command in (generate, bulk, report, status, fetch, emulator):
    app.command(command)


def run(arguments: Sequence[str]) -> int:
    """Run a command, and say in one line what went wrong.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    invoked_with(arguments)
    try:
        return int(app(arguments) or ExitCode.DONE)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 # nobody is shown a traceback
        cause = cause_of(error)
        if isinstance(cause, BrokenPipeError):
            _close_stdout()
        else:
            sys.stderr.write(f"error: {_text_of(cause)}\n")
        return exit_code_of(cause)


def _text_of(error: BaseException) -> str:
    if isinstance(error, KontextError | CycloptsError):
        return one_line(str(error))
    return one_line(f"this should not have happened: {error!r}")


def _close_stdout() -> None:
    """Nobody reads any more, and nothing shall complain of it when the interpreter flushes at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)

"""The frame of all commands: registers them by name, parses the arguments, and turns errors into exit codes.

A command's module is imported only if that command is called, and ``--help`` imports none: aiohttp alone takes longer
to import than everything that help needs.
"""

from __future__ import annotations

import shlex
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError, Parameter

from kontext_async.base_errors import KontextError, unwrap_group
from kontext_async.cli.exit_codes import ExitCode, exit_code_for
from kontext_async.cli.output import to_one_line
from kontext_async.cli.passwords import hide_passwords
from kontext_async.cli.streams import cannot_be_written, discard, print_to_stderr
from kontext_async.redaction import redact_text
from kontext_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["COMMANDS", "app", "command_line", "remember_arguments", "remember_key", "run"]

COMMANDS: Mapping[str, str] = {
    "generate": (
        "Generate an image for each prompt, or edit input images, and save the results.\n\n"
        "The command prints the path of each image. A file is named after its prompt and its task ID."
    ),
    "bulk": (
        "Generate an image for each line of a file, in a run that can be resumed.\n\n"
        "The file is .txt (one prompt per line), .jsonl (one string or object per line), .csv or .tsv (with a header). "
        "Columns are named after the request fields; the options below fill in what a line leaves out. Every line is "
        "checked before the first request is submitted.\n\n"
        "To resume a run, however it ended, run the same command again: it skips saved images, fetches accepted tasks, "
        "and pays for nothing twice. DIR receives the images, results.jsonl, index.html (a contact sheet) and the "
        "journal, unless there is a --store.\n\n"
        "Several machines share a run: call the command on each with the same file, --store and --run, and a DIR of "
        "its own."
    ),
    "report": (
        "Regenerate results.jsonl and index.html of a bulk run from its journal.\n\n"
        "With --store and --run they contain the requests of all workers. Nothing is submitted or billed."
    ),
    "status": (
        "Print the current status of each task.\n\n"
        "The exit code is 0 if every status was received, even the status of a failed task."
    ),
    "fetch": (
        "Wait for a task that was submitted earlier, and save its images.\n\n"
        "This costs nothing: the task was billed when the gateway accepted it."
    ),
    "cancel": (
        "Cancel tasks at the gateway, where it can (vtrix-queue).\n\n"
        "The command prints for each task whether that was in time. The exit code is 0 if it was for all of them."
    ),
    "balance": ("Print the balance of the account in USD.\n\nFireworks does not state it."),
    "emulator": (
        "Run an emulator of the gateway, to try and test things without an API key and at no cost.\n\n"
        "The first line on stdout is its address. Press Ctrl-C to stop it."
    ),
}
"""The help text of each command. The list of commands shows the first paragraph."""

arguments_in_use: ContextVar[tuple[str, ...]] = ContextVar("arguments_in_use", default=())

secrets_in_use: set[str] = set()
"""The API keys of this process. A command runs in a context of its own, whose variables its end discards."""

app = App(
    name="kontext-async",
    help="Generate and edit images with FLUX.1 Kontext [pro].",
    help_epilogue=(
        "The API key comes from KONTEXT_API_KEY or --key-file (for bfl, BFL_API_KEY comes first), the gateway from "
        "KONTEXT_GATEWAY or --gateway, its address from KONTEXT_BASE_URL or --base-url. Exit codes: 0 all done, 1 some "
        "failed, 2 usage error, 3 API key or balance refused, 4 uncertain whether the gateway accepted a request, 130 "
        "interrupted, 143 terminated."
    ),
    help_format="plaintext",
    version=__version__,
    default_parameter=Parameter(negative=()),
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
for name, text in COMMANDS.items():
    app.command(f"kontext_async.cli.commands.{name}:{name}", name=name, help=text)


def run(arguments: Sequence[str]) -> int:
    """Run a command, and print any error in one line.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    remember_arguments(arguments)
    try:
        return int(app(arguments) or ExitCode.DONE)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 # users see a line, not a traceback
        cause = unwrap_group(error)
        if isinstance(cause, BrokenPipeError):  # the reader of stdout is gone, and knows it
            discard(sys.stdout)
        else:
            print_to_stderr(f"error: {_error_text(cause)}")
        return exit_code_for(cause)


def remember_arguments(arguments: Sequence[str]) -> None:
    """Keep the arguments of this call for `command_line`."""
    arguments_in_use.set(tuple(arguments))


def remember_key(key: str) -> None:
    """Keep the API key of this call, so that the report of an unexpected failure can leave it out."""
    secrets_in_use.add(key)


def command_line() -> str:
    """Return this call as a line for a shell, so that a command can print how to resume it.

    ``***`` stands for the users and passwords of URLs.
    """
    arguments = (hide_passwords(each) for each in arguments_in_use.get())
    return shlex.join(["kontext-async", *arguments])


def _error_text(error: BaseException) -> str:
    if isinstance(error, KontextError | CycloptsError):
        return to_one_line(str(error))
    if isinstance(error, OSError) and cannot_be_written(sys.stdout):  # `Output` does not print the help
        discard(sys.stdout)
        return f"stdout cannot be written: {error.strerror or error}"
    text = repr(error)
    for secret in secrets_in_use:
        text = redact_text(text, secret)
    return to_one_line(f"unexpected failure, please report it as a bug: {text}")

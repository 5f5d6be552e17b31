"""Validates a prompt file before anything is submitted, shows how far it is, and reports what is wrong with it."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from anyio import to_thread

from kontext_async.bulk import validate_requests
from kontext_async.cli.exit_codes import ExitCode
from kontext_async.cli.progress import PeriodicLines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from kontext_async.bulk import ValidationProgress, ValidationReport
    from kontext_async.cli.output import Output

__all__ = ["refuse_file", "validate_file"]

MAX_INVALID_LINES = 20
"""Invalid lines to print before the rest of the file is left unread."""


async def validate_file(file: Path, fields: Mapping[str, Any], output: Output) -> ValidationReport:
    """Validate a prompt file in a worker thread. If the caller is cancelled, the thread ends soon after.

    Args:
        file: The prompt file.
        fields: The fields that a line may leave out.
        output: Where to print how far it is, and which columns are ignored.

    Raises:
        InvalidRequest: The file does not exist, cannot be read, or has an unknown extension.
    """
    lines = PeriodicLines(output, partial(_describe, file))
    cancelled = threading.Event()

    def report(progress: ValidationProgress) -> None:
        if cancelled.is_set():
            raise InterruptedError("the command was cancelled")
        lines(progress)

    validate = partial(validate_requests, file, defaults=fields, max_invalid=MAX_INVALID_LINES, on_progress=report)
    try:
        validation = await to_thread.run_sync(validate, abandon_on_cancel=True)
    finally:
        cancelled.set()
    if validation.ignored:
        output.note(f"ignored columns: {', '.join(validation.ignored)}")
    return validation


def refuse_file(file: Path, validation: ValidationReport, output: Output) -> ExitCode:
    """Print what is wrong with a prompt file, and return the exit code."""
    for each in validation.invalid:
        output.error(each)
    if not validation.invalid:
        output.error(f"{file} contains no requests")
    elif len(validation.invalid) == MAX_INVALID_LINES:
        output.error(f"too many invalid lines: the rest of {file} was not checked")
    output.note("Nothing was submitted or billed.")
    return ExitCode.USAGE_ERROR


def _describe(file: Path, progress: ValidationProgress) -> str:
    share = progress.position / progress.size if progress.size else 1
    return f"checking {file.name}: line {progress.line}, {min(share, 1):.0%} of the file"

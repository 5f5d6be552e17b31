"""Prints results on stdout and everything else on stderr, one line each."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from kontext_async.base_errors import KontextError
from kontext_async.cli.streams import discard, print_to_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal
    from pathlib import Path

    from kontext_async.cli.options import OutputOptions
    from kontext_async.models import KontextRequest

__all__ = ["Output", "OutputFailed", "Result", "count_of", "error_to_json", "to_one_line"]


def to_one_line(text: str) -> str:
    """Return foreign text as one line that is safe to print on a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or the plural: ``1 task``, ``2 tasks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def error_to_json(error: KontextError | None) -> dict[str, Any] | None:
    """Return an error as an object for machines; None for None."""
    if error is None:
        return None
    from kontext_async.store.records import error_to_dict  # noqa: PLC0415 # help does without

    return error_to_dict(error)


class OutputFailed(KontextError):
    """The results cannot be printed, because stdout cannot be written: its disk is full, for example."""


@frozen(kw_only=True)
class Result:
    """The result of one request.

    Attributes:
        index: The request's position among the requests, from 0.
        request: The request; None if it is not known here.
        task_id: The task ID; None if there is no task.
        paths: The paths of the saved images.
        cost: USD; None if it is not known.
        error: The error; None if the images are saved.
    """

    index: int
    request: KontextRequest | None = None
    task_id: str | None = None
    paths: Sequence[Path] = ()
    cost: Decimal | None = None
    error: KontextError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as an object for machines."""
        return {
            "index": self.index,
            "task_id": self.task_id,
            "prompt": self.request.prompt if self.request else None,
            "seed": self.request.seed if self.request else None,
            "paths": [str(path) for path in self.paths],
            "cost": None if self.cost is None else str(self.cost),
            "error": error_to_json(self.error),
        }


@define
class Output:
    """Prints for people or for machines.

    Attributes:
        options: The output options of the command.
        print_above: Prints a line above the progress bar, while there is one on the terminal.
    """

    options: OutputOptions
    print_above: Callable[[str], object] | None = field(default=None)
    _failure: OSError | None = field(default=None, init=False)

    def result(self, result: Result) -> None:
        """Print the result of a request."""
        if self.options.json:
            self.out(json.dumps(result.to_json()))
        else:
            for path in result.paths:
                self.out(str(path))
        if result.error:
            prefix = f"request {result.index}: " if result.request else ""
            self.error(f"{prefix}{result.error}")

    def out(self, line: str) -> None:
        """Print a line of the results. One that stdout does not take appears on stderr: it may name what is paid for.

        Raises:
            BrokenPipeError: The reader of stdout is gone.
            OutputFailed: Stdout cannot be written.
        """
        if self.print_above and sys.stdout.isatty():
            self.print_above(line)
            return
        try:
            if self._failure:
                raise self._failure
            print(line, flush=True)  # noqa: T201 # this is where the command prints
        except OSError as error:
            self._failure = error
            discard(sys.stdout)
            if isinstance(error, BrokenPipeError):
                raise
            self.warn(f"not printed: {line}")
            raise OutputFailed(f"stdout cannot be written: {error.strerror or error}") from error

    def error(self, text: object) -> None:
        """Print an error."""
        self._print_to_stderr(f"error: {to_one_line(str(text))}")

    def note(self, text: str) -> None:
        """Print a message, unless the user chose ``--quiet``."""
        if not self.options.quiet:
            self._print_to_stderr(to_one_line(text))

    def warn(self, text: str) -> None:
        """Print a message even with ``--quiet``, such as the IDs of tasks that are billed but not saved."""
        self._print_to_stderr(to_one_line(text))

    def _print_to_stderr(self, line: str) -> None:
        if self.print_above:
            try:
                self.print_above(line)
            except OSError:  # the terminal is gone; nothing ends because a message cannot be printed
                self.print_above = None
        else:
            print_to_stderr(line)

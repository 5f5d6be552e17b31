"""What is printed where: results on stdout, everything else on stderr, a line each."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal
    from pathlib import Path

    from kontext_async.cli.options import OutputOptions
    from kontext_async.errors import KontextError
    from kontext_async.models import KontextRequest

__all__ = ["Output", "Result", "error_as_json", "one_line"]


def one_line(text: str) -> str:
    """A text that came from elsewhere, safe to be shown in a line of a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def error_as_json(error: KontextError | None) -> dict[str, Any] | None:
    """An error as an object for machines; None for none."""
    if error is None:
        return None
    from kontext_async.bulk.records import error_record  # noqa: PLC0415 # help pages do without

    return error_record(error)


@frozen(kw_only=True)
class Result:
    """What became of one request.

    Attributes:
        index: Its place among the requests, from 0.
        request: What was asked for, None when that is not known here.
        task_id: The task's id, None where there is no task.
        paths: Where its pictures are.
        cost: USD, None where that is not known.
        error: Why it failed, None where it did not.
    """

    index: int
    request: KontextRequest | None = None
    task_id: str | None = None
    paths: Sequence[Path] = ()
    cost: Decimal | None = None
    error: KontextError | None = None

    def as_json(self) -> dict[str, Any]:
        """The object for machines."""
        return {
            "index": self.index,
            "task_id": self.task_id,
            "prompt": self.request.prompt if self.request else None,
            "seed": self.request.seed if self.request else None,
            "paths": [str(path) for path in self.paths],
            "cost": None if self.cost is None else str(self.cost),
            "error": error_as_json(self.error),
        }


@define
class Output:
    """Prints for people or for machines.

    Attributes:
        options: What the user wants to see.
        above: Prints a line above a display that is redrawn, while there is one on the terminal.
    """

    options: OutputOptions
    above: Callable[[str], object] | None = field(default=None)

    def result(self, result: Result) -> None:
        """Print what became of a request."""
        if self.options.json:
            self.out(json.dumps(result.as_json()))
        else:
            for path in result.paths:
                self.out(str(path))
        if result.error:
            where = f"request {result.index}: " if result.request else ""
            self.error(f"{where}{result.error}")

    def out(self, line: str) -> None:
        """Print a line of the results."""
        if self.above and sys.stdout.isatty():
            self.above(line)
        else:
            print(line, flush=True)  # noqa: T201 # this is where the command prints

    def error(self, text: object) -> None:
        """Print what went wrong."""
        self._err(f"error: {one_line(str(text))}")

    def note(self, text: str) -> None:
        """Print what is good to know."""
        if not self.options.quiet:
            self._err(one_line(text))

    def warn(self, text: str) -> None:
        """Print what must be known: the ids of what is paid for, above all."""
        self._err(one_line(text))

    def _err(self, line: str) -> None:
        if self.above:
            self.above(line)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 # as above

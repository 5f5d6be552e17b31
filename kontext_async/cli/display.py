"""The display of a run on a terminal, drawn by rich."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kontext_async.cli.figures import rate_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.cli.figures import Figures
    from kontext_async.events import Event

__all__ = ["Display"]

SECONDS_PER_UPDATE = 0.1
COLUMNS = (
    BarColumn(bar_width=24),
    MofNCompleteColumn(),
    TextColumn("{task.fields[in_flight]} in flight"),
    TextColumn("{task.fields[failed]} failed"),
    TextColumn("{task.fields[spent]} USD"),
    TextColumn("{task.fields[rate]:.1f}/s"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class Display:
    """A line at the foot of the terminal. It goes when it is left: what stays is printed above it.

    Args:
        statistics: The figures of the moment.
        total: How many requests there are.
        console: The terminal; None is the one of stderr.
    """

    def __init__(self, statistics: Callable[[], Figures], total: int, console: Console | None = None) -> None:
        self._statistics = statistics
        self._progress = Progress(
            *COLUMNS,
            console=console or Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=8,
        )
        self._bar = self._progress.add_task("", total=total, in_flight=0, failed=0, spent="0", rate=0.0)
        self._began = time.monotonic()
        self._updated = 0.0

    def __call__(self, _: Event) -> None:
        """Something happened: draw anew, unless that was done just now."""
        now = time.monotonic()
        if now - self._updated >= SECONDS_PER_UPDATE:
            self._updated = now
            self.update()

    def update(self) -> None:
        """Show the figures of this moment."""
        figures = self._statistics()
        elapsed = max(time.monotonic() - self._began, SECONDS_PER_UPDATE)
        self._progress.update(
            self._bar,
            completed=figures.completed + figures.failed,
            in_flight=figures.in_flight,
            failed=figures.failed,
            spent=figures.spent,
            rate=rate_of(figures, elapsed),
        )

    def print(self, line: str) -> None:
        """Print a line above."""
        self._progress.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        self._progress.stop()

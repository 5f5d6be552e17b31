"""The progress bar on a terminal, drawn by rich."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from kontext_async.cli.outages import OutageNotice

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.cli.progress_counts import ProgressCounts
    from kontext_async.events import Event

__all__ = ["ProgressBar"]

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


class _OutageColumn(ProgressColumn):
    """Shows that submitting is paused. It is drawn several times per second, so that the seconds count down."""

    def __init__(self, outage: OutageNotice) -> None:
        super().__init__()
        self._outage = outage

    def render(self, task: Task) -> Text:  # noqa: ARG002 # rich's signature
        return Text(self._outage.describe())


class ProgressBar:
    """A live line at the bottom of the terminal. It disappears at the end; lines printed above it stay.

    Args:
        counts: Returns the current figures.
        total: The number of requests.
        console: The terminal; None is that of stderr.
    """

    def __init__(self, counts: Callable[[], ProgressCounts], total: int, console: Console | None = None) -> None:
        self._counts = counts
        self._outage = OutageNotice()
        self._progress = Progress(
            *COLUMNS,
            _OutageColumn(self._outage),
            console=console or Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=8,
        )
        self._bar = self._progress.add_task("", total=total, in_flight=0, failed=0, spent="0", rate=0.0)
        self._began = time.monotonic()
        self._updated = 0.0

    def __call__(self, event: Event) -> None:
        """Update the line, unless the last update is recent. Print why submitting stops, and when it continues."""
        if line := self._outage.record(event):
            self.print(line)
        now = time.monotonic()
        if now - self._updated >= SECONDS_PER_UPDATE:
            self._updated = now
            self.update()

    def update(self) -> None:
        """Show the current figures."""
        counts = self._counts()
        elapsed = max(time.monotonic() - self._began, SECONDS_PER_UPDATE)
        self._progress.update(
            self._bar,
            completed=counts.completed + counts.failed,
            in_flight=counts.in_flight,
            failed=counts.failed,
            spent=counts.spent,
            rate=counts.rate(elapsed),
        )

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        self._progress.stop()

"""Shows the progress of a command: a live line if stderr is a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from kontext_async.cli.outages import OutageNotice
from kontext_async.cli.progress_counts import ProgressCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kontext_async.cli.output import Output
    from kontext_async.events import Event
    from kontext_async.session import KontextSession

__all__ = ["PeriodicLines", "ProgressLines", "show_progress"]

SECONDS_PER_LINE = 5.0

ProgressT = TypeVar("ProgressT")


class ProgressLines:
    """Prints a line every few seconds, as long as there are events, and one when submitting stops or continues.

    Args:
        output: The output to print to.
        counts: Returns the current figures.
        total: The number of requests.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        output: Output,
        counts: Callable[[], ProgressCounts],
        total: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._counts = counts
        self._total = total
        self._clock = clock
        self._outage = OutageNotice(clock)
        self._began = self._printed = clock()

    def __call__(self, event: Event) -> None:
        """Print a line, unless the last one is recent."""
        if line := self._outage.record(event):
            self._output.note(line)
        now = self._clock()
        if now - self._printed < SECONDS_PER_LINE:
            return
        self._printed = now
        counts = self._counts()
        line = (
            f"{counts.completed} of {self._total} done, {counts.in_flight} in flight, {counts.failed} failed, "
            f"{counts.spent} USD spent, {counts.rate(now - self._began):.1f}/s"
        )
        self._output.note("; ".join(part for part in (line, self._outage.describe()) if part))


class PeriodicLines(Generic[ProgressT]):
    """Prints every few seconds how far something is. With ``--quiet``, nothing is printed.

    Args:
        output: The output to print to.
        describe: Returns the line for a state of the work.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, output: Output, describe: Callable[[ProgressT], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._output = output
        self._describe = describe
        self._clock = clock
        self._printed = clock()

    def __call__(self, progress: ProgressT) -> None:
        """Print a line, unless the last one is recent."""
        now = self._clock()
        if now - self._printed >= SECONDS_PER_LINE:
            self._printed = now
            self._output.note(self._describe(progress))


@contextmanager
def show_progress(
    session: KontextSession, output: Output, total: int, counts: Callable[[], ProgressCounts] | None = None
) -> Iterator[None]:
    """Show the progress of a session, or of a durable run that uses it, until the context is left.

    With ``--quiet``, nothing is shown.

    Args:
        session: The session; each of its events may update what is shown.
        output: The output to print to.
        total: The number of requests.
        counts: Returns the current figures; None uses those of the session.
    """
    counts = counts or (lambda: _session_counts(session))
    if output.options.quiet:
        yield
    elif sys.stderr.isatty():
        from kontext_async.cli.progress_bar import ProgressBar  # noqa: PLC0415 # rich is slow to import

        with ProgressBar(counts, total) as bar:
            output.print_above = bar.print
            unsubscribe = session.subscribe(bar)
            try:
                yield
            finally:
                unsubscribe()
                output.print_above = None
    else:
        unsubscribe = session.subscribe(ProgressLines(output, counts, total))
        try:
            yield
        finally:
            unsubscribe()


def _session_counts(session: KontextSession) -> ProgressCounts:
    statistics = session.statistics()
    return ProgressCounts(
        completed=statistics.completed,
        failed=statistics.failed,
        in_flight=statistics.in_flight,
        spent=statistics.spent,
    )

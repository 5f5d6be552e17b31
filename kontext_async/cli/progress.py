"""Shows how a run is getting on: a display where stderr is a terminal, an occasional line where it is not."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kontext_async.cli.figures import rate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kontext_async.cli.figures import Figures
    from kontext_async.cli.output import Output
    from kontext_async.events import Event
    from kontext_async.session import KontextSession

__all__ = ["PlainProgress", "shown_progress"]

SECONDS_PER_LINE = 5.0


class PlainProgress:
    """Prints a line every few seconds, while something happens.

    Args:
        output: Where it is printed.
        statistics: The figures of the moment.
        total: How many requests there are.
        clock: Seconds.
    """

    def __init__(
        self,
        output: Output,
        statistics: Callable[[], Figures],
        total: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._statistics = statistics
        self._total = total
        self._clock = clock
        self._began = self._printed = clock()

    def __call__(self, _: Event) -> None:
        """Print a line, when the last one is long enough ago."""
        now = self._clock()
        if now - self._printed < SECONDS_PER_LINE:
            return
        self._printed = now
        figures = self._statistics()
        self._output.note(
            f"{figures.completed} of {self._total} done, {figures.in_flight} in flight, {figures.failed} failed, "
            f"{figures.spent} USD spent, {rate_of(figures, now - self._began):.1f}/s"
        )


@contextmanager
def shown_progress(
    session: KontextSession, output: Output, total: int, figures: Callable[[], Figures] | None = None
) -> Iterator[None]:
    """Show how a session, or a durable run over it, is getting on, in the way that suits stderr.

    With ``--quiet``, nothing is shown.

    Args:
        session: Its events are when something is shown anew.
        output: What shows it.
        total: How many requests there are.
        figures: The figures of the moment; None for the session's.
    """
    figures = figures or session.statistics
    if output.options.quiet:
        yield
    elif sys.stderr.isatty():
        from kontext_async.cli.display import Display  # noqa: PLC0415 # rich takes its time

        with Display(figures, total) as display:
            output.above = display.print
            unsubscribe = session.subscribe(display)
            try:
                yield
            finally:
                unsubscribe()
                output.above = None
    else:
        unsubscribe = session.subscribe(PlainProgress(output, figures, total))
        try:
            yield
        finally:
            unsubscribe()

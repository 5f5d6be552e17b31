"""Progress as occasional lines, and as a bar on a terminal."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import TYPE_CHECKING

from cli_support import make_abandoned
from rich.console import Console

from kontext_async.cli.options import OutputOptions
from kontext_async.cli.output import Output
from kontext_async.cli.progress import PeriodicLines, ProgressLines
from kontext_async.cli.progress_bar import ProgressBar
from kontext_async.cli.progress_counts import ProgressCounts

if TYPE_CHECKING:
    import pytest


def make_counts(completed: int, *, failed: int, in_flight: int, skipped: int = 0) -> ProgressCounts:
    return ProgressCounts(
        completed=completed, failed=failed, in_flight=in_flight, spent=Decimal("1.20"), skipped=skipped
    )


def test_line_is_printed_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    progress = ProgressLines(
        Output(OutputOptions()), lambda: make_counts(30, in_flight=4, failed=1), 50, clock=lambda: now
    )
    progress(make_abandoned("a"))
    assert capsys.readouterr().err == ""
    now = 106.0
    progress(make_abandoned("a"))
    progress(make_abandoned("a"))
    assert capsys.readouterr().err == "30 of 50 done, 4 in flight, 1 failed, 1.20 USD spent, 5.0/s\n"


def test_state_of_other_work_is_printed_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    progress = PeriodicLines[int](Output(OutputOptions()), lambda read: f"{read} of 50 read", clock=lambda: now)
    for read, now in [(10, 104.0), (20, 105.0), (30, 109.0), (40, 111.0)]:  # noqa: B007 # the clock reads it
        progress(read)
    assert capsys.readouterr().err == "20 of 50 read\n40 of 50 read\n"


def test_state_of_other_work_is_not_printed_with_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([100.0, 200.0])
    PeriodicLines[int](Output(OutputOptions(quiet=True)), str, clock=lambda: next(times))(1)
    assert capsys.readouterr().err == ""


def test_bar_shows_the_counts_and_prints_lines_above() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    with ProgressBar(lambda: make_counts(3, failed=1, in_flight=2), 9, console) as bar:
        bar(make_abandoned("a"))
        bar(make_abandoned("a"))
        bar.print("[a line]")
    text = screen.getvalue()
    for words in ("4/9", "2 in flight", "1 failed", "1.20 USD", "[a line]"):
        assert words in text


def test_rate_leaves_out_requests_that_were_done_before() -> None:
    assert make_counts(30, failed=0, in_flight=0, skipped=20).rate(5) == 2

"""Outages: in the progress display, and what the commands make of them."""

from __future__ import annotations

import io
import math
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
from cli_support import NOW, make_abandoned
from rich.console import Console

from kontext_async import GatewayUnavailable, Settings
from kontext_async.cli import options
from kontext_async.cli.options import OutputOptions
from kontext_async.cli.outages import OutageNotice
from kontext_async.cli.output import Output
from kontext_async.cli.progress import ProgressLines
from kontext_async.cli.progress_bar import ProgressBar
from kontext_async.cli.progress_counts import ProgressCounts
from kontext_async.events import CircuitClosed, CircuitOpened
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from cli_support import RunCommand, WritePrompts

ERROR = GatewayUnavailable("connection refused")


def opened(seconds: float) -> CircuitOpened:
    return CircuitOpened(at=NOW, error=ERROR, seconds=seconds)


def make_counts() -> ProgressCounts:
    return ProgressCounts(completed=3, failed=0, in_flight=2, spent=Decimal("0.12"))


def test_notice_counts_down_to_the_next_probe() -> None:
    now = 100.0
    notice = OutageNotice(clock=lambda: now)
    assert notice.describe() == ""
    assert notice.record(make_abandoned("a")) is None
    assert notice.record(opened(4)) == "submitting paused: connection refused; next probe in 4 s"
    now = 101.5
    assert notice.describe() == "submitting paused; next probe in 3 s"
    now = 105.0
    assert notice.describe() == "submitting paused; probing"
    assert notice.record(CircuitClosed(at=NOW, seconds=5)) == "submitting continues after 5 s"
    assert notice.describe() == ""


def test_notice_names_the_reason_why_submitting_stopped_for_good() -> None:
    notice = OutageNotice()
    assert notice.record(opened(math.inf)) == "submitting stopped: connection refused"
    assert notice.describe() == "submitting stopped"


def test_lines_show_an_outage_at_once_and_as_long_as_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    progress = ProgressLines(Output(OutputOptions()), make_counts, 50, clock=lambda: now)
    progress(opened(4))
    assert capsys.readouterr().err == "submitting paused: connection refused; next probe in 4 s\n"
    now = 106.0
    progress(make_abandoned("a"))
    assert capsys.readouterr().err.endswith("0.5/s; submitting paused; probing\n")
    progress(CircuitClosed(at=NOW, seconds=6))
    assert capsys.readouterr().err == "submitting continues after 6 s\n"


def test_bar_shows_an_outage() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, color_system=None)
    with ProgressBar(make_counts, 9, console) as bar:
        bar(opened(4))
        assert "submitting paused: connection refused; next probe in 4 s\n" in screen.getvalue()
        bar.update()
    assert "submitting paused; next probe in 4 s" in screen.getvalue()


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead the commands to a port where nobody listens, and let them give up quickly."""
    monkeypatch.setenv("KONTEXT_API_KEY", "some-key")
    monkeypatch.setenv("KONTEXT_BASE_URL", "http://127.0.0.1:9")
    outages = attrs.evolve(FAST.outages, wait=0.3)
    monkeypatch.setattr(options, "Settings", partial(Settings, retries=FAST.retries, outages=outages))


@pytest.mark.parametrize("choice", [("--on-outage", "stop"), ("--outage-timeout", "300ms")])
def test_bulk_ends_without_a_failed_request(
    choice: tuple[str, str], unreachable: None, command: RunCommand, prompts: WritePrompts
) -> None:
    ran = command("bulk", prompts(5), "--out", "out", *choice)
    assert (ran.code, ran.out) == (1, "")
    assert ran.messages[0].startswith("submitting paused: no response to a create request: ")
    assert ran.messages[0].endswith("next probe in 1 s")
    assert any(line.startswith("error: 5 requests not submitted: ") for line in ran.messages)
    assert "0 done, 0 failed, 0 uncertain, 0 USD spent" in ran.err
    assert ran.messages[-1].startswith("To resume: kontext-async bulk p.txt --out out ")


def test_generate_fails_requests_that_waited_for_the_end_of_an_outage(unreachable: None, command: RunCommand) -> None:
    ran = command("generate", "a fox", "a hare", "--json")
    assert ran.code == 1
    assert {each["error"]["type"] for each in ran.objects} == {"GatewayOutage"}
    assert "nothing was sent" in ran.err
    assert "0 done, 2 failed, 0 uncertain" in ran.err

"""The library's log on stderr and in a file; and that nothing shows the key, whatever a gateway echoes."""

from __future__ import annotations

import logging
import re
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kontext_async import Settings
from kontext_async.cli import options
from kontext_async.cli.logs import show_log
from kontext_async.cli.options import OutputOptions
from kontext_async.cli.output import Output
from kontext_async.emulator import Fault, FaultKind
from kontext_async.emulator.fault_specs import FAULT_SPECS
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from cli_support import RunCommand, Serve, WritePrompts

LINE = re.compile(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO|WARNING|ERROR) \S.*")
LOGGER = logging.getLogger("kontext_async")


def test_verbose_prints_the_log_on_stderr(command: RunCommand) -> None:
    ran = command("generate", "a fox", "--emulator", "--verbose")
    assert ran.code == 0
    assert "ledger: 1 accepted, 1 billed, 0.04 USD" in ran.err
    lines = [line for line in ran.messages if LINE.fullmatch(line)]
    for words in (
        r"INFO session with http://127.0.0.1:\d+ started",
        r"DEBUG create request, attempt 1: 200 after \d+\.\d ms, task \S+",
        r"INFO task \S+: accepted as in_progress",
        r"DEBUG status request, attempt 1: 200 after \d+\.\d ms, task \S+",
        r"INFO task \S+: completed after \d+\.\d\d s, 0\.04 USD",
        r"DEBUG download request, attempt 1: 200 after \d+\.\d ms, task \S+",
        r"INFO task \S+: downloaded \d+ bytes to \S+\.jpg",
        r"INFO session with http://127.0.0.1:\d+ closed",
    ):
        assert any(re.search(words, line) for line in lines), words


def test_log_file_has_the_log_even_of_a_quiet_command(serve: Serve, command: RunCommand, tmp_path: Path) -> None:
    emulator = serve()
    emulator.faults.script("create", [Fault(kind=FaultKind.RATE_LIMITED, retry_after=0.01)])
    for _ in range(2):
        ran = command("generate", "a fox", "--quiet", "--log-file", "log", "--out", "images")
        assert (ran.code, ran.err) == (0, "")
    path = tmp_path / "log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = path.read_text().splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert sum(line.endswith(f"session with {emulator.base_url} started") for line in lines) == 2
    assert any(" WARNING " in line and "slow down: no create requests for" in line for line in lines)
    assert all(any(task_id in line for line in lines) for task_id in emulator.ledger.task_ids)


def test_without_the_options_nothing_is_logged(serve: Serve, command: RunCommand) -> None:
    serve().faults.script("create", ["failed-at-once"])
    ran = command("generate", "a fox", "--quiet")
    assert len(ran.messages) == 1, "a logger without handlers prints warnings on stderr"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_log_file_is_reported_once_and_ends_nothing(serve: Serve, command: RunCommand) -> None:
    serve()
    ran = command("generate", "a fox", "--quiet", "--log-file", "/dev/full")
    assert ran.code == 0
    assert ran.err == "the log file /dev/full cannot be written any longer: No space left on device\n"


def test_the_logger_is_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers))
    with show_log(Output(OutputOptions(verbose=True, log_file=tmp_path / "log"))):
        LOGGER.debug("a %s\nin two lines", "message")
    assert (LOGGER.level, LOGGER.propagate, LOGGER.handlers) == before
    assert capsys.readouterr().err.endswith(" DEBUG a message in two lines\n")
    assert (tmp_path / "log").read_text().endswith(" DEBUG a message in two lines\n")


KEY = "sk-kontext-7f3a9c21d4e8"


def test_the_report_of_an_unexpected_failure_leaves_out_the_key(
    serve: Serve, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError(f"Authorization: Bearer {KEY}")

    serve(api_key=KEY)
    monkeypatch.setenv("KONTEXT_API_KEY", KEY)
    monkeypatch.setattr("kontext_async.session.KontextSession.start", fail)
    ran = command("status", "some-id", "--verbose")
    assert (ran.code, ran.out) == (1, "")
    assert "unexpected failure, please report it as a bug: RuntimeError('Authorization: Bearer ***')" in ran.err


def echoes() -> list[Fault]:
    """Return the faults with which a gateway or a CDN sends back the key, each for one operation."""
    return [
        *(Fault(kind=FaultKind.ECHOED_HEAD, on=on) for on in ("create", "status", "download", "precharge")),
        *(
            Fault(kind=FaultKind.ECHOED_KEY, on=on, variant=variant)
            for on in ("create", "status")
            for variant in FAULT_SPECS[FaultKind.ECHOED_KEY].variants
        ),
        *(
            Fault(kind=FaultKind.ECHOED_KEY_IN_TASK, on=on, variant=variant)
            for on in ("create", "status")
            for variant in FAULT_SPECS[FaultKind.ECHOED_KEY_IN_TASK].variants
        ),
    ]


def name_of(fault: Fault) -> str:
    return "-".join((fault.kind.value, *(fault.on or ()), fault.variant or ""))


@pytest.mark.parametrize("fault", echoes(), ids=name_of)
def test_no_command_shows_a_key_that_is_echoed(
    fault: Fault,
    serve: Serve,
    command: RunCommand,
    prompts: WritePrompts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast = partial(Settings, polling=FAST.polling, retries=FAST.retries, outages=FAST.outages)
    monkeypatch.setattr(options, "Settings", fast)
    emulator = serve(api_key=KEY)
    monkeypatch.setenv("KONTEXT_API_KEY", KEY)
    assert command("generate", "a fox", "--quiet", "--out", "first").code == 0
    known = emulator.ledger.task_ids[0]
    emulator.faults.set_rate(fault, 1.0)
    shown = ""
    for call in (
        ("generate", "a fox", "a hare", "--out", "images", "--timeout", "1s"),
        ("bulk", prompts(3), "--out", "bulk", "--timeout", "1s", "--on-outage", "stop"),
        ("bulk", prompts(3), "--out", "bulk", "--timeout", "1s", "--on-outage", "stop"),
        ("bulk", prompts(3), "--out", "bulk", "--dry-run"),
        ("report", "bulk"),
        ("status", known, "no-such-task"),
        ("fetch", known, "--out", "fox.jpg", "--timeout", "1s"),
    ):
        ran = command(*call, "--verbose", "--json", "--log-file", "log")
        assert "unexpected failure" not in ran.err
        shown += ran.out + ran.err
        for text in (ran.out, ran.err):
            assert KEY not in text, call
            assert KEY[:12] not in text, call
    if fault.kind is FaultKind.ECHOED_KEY and fault.variant != "page":  # texts of others end before their key
        assert "***" in shown
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path

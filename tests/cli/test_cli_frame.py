"""What is common to all commands: imports, missing extras, output, progress, names."""

from __future__ import annotations

import asyncio
import io
import os
import runpy
import signal
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, strategies as st
from rich.console import Console

from kontext_async import (
    Generation,
    KontextRequest,
    Outcome,
    SessionStatistics,
    SubmissionUncertain,
    TaskFailed,
    TaskState,
    TaskStatus,
    Usage,
    __version__,
)
from kontext_async.bulk.names import slug
from kontext_async.cli import app as cli_app, main
from kontext_async.cli.delivery import Feed
from kontext_async.cli.display import Display
from kontext_async.cli.listeners import EventLines, Lost, Paid
from kontext_async.cli.names import name_by_task
from kontext_async.cli.options import OutputOptions
from kontext_async.cli.output import Output, one_line
from kontext_async.cli.progress import PlainProgress
from kontext_async.events import Abandoned, Accepted, Event, Failed, StatusReceived, Throttled

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
PYTHON = [sys.executable, "-m", "kontext_async.cli"]


def run_python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=30, **options
    )


def test_help_is_there_before_anything_heavy_is_imported() -> None:
    ran = run_python(
        "-c",
        "import sys\n"
        "from kontext_async.cli import main\n"
        "commands = ([], ['generate'], ['bulk'], ['report'], ['status'], ['fetch'], ['emulator'])\n"
        "assert all(main([*command, '--help']) == 0 for command in commands)\n"
        "heavy = {'aiohttp', 'PIL', 'anyio', 'asyncio', 'cattrs', 'kontext_async.session', 'kontext_async.emulator',\n"
        "         'rich.progress', 'markdown_it', 'docutils'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)",
    )
    assert (ran.returncode, ran.stderr) == (0, "[]\n")
    for option in ("--input-image", "--key-file", "--emulator", "--json", "--fault", "cut-after-accept"):
        assert option in ran.stdout


def test_the_session_is_part_of_the_package_though_it_is_imported_late() -> None:
    ran = run_python(
        "-c",
        "import sys, kontext_async\n"
        "assert 'aiohttp' not in sys.modules\n"
        "assert {'KontextSession', 'GenerationTask'} <= set(dir(kontext_async)) & set(kontext_async.__all__)\n"
        "from kontext_async import *\n"
        "assert KontextSession is kontext_async.KontextSession\n"
        "assert GenerationTask.__module__ == 'kontext_async.session'\n"
        "try: kontext_async.Nonsense\n"
        "except AttributeError as error: print(error)",
    )
    assert (ran.stdout, ran.stderr) == ("module 'kontext_async' has no attribute 'Nonsense'\n", "")


def test_version_and_help(command: Any) -> None:
    assert command("--version").out.strip() == __version__
    assert "Exit codes: 0 all done" in command().out


@pytest.mark.parametrize("name", ["cyclopts", "rich"])
def test_without_the_extra(name: str, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    ran = command("--help")
    assert ran.code == 2
    assert ran.err == f"error: the command line needs {name}: pip install 'kontext_async[cli]'\n"


@pytest.mark.parametrize("arguments", [["generate", "a fox", "--emulator"], ["emulator"]])
def test_without_pillow(arguments: list[str], command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    ran = command(*arguments)
    assert (ran.code, ran.err) == (2, "error: the emulator needs Pillow: pip install 'kontext_async[emulator]'\n")


def test_an_accident_is_told_in_one_line(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise ExceptionGroup("several", [RuntimeError("broken\nin two")])

    monkeypatch.setattr(cli_app, "app", broken)
    ran = command("generate", "a fox")
    assert (ran.code, ran.err) == (1, "error: this should not have happened: RuntimeError('broken\\nin two')\n")


def test_a_reader_that_has_gone(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(_: object) -> int:
        raise BrokenPipeError

    closed: list[object] = []
    monkeypatch.setattr(cli_app, "app", cut)
    monkeypatch.setattr(cli_app, "_close_stdout", lambda: closed.append(1))
    ran = command("generate", "a fox")
    assert (ran.code, ran.err, closed) == (1, "", [1])


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["kontext-async", "--version"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("kontext_async.cli", run_name="__main__")
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_arguments_of_the_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["kontext-async", "--version"])
    assert main() == 0
    assert capsys.readouterr().out


def test_a_reader_that_goes_away_loses_no_id(serve: Any, tmp_path: Path) -> None:
    emulator = serve(service_time=0.05)
    (tmp_path / "p.txt").write_text("a fox\n" * 60)
    with subprocess.Popen(  # noqa: S603
        [*PYTHON, "bulk", "p.txt", "--out", "out", "--max-in-flight", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    ) as process:
        assert process.stdout
        assert process.stderr
        printed = process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(20) == 1
    assert printed.startswith("out/0000")
    assert "Traceback" not in errors
    accepted = emulator.ledger.accepted
    assert accepted < 60
    assert errors.splitlines()[-1] == "to go on: kontext-async bulk p.txt --out out --max-in-flight 4"
    again = run_python("-m", "kontext_async.cli", "bulk", "p.txt", "--out", "out", "-q", cwd=tmp_path)
    assert again.returncode in (0, 4)
    on_the_wire = 4 if again.returncode else 0  # a create that was cut off is uncertain, and may not have been accepted
    assert 60 - on_the_wire <= emulator.ledger.accepted <= 60


def test_an_interrupted_process(serve: Any, tmp_path: Path) -> None:
    emulator = serve(service_time=60)
    (tmp_path / "p.txt").write_text("a fox\n" * 60)
    with subprocess.Popen(  # noqa: S603
        [*PYTHON, "bulk", "p.txt", "--out", "out", "--max-in-flight", "3", "-v", "--grace", "0.2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        early = ""
        while early.count(" accepted ") < 3:
            early += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert emulator.ledger.accepted == 3
    assert errors.splitlines()[-1].startswith("to go on: kontext-async bulk p.txt --out out ")


def figures(**values: Any) -> SessionStatistics:
    names = (field.name for field in attrs.fields(SessionStatistics))
    return SessionStatistics(**{**dict.fromkeys(names, 0), "spent": Decimal("1.20"), **values})


def abandoned(task_id: str | None) -> Abandoned:
    return Abandoned(at=NOW, task_id=task_id, fingerprint="f" * 64, reason="gone")


def test_occasional_lines(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    progress = PlainProgress(
        Output(OutputOptions()), lambda: figures(completed=30, in_flight=4, failed=1), 50, clock=lambda: now
    )
    progress(abandoned("a"))
    assert capsys.readouterr().err == ""
    now = 106.0
    progress(abandoned("a"))
    progress(abandoned("a"))
    assert capsys.readouterr().err == "30 of 50 done, 4 in flight, 1 failed, 1.20 USD spent, 5.0/s\n"


def test_the_display() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    with Display(lambda: figures(completed=3, failed=1, in_flight=2), 9, console) as display:
        display(abandoned("a"))
        display(abandoned("a"))
        display.print("[a line]")
    text = screen.getvalue()
    for words in ("4/9", "2 in flight", "1 failed", "1.20 USD", "[a line]"):
        assert words in text


def test_a_run_on_a_terminal(serve: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    ran = command("generate", "a fox", "--out", "out")
    assert ran.code == 0
    assert len(ran.lines) == 1
    assert "1 done, 0 failed" in ran.err


def test_a_run_with_both_streams_on_a_terminal(serve: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve().faults.script("create", ["failed-at-once"])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    ran = command("generate", "a fox", "a wolf", "--out", "out")
    assert ran.out == "", "lines go above the display"
    assert "out/a-" in ran.err
    assert "error: request" in ran.err


def status(state: TaskState = TaskState.IN_PROGRESS, progress: float | None = None) -> TaskStatus:
    return TaskStatus(task_id="id", state=state, raw_status=state.value, progress=progress)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (abandoned(None), "abandoned ffffffffffff gone"),
        (Accepted(at=NOW, task_id="id", status=status()), "accepted id in_progress"),
        (StatusReceived(at=NOW, task_id="id", status=status(progress=0.42)), "asked id in_progress 42%"),
        (Throttled(at=NOW, seconds=2, scope="submit"), "heldback creates wait 2.0 s"),
        (Throttled(at=NOW, seconds=2, scope="poll"), "heldback status requests wait 2.0 s"),
        (Failed(at=NOW, task_id="id", error=TaskFailed(task_id="id", code=None, message="no")), "failed id the task"),
    ],
)
def test_events_as_lines(event: Event, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    EventLines(Output(OutputOptions(quiet=True)))(event)
    time, _, rest = capsys.readouterr().err.partition(" ")
    assert time.endswith("5.678")
    assert rest.startswith(words)


def test_what_is_paid_for() -> None:
    paid = Paid()
    for task_id in ("a", "b", "c"):
        paid(Accepted(at=NOW, task_id=task_id, status=status()))
    paid(Failed(at=NOW, task_id="b", error=TaskFailed(task_id="b", code=None, message="no")))
    paid(abandoned("a"))
    paid.settle("c")
    paid.settle(None)
    assert paid.ids == ("a",)


def test_what_was_on_the_wire(capsys: pytest.CaptureFixture[str]) -> None:
    lost = Lost(Output(OutputOptions(quiet=True)))
    lost(abandoned("a"))
    lost(abandoned(None))
    lost(Failed(at=NOW, error=SubmissionUncertain(request=None, fingerprint="e" * 64, seen="nothing")))
    first, second = capsys.readouterr().err.splitlines()
    assert "(fingerprint ffffffffffff): gone" in first
    assert "(fingerprint eeeeeeeeeeee)" in second


@given(st.text(max_size=200), st.text(min_size=1, max_size=200))
def test_names_are_safe_whatever_comes(prompt: str, task_id: str) -> None:
    request = KontextRequest(prompt) if prompt.strip() else None
    generation = Generation(
        task_id=task_id, model=None, request=request, images=(), usage=Usage(), created_at=None, elapsed=0
    )
    outcome = Outcome(index=7, request=request, generation=generation)
    name = name_by_task(outcome, generation)
    assert name == Path(name).name
    assert name.isascii()
    assert len(name) <= 120
    assert all(letter.isalnum() or letter in "-_" for letter in name)


def test_slugs() -> None:
    assert slug("A fox's «den», in Zürich!") == "a-foxs-den-in-zurich"
    assert slug("狐") == "picture"
    assert len(slug("word " * 100)) <= 48


def test_ids_that_are_alike_when_cleaned_keep_different_names() -> None:
    def named(task_id: str) -> str:
        generation = Generation(
            task_id=task_id, model=None, request=None, images=(), usage=Usage(), created_at=None, elapsed=0
        )
        return name_by_task(Outcome(index=0, request=None), generation)

    assert named("a/b") != named("a_b") != named("a.b")
    assert named("../../etc").startswith("picture-______etc-")


def test_one_line() -> None:
    assert one_line("a\x1b[2Jb\r\n\tc  d") == "a [2Jb c d"


def test_a_feed_is_read_off_the_loop_and_can_be_stopped() -> None:
    async def read(stop_at: int) -> int:
        feed = Feed(KontextRequest(f"fox {number}") for number in range(200))
        async for _ in feed:
            feed.stopped = feed.given == stop_at
        return feed.given

    assert asyncio.run(read(500)) == 200
    assert asyncio.run(read(70)) == 70


def test_signals_where_handlers_cannot_be_set(serve: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()

    def refuse(*_: object) -> None:
        raise NotImplementedError  # as asyncio does on Windows

    def without_signal_handlers() -> asyncio.AbstractEventLoop:
        loop = original()
        monkeypatch.setattr(loop, "add_signal_handler", refuse)
        monkeypatch.setattr(loop, "remove_signal_handler", refuse)
        return loop

    original: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    monkeypatch.setattr(asyncio.events, "new_event_loop", without_signal_handlers)
    assert command("generate", "a fox").code == 0

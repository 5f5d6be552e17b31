"""The frame of all commands: what is imported, how errors are printed, and the exit codes."""

from __future__ import annotations

import asyncio
import runpy
import shlex
import sys
from typing import TYPE_CHECKING

import pytest
from cli_support import run_python

from kontext_async import __version__
from kontext_async.cli import app as cli_app, main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli_support import RunCommand, Serve

HELP_IMPORTS = """
import sys
from kontext_async.cli import main
assert main(["--help"]) == 0
slow = {"aiohttp", "sqlalchemy", "PIL", "anyio", "asyncio", "cattrs", "rich.progress", "markdown_it", "docutils",
        "kontext_async.session", "kontext_async.bulk", "kontext_async.emulator", "kontext_async.cli.options"}
commands = {name for name in sys.modules if name.startswith("kontext_async.cli.commands")}
print(sorted(slow & set(sys.modules) | commands), file=sys.stderr)
"""

COMMAND_IMPORTS = """
import sys
from kontext_async.cli import main
assert main(["{name}", "--help"]) == 0
commands = {{name for name in sys.modules if name.startswith("kontext_async.cli.commands.")}}
assert commands == {{"kontext_async.cli.commands.{name}"}}, commands
print(sorted({{"sqlalchemy", "jinja2", "PIL", "rich.progress"}} & set(sys.modules)), file=sys.stderr)
"""

ENDING = """
import atexit, gc, sys
from kontext_async.cli import main
atexit.register(lambda: print(len(gc.get_objects()), gc.get_freeze_count() > 0, file=sys.stderr))
assert main(["--version"]) == 0
"""


def test_help_imports_no_command_and_nothing_slow() -> None:
    ran = run_python("-c", HELP_IMPORTS)
    assert (ran.returncode, ran.stderr) == (0, "[]\n")
    assert all(name in ran.stdout for name in cli_app.COMMANDS)


def test_nothing_is_left_to_collect_when_a_command_ends() -> None:
    ran = run_python("-c", ENDING)
    objects, is_frozen = ran.stderr.split()
    assert (int(objects) < 1000, is_frozen) == (True, "True")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("generate", ("--input-image", "--emulator", "--json")),
        ("bulk", ("contact sheet", "--filename-template", "They may be billed twice")),
        ("report", ("--run", "--store", "--store-file")),
        ("status", ("--key-file",)),
        ("fetch", ("--timeout",)),
        ("emulator", ("--fault", "cut-after-accept")),
    ],
)
def test_help_of_a_command_imports_no_other_command_and_no_extra(name: str, words: tuple[str, ...]) -> None:
    ran = run_python("-c", COMMAND_IMPORTS.format(name=name))
    assert (ran.returncode, ran.stderr) == (0, "[]\n")
    assert all(word in " ".join(ran.stdout.replace("│", " ").split()) for word in words)


def test_every_registered_command_exists() -> None:
    for name in cli_app.COMMANDS:
        assert cli_app.app[name].default_command


def test_session_is_imported_late_and_is_part_of_the_package() -> None:
    ran = run_python(
        "-c",
        "import sys, kontext_async\n"
        "assert 'aiohttp' not in sys.modules\n"
        "assert {'KontextSession', 'GenerationTask'} <= set(dir(kontext_async)) & set(kontext_async.__all__)\n"
        "from kontext_async import *\n"
        "assert KontextSession is kontext_async.KontextSession\n"
        "assert GenerationTask.__module__ == 'kontext_async.session.task'\n"
        "try: kontext_async.Nonsense\n"
        "except AttributeError as error: print(error)",
    )
    assert (ran.stdout, ran.stderr) == ("module 'kontext_async' has no attribute 'Nonsense'\n", "")


def test_version_is_printed_and_no_command_means_help(command: RunCommand) -> None:
    assert command("--version").out.strip() == __version__
    assert "Exit codes: 0 all done" in command().out


@pytest.mark.parametrize("name", ["cyclopts", "rich"])
def test_missing_cli_extra_is_reported(name: str, command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    ran = command("--help")
    assert ran.code == 2
    assert ran.err == f"error: the command line needs {name}: pip install 'kontext_async[cli]'\n"


@pytest.mark.parametrize("arguments", [["generate", "a fox", "--emulator"], ["emulator"]])
def test_missing_pillow_is_reported(arguments: list[str], command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    ran = command(*arguments)
    assert (ran.code, ran.err) == (2, "error: the emulator needs Pillow: pip install 'kontext_async[emulator]'\n")


def test_unexpected_failure_is_reported_in_one_line(command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise ExceptionGroup("several", [RuntimeError("broken\nin two")])

    monkeypatch.setattr(cli_app, "app", fail)
    ran = command("generate", "a fox")
    assert ran.code == 1
    assert ran.err == "error: unexpected failure, please report it as a bug: RuntimeError('broken\\nin two')\n"


def test_timeout_of_a_task_is_not_mistaken_for_a_closed_pipe(serve: Serve, command: RunCommand) -> None:
    """`TaskTimeout` is an `OSError`, as `BrokenPipeError` is."""
    emulator = serve(service_time=60)
    command("generate", "a fox", "-q", "--timeout", "0.2")
    ran = command("fetch", emulator.ledger.task_ids[0], "--out", "fox.jpg", "--timeout", "0.2")
    assert ran.code == 1
    assert ran.err.startswith("error: not finished after 0.2 s; the task keeps running and is billed")


def test_module_runs_as_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["kontext-async", "--version"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("kontext_async.cli", run_name="__main__")
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_main_uses_the_arguments_of_the_process_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kontext-async", "--version"])
    assert main() == 0
    assert capsys.readouterr().out


def test_command_line_can_be_pasted_into_a_shell() -> None:
    arguments = ["bulk", "my prompts.txt", "--out", "it's here"]
    cli_app.remember_arguments(arguments)
    assert shlex.split(cli_app.command_line()) == ["kontext-async", *arguments]


def test_command_line_has_no_password() -> None:
    cli_app.remember_arguments(
        ["bulk", "p.txt", "--proxy", "http://me:pass@word@h:1", "--store=postgresql://h/d?user=u&password=p"]
    )
    assert cli_app.command_line() == (
        "kontext-async bulk p.txt --proxy 'http://***@h:1' '--store=postgresql://h/d?user=u&password=***'"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate"], "PROMPT requires an argument"),
        (["generate", "a", "--nonsense"], "Unknown option"),
        (["generate", "a", "--seed", "x"], "--seed"),
        (["generate", "a", "--api-key", "k"], "Unknown option"),
        (["generate", " "], "prompt: ' ' is not allowed"),
        (["generate", "a", "--aspect-ratio", "5:1"], "aspect_ratio: '5:1' is not allowed"),
        (["generate", "a", "-i", "gone.png"], "input_images[0]: 'gone.png' is not allowed"),
        (["generate", "a", "--emulator", "--base-url", "http://h"], "--emulator is a gateway of its own"),
        (["generate", "a", "--emulator", "--max-in-flight", "0"], "max_in_flight"),
        (["generate", "a", "--emulator", "--timeout", "-1"], "--timeout: it must be a duration such as 30s"),
        (["generate", "a", "--emulator", "--timeout", "0"], "wait"),
        (["generate", "a", "--emulator", "--proxy", "http://h:1"], "--emulator is a gateway of its own"),
        (["generate", "a", "--proxy", "socks5://h:1", "--key-file", "key"], "SOCKS proxies are not supported"),
        (["generate", "a", "--allow-network", "everything", "--key-file", "key"], "Network.allow"),
        (["generate", "a", "--metadata", "run", "--emulator"], "--metadata run: it must be KEY=VALUE"),
        (["generate", "a", "-i", "file://elsewhere/a.png"], "must name a file on this computer"),
        (["generate", "a", "--emulator", "--log-file", "."], "--log-file . cannot be written: Is a directory"),
        (["generate", "a", "--emulator", "--log-file", "key/log"], "cannot be written: Not a directory"),
        (["generate", "a", "--out", "file://elsewhere/a"], "--out: a file URL must name a file on this computer"),
        (["bulk", "p.txt", "--out", "out", "--on-outage", "panic"], "--on-outage"),
        (["bulk", "p.txt", "--out", "out", "--outage-timeout", "often"], "--outage-timeout: it must be a duration"),
        (["generate", "a", "--base-url", "ftp://h", "--key-file", "key"], "the base URL must be"),
        (["generate", "a", "--emulator", "--out", "key/sub"], "--out key/sub cannot be created: Not a directory"),
        (["bulk", "p.xls", "--out", "out"], "extension must be one of"),
        (["bulk", "gone.txt", "--out", "out"], "must be readable"),
        (["bulk", "p.txt"], "--out"),
        (["status"], "REFERENCE requires an argument"),
        (["status", "x", "--emulator"], "Unknown option"),
        (["fetch", "..", "--out", "x", "--key-file", "key"], "task_id: '..' is not allowed"),
        (["emulator", "--service-time", "often"], "the emulator cannot start"),
        (["emulator", "--price", "much"], "the emulator cannot start"),
        (["emulator", "--fault", "cut"], "--fault cut: it must be KIND=RATE"),
        (["emulator", "--fault", "cat=0.1"], "kind must be one of"),
        (["nonsense"], "nonsense"),
    ],
)
def test_usage_errors_are_reported_in_one_line(
    command: RunCommand, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "key").write_text("some-key")
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert words in ran.err
    assert len(ran.messages) == 1


def test_commands_run_where_signal_handlers_cannot_be_set(
    serve: Serve, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()

    def refuse(*_: object) -> None:
        raise NotImplementedError  # as asyncio does on Windows

    def new_loop_without_signal_handlers() -> asyncio.AbstractEventLoop:
        loop = original()
        monkeypatch.setattr(loop, "add_signal_handler", refuse)
        monkeypatch.setattr(loop, "remove_signal_handler", refuse)
        return loop

    original: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    monkeypatch.setattr(asyncio.events, "new_event_loop", new_loop_without_signal_handlers)
    assert command("generate", "a fox").code == 0

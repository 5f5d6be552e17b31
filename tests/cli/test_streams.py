"""Standard streams that are closed, full, or closed early by their reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_support import CLI, image_names

if TYPE_CHECKING:
    from cli_support import Serve, WritePrompts

FULL = Path("/dev/full")
needs_a_full_device = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def run_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which ``CLI`` stands for the command line."""
    cli = f"{CLI[0]} -m kontext_async.cli"
    arguments = ["/bin/sh", "-c", command.replace("CLI", cli)]
    return subprocess.run(  # noqa: S603 # our own commands
        arguments, capture_output=True, text=True, check=False, cwd=folder, timeout=50
    )


def test_a_run_goes_on_without_stderr(serve: Serve, tmp_path: Path, prompts: WritePrompts) -> None:
    emulator = serve()
    ran = run_in_shell(f"CLI bulk {prompts(3)} --out out --verbose 2>&-", tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert sorted(Path(line).name for line in ran.stdout.splitlines()) == image_names(tmp_path / "out")
    assert emulator.ledger.billed == 3


def test_a_run_goes_on_without_any_stream(serve: Serve, tmp_path: Path, prompts: WritePrompts) -> None:
    """Otherwise the journal would be opened as descriptor 0, 1 or 2, and prints would end up in it."""
    serve()
    call = f"CLI bulk {prompts(3)} --out out --verbose <&- >&- 2>&-"
    assert run_in_shell(call, tmp_path).returncode == 0
    assert run_in_shell(call, tmp_path).returncode == 0
    assert len(image_names(tmp_path / "out")) == 3


@needs_a_full_device
def test_a_run_goes_on_if_stderr_is_full(serve: Serve, tmp_path: Path) -> None:
    serve()
    ran = run_in_shell("CLI generate 'a fox' --verbose 2>/dev/full", tmp_path)
    assert ran.returncode == 0
    assert len(image_names(tmp_path)) == 1


@needs_a_full_device
@pytest.mark.parametrize("json", ["", "--json"])
def test_full_stdout_is_reported_and_what_is_paid_for_is_named(json: str, serve: Serve, tmp_path: Path) -> None:
    emulator = serve()
    ran = run_in_shell(f"CLI generate 'a fox' 'a hare' 'a bear' -q {json} >/dev/full", tmp_path)
    assert ran.returncode == 1
    lines = ran.stderr.splitlines()
    assert lines[-1] == "error: stdout cannot be written: No space left on device"
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert lines[0].startswith("not printed: ")
    assert emulator.ledger.task_ids
    assert all(task_id in ran.stderr for task_id in emulator.ledger.task_ids)


@needs_a_full_device
def test_full_stdout_stops_a_bulk_run_that_can_be_resumed(serve: Serve, tmp_path: Path, prompts: WritePrompts) -> None:
    emulator = serve()
    call = f"CLI bulk {prompts(30)} --out out --max-in-flight 2"
    ran = run_in_shell(f"{call} >/dev/full", tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "error: stdout cannot be written: No space left on device"
    assert "To resume: kontext-async bulk p.txt --out out --max-in-flight 2" in ran.stderr
    assert run_in_shell(call, tmp_path).returncode == 0
    assert emulator.ledger.billed == len(image_names(tmp_path / "out")) == 30


@needs_a_full_device
@pytest.mark.parametrize("arguments", ["--help", "--version", "generate --help", "emulator"])
def test_full_stdout_is_reported_by_commands_that_generate_nothing(arguments: str, tmp_path: Path) -> None:
    ran = run_in_shell(f"CLI {arguments} >/dev/full", tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "error: stdout cannot be written: No space left on device"
    assert "bug" not in ran.stderr


def test_a_reader_that_leaves_early_ends_a_command_silently(serve: Serve, tmp_path: Path) -> None:
    serve()
    ran = run_in_shell("CLI generate 'a fox' 'a hare' --max-in-flight 1 -q --json | true", tmp_path)
    assert "error" not in ran.stderr


def test_streams_that_are_open_are_left_alone(tmp_path: Path) -> None:
    ran = run_in_shell(
        f"{sys.executable} -c '"
        "import sys; from kontext_async.cli.streams import open_missing_streams as o; "
        "before = sys.stdin, sys.stdout, sys.stderr; o(); print(before == (sys.stdin, sys.stdout, sys.stderr))'",
        tmp_path,
    )
    assert ran.stdout == "True\n"


def test_missing_streams_take_their_own_descriptors(tmp_path: Path) -> None:
    code = (
        "import os, sys; from kontext_async.cli.streams import open_missing_streams as o; o(); "
        "print(sys.stdin.read()); print(1, file=sys.stderr); "
        'open(sys.argv[1], "w").write(repr([os.path.samestat(os.fstat(n), os.stat(os.devnull)) for n in (0, 1, 2)]))'
    )
    ran = run_in_shell(f"{sys.executable} -c '{code}' seen <&- >&- 2>&-", tmp_path)
    assert ran.returncode == 0
    assert (tmp_path / "seen").read_text() == "[True, True, True]"
    assert os.fstat(1)

"""Fixtures that run commands in this process against an emulator in a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import Ran, RunCommand, Serve, ServedEmulator, SignalWhen, WritePrompts

from kontext_async.cli import main
from kontext_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KONTEXT_API_KEY", raising=False)
    monkeypatch.delenv("KONTEXT_BASE_URL", raising=False)
    for name in ("KONTEXT_STORE", "KONTEXT_GATEWAY", "BFL_API_KEY", "FIREWORKS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start emulators, and point the environment to the last one."""
    served: list[ServedEmulator] = []

    def start(**options: Any) -> Emulator:
        emulator = Emulator(**{"service_time": 0, "pixels": 1024, **options})
        served.append(ServedEmulator(emulator))
        monkeypatch.setenv("KONTEXT_BASE_URL", emulator.base_url)
        monkeypatch.setenv("KONTEXT_API_KEY", "emulator-key")
        return emulator

    yield start
    for each in served:
        each.close()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Run a command in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def signal_when() -> Iterator[SignalWhen]:
    """Send this process a signal once a condition is true, or after 20 s; never after the test is over."""
    threads: list[threading.Thread] = []
    is_over = threading.Event()

    def arrange(number: int, condition: Callable[[], object]) -> None:
        def watch() -> None:
            deadline = time.monotonic() + 20
            while not condition() and time.monotonic() < deadline:
                if is_over.wait(0.01):
                    return
            os.kill(os.getpid(), number)

        thread = threading.Thread(target=watch)
        thread.start()
        threads.append(thread)

    yield arrange
    is_over.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def prompts(tmp_path: Path) -> WritePrompts:
    """Write a prompt file, and return its name."""

    def write(count: int) -> str:
        (tmp_path / "p.txt").write_text("".join(f"fox {number}\n" for number in range(count)))
        return "p.txt"

    return write

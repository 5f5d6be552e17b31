"""An emulator in a thread of its own, and the command in this process."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from attrs import frozen

from kontext_async.cli import main
from kontext_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class ServedEmulator:
    """Runs an emulator on a loop of its own until it is closed."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(emulator.start())

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        self._run(self.emulator.aclose())
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Emulator]]:
    """Starts an emulator, to which the environment then leads."""
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


@frozen
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KONTEXT_API_KEY", raising=False)
    monkeypatch.delenv("KONTEXT_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def signal_when() -> Iterator[Callable[[int, Callable[[], object]], None]]:
    """Sends this process a signal as soon as a condition holds."""
    threads: list[threading.Thread] = []

    def arrange(number: int, condition: Callable[[], object]) -> None:
        def watch() -> None:
            end = time.monotonic() + 20
            while not condition() and time.monotonic() < end:
                time.sleep(0.01)
            os.kill(os.getpid(), number)

        thread = threading.Thread(target=watch)
        thread.start()
        threads.append(thread)

    yield arrange
    for thread in threads:
        thread.join()

"""Commands in tests: an emulator in a thread of its own, the output of a command, and the types of the fixtures."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from attrs import frozen
from image_support import is_image_file

from kontext_async import Generation, Usage
from kontext_async.events import Abandoned
from kontext_async.images import detect_format

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from kontext_async.emulator import Emulator

CLI = (sys.executable, "-m", "kontext_async.cli")
"""The command line as a process of its own."""

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


class ServedEmulator:
    """Runs an emulator on an event loop in a thread of its own, until it is closed."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(emulator.start())

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        """Close the emulator and its loop."""
        self._run(self.emulator.aclose())
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@frozen
class Ran:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.out.splitlines()

    @property
    def messages(self) -> list[str]:
        """The lines of stderr."""
        return self.err.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The objects on stdout of a command with ``--json``."""
        return [json.loads(line) for line in self.lines]


class RunCommand(Protocol):
    """Runs a command in this process."""

    def __call__(self, *arguments: object) -> Ran: ...


class Serve(Protocol):
    """Starts an emulator, and points the environment to it."""

    def __call__(self, **options: Any) -> Emulator: ...


class SignalWhen(Protocol):
    """Sends this process a signal once a condition is true."""

    def __call__(self, number: int, condition: Callable[[], object]) -> None: ...


class WritePrompts(Protocol):
    """Writes a prompt file of so many lines, and returns its name."""

    def __call__(self, count: int) -> str: ...


def has_printed(text: str) -> bool:
    """Return True if a command has printed a text on the stdout of this process, which pytest captures."""
    return text in cast("io.StringIO", sys.stdout).getvalue()


def image_names(folder: Path) -> list[str]:
    """Return the names of the images in a folder, and check that each file is one."""
    names = sorted(path.name for path in folder.iterdir() if is_image_file(path))
    assert all(detect_format((folder / name).read_bytes()) for name in names)
    return names


def run_python(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    return subprocess.run(  # noqa: S603 # our own interpreter
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=30, cwd=folder
    )


def make_generation(task_id: str) -> Generation:
    """Return a generation without images."""
    return Generation(task_id=task_id, model=None, request=None, images=(), usage=Usage(), created_at=None, elapsed=0)


def make_abandoned(task_id: str | None) -> Abandoned:
    """Return an event: the caller of a task, or of a create request, is gone."""
    return Abandoned(at=NOW, task_id=task_id, fingerprint="f" * 64, reason="gone")

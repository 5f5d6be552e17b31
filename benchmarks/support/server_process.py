"""Starts servers, each in its own process, and talks to them."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.servers.schedule import TaskTimes, Workload

__all__ = [
    "ROOT",
    "EmulatorClient",
    "MockGatewayClient",
    "RequestCounts",
    "start_emulator",
    "start_mock_gateway",
    "start_raw_sink",
    "start_server",
    "start_slow_proxy",
]

ROOT = Path(__file__).parents[2]
"""The root of the repository."""


@frozen
class RequestCounts:
    """The requests that the mock gateway received.

    Attributes:
        creates: Create requests.
        statuses: Status requests.
        results: Requests for the result of a task that was already seen completed.
        connections: Connections that were opened.
        open: Connections that are open now.
        unknown: Requests for something that does not exist.
        cpu: Seconds of CPU of the server's process since it started.
    """

    creates: int
    statuses: int
    results: int
    connections: int
    open: int
    unknown: int
    cpu: float

    @property
    def requests(self) -> int:
        """All requests."""
        return self.creates + self.statuses + self.results


@frozen
class MockGatewayClient:
    """The controls of a running mock gateway.

    Attributes:
        address: Its base URL.
    """

    address: str

    def reset(self, workload: Workload) -> None:
        """Discard all tasks and counts, and use `workload` from now on."""
        self._call("/_reset", json.dumps(attrs.asdict(workload)).encode())

    def counts(self) -> RequestCounts:
        """Return the requests since the last reset."""
        return RequestCounts(**self._call("/_counts"))

    def task_times(self) -> list[TaskTimes]:
        """Return the times of every task that ends."""
        return [(created, ends, seen) for created, ends, seen in self._call("/_report")["tasks"]]

    def _call(self, path: str, body: bytes | None = None) -> Any:
        return _fetch_json(self.address + path, body)


@frozen
class EmulatorClient:
    """The address and the key of a running emulator.

    Attributes:
        address: Its base URL.
        key: Its API key.
    """

    address: str
    key: str = "emulator-key"

    def ledger(self) -> dict[str, Any]:
        """Return what the emulator accepted and billed."""
        ledger: dict[str, Any] = _fetch_json(f"{self.address}/_emulator/ledger")
        return ledger

    def accepted(self) -> int:
        """Return the number of accepted create requests."""
        return int(_fetch_json(f"{self.address}/_emulator/ledger?entries=0")["accepted"])

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point the command line at the emulator."""
        return {"KONTEXT_BASE_URL": self.address, "KONTEXT_API_KEY": self.key}


@contextmanager
def start_server(*arguments: str) -> Iterator[str]:
    """Run Python with these arguments in its own process, and yield the line that it prints first.

    The process ends when its standard input does.
    """
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.communicate()


@contextmanager
def start_mock_gateway() -> Iterator[MockGatewayClient]:
    """Run the mock gateway in its own process."""
    with start_server("-m", "benchmarks.servers.mock_gateway") as address:
        yield MockGatewayClient(address)


@contextmanager
def start_raw_sink(image_bytes: int = 0) -> Iterator[str]:
    """Run the raw sink in its own process, and yield its address; it sends images of `image_bytes` bytes."""
    with start_server("-m", "benchmarks.servers.raw_sink", "--image-bytes", str(image_bytes)) as address:
        yield address


@contextmanager
def start_slow_proxy(to: str, round_trip: float, idle: float) -> Iterator[str]:
    """Run a slow proxy before a server, in its own process, and yield its address."""
    options = ("--round-trip", str(round_trip), "--idle", str(idle))
    with start_server("-m", "benchmarks.servers.slow_proxy", to, *options) as address:
        yield address


@contextmanager
def start_emulator(*options: str) -> Iterator[EmulatorClient]:
    """Run the emulator in its own process, with the options of ``kontext-async emulator``."""
    command = [sys.executable, "-m", "kontext_async.cli", "emulator", "--quiet", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield EmulatorClient(process.stdout.readline().decode().strip())
        finally:
            process.terminate()


def _fetch_json(url: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(url, body, timeout=60) as response:  # noqa: S310 # our own server
        return json.load(response)

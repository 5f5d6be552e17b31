"""The server as a process of its own, and what it is told and asked."""

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

    from benchmarks.schedule import Plan, TaskRecord

__all__ = ["ROOT", "Counts", "Server", "address_of", "server_process"]

ROOT = Path(__file__).parent.parent


@frozen
class Counts:
    """What the server was asked.

    Attributes:
        creates: Tasks.
        statuses: Status requests.
        results: Requests for the result of a task that was already seen finished.
        connections: Connections that were opened.
        open: Connections that are open now.
        unknown: Requests that it had no answer to.
        cpu: Seconds of CPU of the server's process since it was started.
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
class Server:
    """A server that runs.

    Attributes:
        address: Its base URL.
    """

    address: str

    def reset(self, plan: Plan) -> None:
        """Forget everything, and do as planned from now on."""
        self._call("/_reset", json.dumps(attrs.asdict(plan)).encode())

    def counts(self) -> Counts:
        """What it was asked since."""
        return Counts(**self._call("/_counts"))

    def tasks(self) -> list[TaskRecord]:
        """Every task that ends."""
        return [(created, ends, seen) for created, ends, seen in self._call("/_report")["tasks"]]

    def _call(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(self.address + path, body, timeout=60) as answer:  # noqa: S310 # our own server
            return json.load(answer)


@contextmanager
def server_process() -> Iterator[Server]:
    """A server in a process of its own."""
    with address_of("-m", "benchmarks.server") as address:
        yield Server(address)


@contextmanager
def address_of(*arguments: str) -> Iterator[str]:
    """Python with these arguments, in a process of its own that prints where it is and ends with its standard input."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().strip()
        finally:
            process.communicate()

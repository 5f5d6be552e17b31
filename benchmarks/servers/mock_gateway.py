"""A gateway that is faster than any client: HTTP/1.1 on `asyncio.Protocol`, keep-alive, with prebuilt responses.

``python -m benchmarks.servers.mock_gateway`` prints its address, and ends when its standard input does. `MockGateway`
holds the tasks and the counts and does no I/O; `Connection` puts it on a socket.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.servers.api_dialects import DIALECTS, PROGRESS_PLACEHOLDER, Dialect, build_http_response
from benchmarks.servers.schedule import Workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import cast
else:

    def cast(_: object, value: object) -> object:
        return value


__all__ = ["MockGateway"]

CONTENT_LENGTH = b"content-length:"
NOT_FOUND = build_http_response(b'{"error": "not found"}', "404 Not Found")


class MockTask:
    """One task, with the response to its next status request."""

    __slots__ = ("created", "dialect", "ends", "fields", "response", "seen")

    def __init__(self, dialect: Dialect, fields: dict[bytes, bytes], now: float, seconds: float) -> None:
        self.dialect = dialect
        self.fields = fields
        self.created = now
        self.ends = now + seconds
        self.seen: float | None = None
        self.response = dialect.pending % fields


class MockGateway:
    """The tasks of a run, and the counts of requests."""

    def __init__(self, base: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._base = base
        self._clock = clock
        self.open = 0
        self.reset(Workload())

    def reset(self, workload: Workload) -> None:
        """Discard all tasks and counts, and use `workload` from now on."""
        self._service_times = workload.service_times()
        self._linear = workload.linear
        progress = PROGRESS_PLACEHOLDER if workload.linear else workload.progress
        self._dialects = {path: build(self._base, progress) for path, build in DIALECTS.items()}
        self._tasks: dict[bytes, MockTask] = {}
        self.creates = self.statuses = self.results = self.connections = self.unknown = 0

    def create(self, path: bytes) -> bytes:
        """Return the response to a POST, which creates a task."""
        dialect = next((dialect for start, dialect in self._dialects.items() if path.startswith(start, 1)), None)
        if dialect is None:
            self.unknown += 1
            return NOT_FOUND
        self.creates += 1
        fields = {b"id": b"%010d" % self.creates, b"when": b"%d" % time.time(), b"progress": b"0.0000"}
        self._tasks[fields[b"id"]] = MockTask(dialect, fields, self._clock(), next(self._service_times))
        return dialect.created % fields

    def read(self, path: bytes) -> bytes:
        """Return the response to a GET: the status of a task, or its result."""
        is_status = path.endswith(b"/status")
        task_path = path[: -len(b"/status")] if is_status else path
        task = self._tasks.get(task_path[-10:])
        if task is None:
            self.unknown += 1
            return NOT_FOUND
        if task.seen is not None and not is_status:
            self.results += 1
            return task.dialect.result % task.fields
        self.statuses += 1
        if task.seen is None:
            self._update(task, self._clock())
        return task.response

    def _update(self, task: MockTask, now: float) -> None:
        if now >= task.ends:
            task.seen = now
            task.response = task.dialect.completed % task.fields
        elif self._linear:
            task.fields[b"progress"] = b"%.4f" % ((now - task.created) / (task.ends - task.created))
            task.response = task.dialect.pending % task.fields

    def counts(self) -> dict[str, float]:
        """Return the counts since the last reset, and the CPU of this process."""
        names = ("creates", "statuses", "results", "connections", "open", "unknown")
        return {**{name: getattr(self, name) for name in names}, "cpu": time.process_time()}

    def control(self, path: bytes, body: bytes) -> bytes:
        """Return the response to a request of the benchmark itself."""
        if path == b"/_reset":
            self.reset(Workload(**json.loads(body)))
        payload: dict[str, Any] = dict(self.counts())
        if path == b"/_report":
            payload["tasks"] = [(t.created, t.ends, t.seen) for t in self._tasks.values() if t.ends < math.inf]
        return build_http_response(json.dumps(payload).encode())


class Connection(asyncio.Protocol):
    """The connection of one client; it handles one request at a time."""

    def __init__(self, gateway: MockGateway) -> None:
        self._gateway = gateway
        self._received = b""
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.Transport", transport).write

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio's signature
        self._gateway.open -= self._counted

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        while (end := received.find(b"\r\n\r\n") + 4) > 3:
            if not received.startswith(b"GET"):
                end += _parse_body_length(received[:end])
                if end > len(received):
                    break
            self._write(self._respond(received[:end]))
            received = received[end:]
        self._received = received

    def _respond(self, request: bytes) -> bytes:
        path = request.split(b" ", 2)[1]
        if path.startswith(b"/_"):
            return self._gateway.control(path, request.partition(b"\r\n\r\n")[2])
        if not self._counted:
            self._counted = True
            self._gateway.connections += 1
            self._gateway.open += 1
        if request.startswith(b"GET"):
            return self._gateway.read(path.partition(b"?")[0])
        return self._gateway.create(path)


def _parse_body_length(head: bytes) -> int:
    head = head.lower()
    at = head.find(CONTENT_LENGTH)
    return 0 if at < 0 else int(head[at + len(CONTENT_LENGTH) : head.find(b"\r\n", at)])


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    gateways: list[MockGateway] = []
    server = await loop.create_server(lambda: Connection(gateways[0]), "127.0.0.1", 0, backlog=4096)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    gateways.append(MockGateway(address))
    print(address, flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())

"""Random requests to the emulator: does it log a traceback, hang, or leak a task?

``python -m benchmarks.soak.junk --requests 10000 --seed 1`` sends them over raw connections, and checks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from kontext_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECTIONS = 32
MOMENT = 0.02
"""Seconds for which the client waits for a response to an incomplete request."""

RESPONSE_SECONDS = 10.0
"""Seconds without a response after which a request hangs."""

API_PATHS = (
    "/model/v1/generation",
    "/model/v1/generation/sync",
    "/model/v1/generation/precharge",
    "/model/v1/generation/task/x",
    "/model/v1/generation/task/%ff%00%2e%2e/stream?cursor=%ed%a0%80",
    "/model/v1/queue/flux_kontext_pro",
    "/model/v1/queue/flux_kontext_pro/requests/x/status",
    "/model/v1/queue/%F0%9F%A6%8A/requests/x/cancel",
    "/api/v1/user/balance",
    "/api/v1/skill/models",
    "/api/v1/skill/model-contracts/%00",
    "/_emulator/ledger?entries=x",
    "/nowhere",
    "//",
    "/../../etc/passwd",
    "*",
    "http://127.0.0.1/model/v1/generation",
)
FILE_PATHS = (
    "/results/x/0.jpeg?expires=nan&signature=%ff",
    "/results/%ff/%00.png?expires=inf&signature=\u00e9",
    "/results/x/0.jpeg?expires=1&expires=2&signature=",
    "/opaque/a%2Fb%7E/x/0.jpeg?sig=a%2Fb%2Bc%3D&x=%7E",
    "/moved/x/\u0662.jpeg",
    "/results/x/0.jpeg",
)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "G\u00cbT", "", "get")
HEADERS = (
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Expect: 100-continue",
    "Expect: 200-maybe",
    "Connection: Upgrade\r\nUpgrade: websocket",
    "Connection: keep-alive",
    "Range: bytes=9-1",
    "Range: bytes=" + "9" * 5000 + "-",
    "Accept: text/event-stream",
    "X-Model: \u00ff\u00fe",
    "X-Long: " + "x" * 9000,
    "No colon",
    " folded: header",
    "Authorization: Bearer ",
    "Authorization: Bearer \u00ff\u00fe",
    "Cookie: " + "a=b;" * 1000,
    "Host:",
    "Host: a b",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    1e308,
    "",
    " ",
    "\0",
    "\ud800",
    "a red fox",
    "x" * 5000,
    "data:image/png;base64,AAAA",
    "http://127.0.0.1:9/x.png",
    "http://[::1",
    "https://\u0662.example/x.png",
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB",
    "R0lGODlh//////////8=",
    [],
    {},
    [[[[]]]],
    {"a": {"b": None}},
)
NAMES = (
    "model",
    "input",
    "params",
    "prompt",
    "seed",
    "aspect_ratio",
    "output_format",
    "input_image",
    "input_image_4",
    "safety_tolerance",
    "prompt_upsampling",
    "moderation",
    "metadata",
    "options",
    "id",
    "\u0000",
)


class LogCounter(logging.Handler):
    """Counts log records, and keeps those that are more than one line."""

    def __init__(self) -> None:
        super().__init__()
        self.records = 0
        self.long: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        text = self.format(record)
        if "\n" in text:
            self.long.append(text)


@frozen(kw_only=True)
class Junk:
    """One request, and whether it is complete: then it must get a response."""

    data: bytes
    is_complete: bool


@define
class JunkReport:
    """What became of the requests."""

    requests: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(factory=Counter)
    hung: list[bytes] = field(factory=list)
    log_lines: int = 0
    tracebacks: list[str] = field(factory=list)
    loop_errors: list[str] = field(factory=list)
    leaked_tasks: int = 0

    @property
    def problems(self) -> dict[str, Any]:
        """What must be empty, zero or false."""
        return {
            "hung": self.hung,
            "tracebacks": self.tracebacks,
            "loop_errors": self.loop_errors,
            "leaked_tasks": self.leaked_tasks,
            "more log lines than requests": self.log_lines > self.requests,
            "internal errors": self.statuses["500"],
        }


def generate_junk(rng: random.Random, key: str, *, paths: tuple[str, ...]) -> Iterator[Junk]:
    """Yield random requests without end: noise, odd heads, odd JSON, and good requests with some bytes changed."""
    makers: tuple[Callable[[random.Random, str, tuple[str, ...]], bytes], ...]
    makers = (make_noise, make_head, make_json_request, make_json_request, make_changed_request, make_pipeline)
    while True:
        maker = rng.choice(makers)
        yield Junk(data=maker(rng, key, paths), is_complete=maker in {make_json_request, make_pipeline})


def make_noise(rng: random.Random, _: str, __: tuple[str, ...]) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 16, 300, 5000)))


def make_head(rng: random.Random, key: str, paths: tuple[str, ...]) -> bytes:
    lines = [f"{rng.choice(METHODS)} {rng.choice(paths)} HTTP/{rng.choice(('1.1', '1.1', '1.0', '2', '9.9'))}"]
    lines += ["Host: x"] * rng.choice((0, 1, 1, 2)) + rng.choices(HEADERS, k=rng.randint(0, 4))
    if rng.random() < 0.7:
        lines.append(f"Authorization: Bearer {key}")
    return encode("\r\n".join([*lines, "", ""])) + rng.randbytes(rng.choice((0, 0, 5, 200)))


def make_json_request(rng: random.Random, key: str, paths: tuple[str, ...]) -> bytes:
    value = make_value(rng, 4) if rng.random() < 0.3 else {"model": "flux_kontext_pro", "input": make_input(rng)}
    body = json.dumps(value).encode()
    if rng.random() < 0.1:
        body = b"[" * 100_000 if rng.random() < 0.3 else body[: len(body) // 2]
    return make_post(rng.choice((*paths, *paths[:1] * len(paths))), key, body)


def make_changed_request(rng: random.Random, key: str, paths: tuple[str, ...]) -> bytes:
    params = {"prompt": "a red fox", "seed": 1}
    body = json.dumps({"model": "flux_kontext_pro", "input": [{"params": params}]}).encode()
    data = bytearray(make_post(rng.choice(paths), key, body))
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def make_pipeline(rng: random.Random, key: str, paths: tuple[str, ...]) -> bytes:
    requests = [make_json_request(rng, key, paths) for _ in range(rng.randint(2, 5))]
    return b"".join([request.replace(b"close", b"keep-alive") for request in requests[:-1]] + requests[-1:])


def make_post(path: str, key: str, body: bytes) -> bytes:
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: x",
        "Connection: close",
        f"Authorization: Bearer {key}",
        f"Content-Length: {len(body)}",
    )
    return encode("\r\n".join([*lines, "", ""])) + body


def make_input(rng: random.Random) -> Any:
    if rng.random() < 0.2:
        return make_value(rng, 2)
    params = {rng.choice(NAMES): rng.choice(VALUES) for _ in range(rng.randint(0, 4))}
    return [{"params": {"prompt": "a red fox", **params}}]


def make_value(rng: random.Random, depth: int) -> Any:
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(VALUES)
    if rng.random() < 0.5:
        return [make_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(NAMES): make_value(rng, depth - 1) for _ in range(rng.randint(0, 4))}


def encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


async def send_request(port: int, junk: Junk, report: JunkReport) -> None:
    """Send one request, and read until the emulator closes the connection.

    A request that is not complete leaves the emulator waiting; after a moment, the client says that nothing follows.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    response = b""
    try:
        writer.write(junk.data)
        if not junk.is_complete:
            response = await _read_for_a_moment(reader)
            writer.write_eof()
        async with asyncio.timeout(RESPONSE_SECONDS):
            response += await reader.read()
    except TimeoutError:
        report.hung.append(junk.data[:500])
    except OSError:
        pass  # the emulator closed the connection before it read everything
    finally:
        writer.close()
    report.statuses[response[9:12].decode("latin-1") if response.startswith(b"HTTP/1.") else "closed"] += 1


async def _read_for_a_moment(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(MOMENT):
            return await reader.read(65536)
    except TimeoutError:
        return b""


async def send_junk(emulator: Emulator, *, count: int, seed: int) -> JunkReport:
    """Send `count` random requests to a running emulator, and close it; return what became of them."""
    report, log = JunkReport(requests=count), LogCounter()
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    loop.set_exception_handler(lambda _, context: report.loop_errors.append(str(context)))
    root = logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.INFO)
    start = time.perf_counter()
    try:
        await _send_all(emulator, report, count, random.Random(seed))
    finally:
        await emulator.aclose()
        root.removeHandler(log)
        root.setLevel(level)
        loop.set_exception_handler(None)
    report.seconds = time.perf_counter() - start
    report.log_lines, report.tracebacks = log.records, log.long
    report.leaked_tasks = len(asyncio.all_tasks() - before)
    return report


async def _send_all(emulator: Emulator, report: JunkReport, count: int, rng: random.Random) -> None:
    key = emulator.api_key or "key"
    origins = [(_port_of(emulator.base_url), API_PATHS)] * 3 + [(_port_of(emulator.files_url), FILE_PATHS)]
    sources = [(port, generate_junk(rng, key, paths=paths)) for port, paths in origins]
    remaining = iter(range(count))

    async def work() -> None:
        for number in remaining:
            port, source = sources[number % len(sources)]
            await send_request(port, next(source), report)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def measure(count: int, seed: int) -> JunkReport:
    """Start an emulator, and send it random requests."""
    emulator = Emulator(service_time=0, pixels=4096)
    await emulator.start()
    return await send_junk(emulator, count=count, seed=seed)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.junk", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    report = asyncio.run(measure(options.requests, options.seed))
    print(f"{report.requests} requests in {report.seconds:.1f} s: {dict(report.statuses.most_common())}")
    print(f"{report.log_lines} log lines")
    for text, problem in report.problems.items():
        print("FAIL" if problem else "ok  ", text, problem or "")
    return 1 if any(report.problems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

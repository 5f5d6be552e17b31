"""The servers of the web integrations, each in a process of its own, and clients for them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp
from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from kontext_async.emulator import Emulator

__all__ = ["SERVERS", "Reply", "RunningServer", "post_image", "run_server"]

GUNICORN = ("gunicorn", "--workers", "2", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "10", "--worker-class")
HYPERCORN = ("hypercorn", "--workers", "0", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "10")

SERVERS: dict[str, tuple[str, ...]] = {
    "aiohttp": ("aiohttp.web", "--hostname", "127.0.0.1", "--port", "{port}", "served_aiohttp:make_app"),
    "uvicorn-starlette": ("uvicorn", "--port", "{port}", "served_starlette:app"),
    "uvicorn-fastapi": ("uvicorn", "--port", "{port}", "--loop", "asyncio", "served_fastapi:app"),
    "uvicorn-litestar": ("uvicorn", "--port", "{port}", "served_litestar:app"),
    "hypercorn-starlette": (*HYPERCORN, "served_starlette:app"),
    "gunicorn-starlette": (*GUNICORN, "asgi", "served_starlette:app"),
    "gunicorn-aiohttp": (*GUNICORN, "aiohttp.GunicornWebWorker", "served_aiohttp:make_served_app"),
}
"""The arguments of ``python -m`` for each server."""

START_SECONDS = 30


@frozen
class Reply:
    """The response to one user.

    Attributes:
        status: The HTTP status; None if the connection failed.
        headers: The headers, with names in lower case.
        body: The body.
        seconds: The time from the request to the end of the response.
    """

    status: int | None
    headers: dict[str, str] = field(factory=dict)
    body: bytes = b""
    seconds: float = 0.0


@frozen
class RunningServer:
    """A server in a process of its own.

    Attributes:
        url: Its address.
        process: Its process.
    """

    url: str
    process: asyncio.subprocess.Process

    def terminate(self) -> None:
        """Send SIGTERM, as an orchestrator does."""
        self.process.send_signal(signal.SIGTERM)

    def terminate_all(self) -> None:
        """Send SIGTERM to the process and its workers, as systemd does by default."""
        os.killpg(self.process.pid, signal.SIGTERM)

    async def wait(self, seconds: float) -> float:
        """Wait for the end of the process, and return the seconds that it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.wait_for(self.process.wait(), seconds)
        return loop.time() - began


@asynccontextmanager
async def run_server(
    command: Sequence[str], emulator: Emulator, *, folder: Path | None = None, **environment: str
) -> AsyncIterator[RunningServer]:
    """Run a server against an emulator, and kill it at the end.

    Args:
        command: The arguments of ``python -m``, with ``{port}`` for the port.
        emulator: The emulator.
        folder: A folder with modules of the test.
        environment: Further environment variables.
    """
    port = _find_port()
    variables = {
        **os.environ,
        "KONTEXT_API_KEY": emulator.api_key or "",
        "KONTEXT_BASE_URL": emulator.base_url,
        "PYTHONPATH": os.pathsep.join([*([str(folder)] if folder else []), *sys.path]),
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    arguments = [each.format(port=port) for each in command]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env=variables, stdout=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    server = RunningServer(f"http://127.0.0.1:{port}", process)
    try:
        await asyncio.wait_for(_wait_until_ready(server), START_SECONDS)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def post_image(client: aiohttp.ClientSession, url: str, body: object = None) -> Reply:
    """Request an image as one user."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with client.post(f"{url}/images", json=body or {"prompt": "a fox"}) as response:
            data = await response.read()
    except aiohttp.ClientError:
        return Reply(None, seconds=loop.time() - began)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status, headers, data, loop.time() - began)


async def _wait_until_ready(server: RunningServer) -> None:
    async with aiohttp.ClientSession() as client:
        while True:
            assert server.process.returncode is None, "the server did not start"
            try:
                async with client.get(f"{server.url}/healthz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


def _find_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port

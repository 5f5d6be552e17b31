"""Web applications under real servers, for tests."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import uvicorn
from aiohttp.test_utils import TestClient, TestServer
from session_support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web


async def post_to_aiohttp(app: web.Application, *bodies: object) -> list[tuple[int, bytes]]:
    """Serve an aiohttp application, and post all bodies at once."""
    async with TestClient(TestServer(app)) as client:
        return await asyncio.gather(*(_post(client, body) for body in bodies))


async def post_to_asgi(app: Any, *bodies: object) -> list[tuple[int, bytes]]:
    """Serve an ASGI application with uvicorn, and post all bodies at once."""
    async with serve_asgi(app, lifespan="on") as address, aiohttp.ClientSession(address) as client:
        return await asyncio.gather(*(_post(client, body) for body in bodies))


@asynccontextmanager
async def serve_asgi(app: Any, *, lifespan: Literal["on", "off"]) -> AsyncIterator[str]:
    """Serve an ASGI application with uvicorn, and return its address."""
    config = uvicorn.Config(app, port=0, lifespan=lifespan, log_level="warning", loop="asyncio")
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await until(lambda: server.started or serving.done())
        assert not serving.done(), "the server did not start"
        host, port = listening.getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


async def _post(client: Any, body: object) -> tuple[int, bytes]:
    async with client.post("/images", json=body) as response:
        return response.status, await response.read()

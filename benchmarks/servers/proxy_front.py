"""A reverse proxy in front of a gateway that can be out of order: it refuses connections, or answers 502.

It runs in the process of the benchmark. A create request that meets a 502 may have reached the gateway or not, as in
reality: every other one has.
"""

from __future__ import annotations

import enum
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Front", "Mode", "start_front"]

HOP_BY_HOP = {"Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Host", "Content-Encoding"}
CREATE = "/model/v1/generation"
BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


class Mode(enum.Enum):
    """What the front does."""

    FORWARD = enum.auto()
    REFUSE = enum.auto()
    """New connections are refused. Requests on those that are open are forwarded; each connection ends with one."""
    BAD_GATEWAY = enum.auto()
    BAD_CREATES = enum.auto()
    """Only create requests get a 502: a free probe passes, and the trial after it fails."""


class Front:
    """The proxy.

    Attributes:
        target: The gateway's address.
        lost_creates: Create requests that got a 502.
        reached: Those of them that reached the gateway all the same.
    """

    def __init__(self, target: str, runner: web.AppRunner, client: aiohttp.ClientSession) -> None:
        self.target = target
        self.lost_creates = 0
        self.reached = 0
        self._mode = Mode.FORWARD
        self._runner = runner
        self._client = client
        self._port = 0
        self._site: web.TCPSite | None = None
        self._turn = count()

    @property
    def base_url(self) -> str:
        """The address of the front."""
        return f"http://127.0.0.1:{self._port}"

    async def set_mode(self, mode: Mode) -> None:
        """Change what the front does from now on."""
        self._mode = mode
        if mode is Mode.REFUSE and self._site:
            await self._site.stop()
            self._site = None
        elif mode is not Mode.REFUSE and self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
            await self._site.start()
            self._port = self._runner.addresses[0][1]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Forward a request, or respond in the gateway's place."""
        is_create = request.method == "POST" and request.path == CREATE
        if self._mode is Mode.BAD_GATEWAY or (is_create and self._mode is Mode.BAD_CREATES):
            if is_create:
                self.lost_creates += 1
                if next(self._turn) % 2:
                    self.reached += 1
                    await self._forward(request)
            return web.Response(status=502, text=BAD_GATEWAY, content_type="text/html")
        response = await self._forward(request)
        if self._mode is Mode.REFUSE:
            response.force_close()
        return response

    async def _forward(self, request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.title() not in HOP_BY_HOP}
        url = f"{self.target}{request.raw_path}"
        async with self._client.request(request.method, url, headers=headers, data=await request.read()) as response:
            kept = {name: value for name, value in response.headers.items() if name.title() not in HOP_BY_HOP}
            return web.Response(status=response.status, headers=kept, body=await response.read())


@asynccontextmanager
async def start_front(target: str) -> AsyncIterator[Front]:
    """Start the proxy in front of a gateway."""
    app = web.Application(client_max_size=1 << 30)
    runner = web.AppRunner(app, access_log=None)
    async with aiohttp.ClientSession() as client:
        front = Front(target, runner, client)
        app.router.add_route("*", "/{path:.*}", front.handle)
        await runner.setup()
        try:
            await front.set_mode(Mode.FORWARD)
            yield front
        finally:
            await runner.cleanup()

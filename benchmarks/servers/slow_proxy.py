"""A TCP proxy that is far away and closes idle connections, as load balancers do.

``python -m benchmarks.servers.slow_proxy TO [--round-trip S] [--idle S]`` prints its address, and ends when its
standard input does. ``TO`` is the address of the server behind it. Bytes need half a round trip in each direction, and
a new connection a whole one more. A connection over which nothing went for ``--idle`` seconds is closed at the far end.
The client learns that half a round trip later. What it sends meanwhile meets a closed connection: it is lost, and the
connection is reset. The last line of the output is the number of requests that were lost like that.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SlowProxy"]


class SlowProxy:
    """The settings of a proxy, and what it lost.

    Attributes:
        lost: Pieces of requests that met a closed connection.
        opened: Connections that clients opened.
        open: Connections that are open now.
    """

    def __init__(self, host: str, port: int, round_trip: float, idle: float) -> None:
        self.host = host
        self.port = port
        self.one_way = round_trip / 2
        self.idle = idle
        self.lost = self.opened = self.open = 0


class NearEnd(asyncio.Protocol):
    """The client's end of a connection. The far end is where the server is."""

    def __init__(self, proxy: SlowProxy) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._far: asyncio.Transport | None = None
        self._waiting: list[bytes] = []
        self._closed = False
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.near = transport
        self._proxy.opened += 1
        self._proxy.open += 1
        self._connected = self._loop.time() + 2 * self._proxy.one_way
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        far, _ = await self._loop.create_connection(lambda: FarEnd(self), self._proxy.host, self._proxy.port)
        self._far = far
        for data in self._waiting:
            far.write(data)

    def data_received(self, data: bytes) -> None:
        begin = max(self._loop.time(), self._connected)
        self._loop.call_at(begin + self._proxy.one_way, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if self._closed:
            self._proxy.lost += 1
            self.after_one_way(self.near.abort)
        elif self._far is None:
            self._waiting.append(data)
        else:
            self.restart_idle_timer()
            self._far.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio's signature
        self._proxy.open -= 1
        self._opening.cancel()
        self._closed = True
        if self._idle_timer:
            self._idle_timer.cancel()
        if self._far:
            self._far.abort()

    def restart_idle_timer(self) -> None:
        """Close the connection when nothing has gone over it for long enough."""
        if self._idle_timer:
            self._idle_timer.cancel()
        if self._proxy.idle < math.inf:
            self._idle_timer = self._loop.call_later(self._proxy.idle, self.close)

    def close(self) -> None:
        """Close the far end now, and the near end when the client learns about it."""
        self._closed = True
        if self._far:
            self._far.abort()
        self.after_one_way(self.near.close)

    def after_one_way(self, action: Callable[..., object], *arguments: object) -> None:
        """Do something at the near end once it has travelled there."""
        self._loop.call_later(self._proxy.one_way, action, *arguments)


class FarEnd(asyncio.Protocol):
    """The server's end of a connection."""

    def __init__(self, near: NearEnd) -> None:
        self._near = near

    def data_received(self, data: bytes) -> None:
        self._near.restart_idle_timer()
        self._near.after_one_way(self._near.near.write, data)


async def serve(proxy: SlowProxy) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: NearEnd(proxy), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)
    print(proxy.lost)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.slow_proxy")
    parser.add_argument("to", help="address of the server behind it")
    parser.add_argument("--round-trip", type=float, default=0.2, help="seconds (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=math.inf, help="seconds until an idle connection is closed")
    options = parser.parse_args()
    target = urlsplit(options.to)
    asyncio.run(serve(SlowProxy(str(target.hostname), int(target.port or 80), options.round_trip, options.idle)))

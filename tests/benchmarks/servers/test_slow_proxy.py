"""The slow proxy: far away, and it closes idle connections."""

from __future__ import annotations

import asyncio
import math

import pytest
from http_support import http_response, scripted_server
from session_support import turn_loop, until

from benchmarks.servers.slow_proxy import NearEnd, SlowProxy

pytestmark = pytest.mark.anyio

REQUEST = b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


async def connect(server_url: str, round_trip: float, idle: float) -> tuple[SlowProxy, asyncio.Server, int]:
    host, _, port = server_url.removeprefix("http://").partition(":")
    proxy = SlowProxy(host, int(port), round_trip, idle)
    server = await asyncio.get_running_loop().create_server(lambda: NearEnd(proxy), "127.0.0.1", 0)
    return proxy, server, server.sockets[0].getsockname()[1]


async def test_a_response_takes_a_round_trip_and_the_first_one_two() -> None:
    loop = asyncio.get_running_loop()
    async with scripted_server(lambda _: http_response(b"x")) as scripted:
        scripted.close_after_response = False
        proxy, server, port = await connect(scripted.url, 0.04, math.inf)
        async with server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for round_trips in (2, 1):
                began = loop.time()
                writer.write(REQUEST)
                await reader.readuntil(b"\r\n\r\nx")
                assert loop.time() - began > 0.039 * round_trips
            writer.close()
            await until(lambda: not proxy.open)
            await turn_loop(20)


async def test_a_request_that_meets_the_closing_on_its_way_is_lost() -> None:
    async with scripted_server(lambda _: http_response(b"x")) as scripted:
        scripted.close_after_response = False
        proxy, server, port = await connect(scripted.url, 0.2, 0.1)
        async with server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await reader.readuntil(b"\r\n\r\nx")  # the far end closes in this moment
            writer.write(REQUEST)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            writer.close()
            await until(lambda: proxy.lost and not proxy.open)
            await turn_loop(20)
        assert len(scripted.requests) == 1
        assert proxy.lost == 1

"""A server that sends scripted bytes, and a proxy: for responses that no proper server sends."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from session_support import encode_jpeg, raw_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

JPEG = encode_jpeg()
"""A small image."""

CERTIFICATE = Path(__file__).with_name("self_signed.pem")
"""A certificate for localhost and 127.0.0.1 that nobody trusts, with its key."""


@frozen
class Request:
    """One request as it arrived.

    Attributes:
        head: Its head.
        body: Its body.
    """

    head: bytes
    body: bytes

    @property
    def target(self) -> str:
        """The request target, byte for byte."""
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    def header(self, name: str) -> str | None:
        """Return the value of a header; None if there is none."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


@define
class ScriptedServer:
    """Sends what `respond` returns for each request.

    Attributes:
        respond: Returns the bytes of a response; None closes the connection without one.
        url: Its address.
        requests: The requests that arrived.
        connections: The number of connections that were opened.
        close_after_response: True closes the connection after each response.
    """

    respond: Callable[[Request], bytes | None]
    url: str = ""
    requests: list[Request] = field(factory=list)
    connections: int = 0
    close_after_response: bool = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            while request := await read_request(reader):
                self.requests.append(request)
                response = self.respond(request)
                if response is None:
                    break
                writer.write(response)
                await writer.drain()
                if self.close_after_response:
                    break
        except OSError:
            pass
        finally:
            writer.close()

    def targets(self) -> list[str]:
        """Return the targets of the requests, in order."""
        return [request.target for request in self.requests]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read one request; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = Request(head, b"").header("Content-Length")
        return Request(head, await reader.readexactly(int(length or 0)))
    except asyncio.IncompleteReadError:
        return None


@asynccontextmanager
async def scripted_server(respond: Callable[[Request], bytes | None]) -> AsyncIterator[ScriptedServer]:
    """Run a `ScriptedServer` on loopback."""
    server = ScriptedServer(respond)
    async with raw_server(server.serve) as url:
        server.url = url
        yield server


@asynccontextmanager
async def tls_server(respond: Callable[[Request], bytes | None]) -> AsyncIterator[ScriptedServer]:
    """Run a `ScriptedServer` on loopback behind a certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    scripted = ScriptedServer(respond)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        scripted.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield scripted


def http_response(body: bytes = b"", status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    """Return the bytes of a response.

    Args:
        body: Its body.
        status: The status with its reason.
        headers: Further header lines, each with its line end.
        length: The announced length, if it is not the body's.
    """
    announced = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {announced}\r\n{headers}\r\n".encode("latin-1") + body


@define
class ProxyServer:
    """A forward proxy: absolute request targets, and CONNECT.

    Attributes:
        url: Its address.
        requests: The requests that arrived.
        refusal: The response to every request, instead of forwarding it.
    """

    url: str = ""
    requests: list[Request] = field(factory=list)
    refusal: bytes | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one CONNECT, or requests for one host."""
        async with contextlib.AsyncExitStack() as ends:
            ends.callback(writer.close)
            upstream: asyncio.StreamWriter | None = None
            while request := await read_request(reader):
                self.requests.append(request)
                if self.refusal is not None:
                    writer.write(self.refusal)
                    return
                is_tunnel = request.method == "CONNECT"
                authority, _, path = request.target.removeprefix("http://").partition("/")
                if upstream is None:
                    host, _, port = authority.rpartition(":")
                    source, upstream = await asyncio.open_connection(host, int(port))
                    ends.callback(upstream.close)
                    ends.callback(asyncio.ensure_future(copy(source, writer)).cancel)
                if is_tunnel:
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await copy(reader, upstream)
                    return
                upstream.write(request.head.replace(request.target.encode(), b"/" + path.encode(), 1) + request.body)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes until the connection ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy_server() -> AsyncIterator[ProxyServer]:
    """Run a `ProxyServer` on loopback."""
    proxy = ProxyServer()
    async with raw_server(proxy.serve) as url:
        proxy.url = url
        yield proxy

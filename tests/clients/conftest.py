"""The emulator at the fixed addresses of Black Forest Labs: behind TLS, with their names led to it.

The packages of this folder are in the extra ``test-clients``; without it the tests are skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define

from kontext_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

REGION = "https://api.us1.bfl.ai"
"""Where tasks are polled: the fixed base URL of huggingface_hub, and not that of litellm."""

NAMES = ("api.bfl.ai", "api.us1.bfl.ai")
CHUNK = 64 * 1024


@define
class Authority:
    """A certificate authority of the tests.

    Attributes:
        server: The TLS context of a server with these names.
        path: The file with the authority's certificate.
    """

    server: ssl.SSLContext
    path: Path


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    trustme: Any = pytest.importorskip("trustme", reason="there is no trustme")
    own = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.issue_cert(*NAMES).configure_cert(context)
    path = tmp_path_factory.mktemp("authority") / "authority.pem"
    own.cert_pem.write_to_path(str(path))
    return Authority(context, path)


@asynccontextmanager
async def behind_tls(host: str, port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Pass connections on to a server, behind TLS; yield the port."""
    passing: set[asyncio.Task[Any]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        writers.extend((back, writer))
        for task in (asyncio.ensure_future(pass_on(reader, back)), asyncio.ensure_future(pass_on(there, writer))):
            passing.add(task)
            task.add_done_callback(passing.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in tuple(passing):
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def lead_names_to(port: int) -> Callable[..., Any]:
    """Return a `socket.getaddrinfo` that leads the names to a port of this machine, and no other name anywhere."""
    original = socket.getaddrinfo

    def getaddrinfo(host: Any, requested: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in NAMES:
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]
        if name not in ("127.0.0.1", "localhost", None):
            raise socket.gaierror(socket.EAI_NONAME, f"the tests lead no {name} anywhere")
        return original(host, requested, *arguments, **options)

    return getaddrinfo


@pytest.fixture
def region() -> str:
    """Where the emulator says that its tasks are polled."""
    return REGION


@pytest.fixture
async def emulator(
    anyio_backend: str, authority: Authority, region: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Emulator]:
    """An emulator to which the names of Black Forest Labs lead, and whose certificate the clients trust."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    options: dict[str, Any] = {"region_origins": (region,)}
    async with Emulator(service_time=0.05, pixels=4096, **options) as running:
        host, _, port = running.base_url.removeprefix("http://").rpartition(":")
        async with behind_tls(host, int(port), authority.server) as tls_port:
            monkeypatch.setattr(socket, "getaddrinfo", lead_names_to(tls_port))
            yield running

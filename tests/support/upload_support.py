"""A server that stops in the middle of an upload, and helpers for tests of uploads."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from session_support import raw_server

from kontext_async import KontextSession, Limits, Timeouts
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = b"GIF89a" + os.urandom(8_000_000)
"""An image larger than the buffers of two sockets."""

ACCEPTED = b'{"id":"task-1","status":"completed","output":[{"content":[{"url":"http://127.0.0.1/fox.jpg"}]}]}'
TOO_MANY_REQUESTS = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n%b\r\n"

needs_descriptors = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="the test counts open files, which this system does not list"
)


class UploadGateway:
    """A server that pauses in the middle of each large body, and accepts every request.

    Attributes:
        stop_after: Bytes of a body after which the server pauses.
        resume: Ends the pauses.
        bodies: The bodies that arrived completely.
        begun: The number of create requests whose head arrived.
        paused: The number of create requests that are paused.
        most_paused: The most create requests that were paused at once.
        responses: Responses to send in the middle of the next bodies, instead of a pause; None aborts the connection.
    """

    def __init__(self) -> None:
        self.stop_after = 100_000
        self.resume = asyncio.Event()
        self.bodies: list[bytes] = []
        self.begun = 0
        self.paused = 0
        self.most_paused = 0
        self.responses: list[bytes | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while await self._serve_request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return False if the connection ends with it."""
        length = content_length(await reader.readuntil(b"\r\n\r\n"))
        self.begun += 1
        body = b""
        if length > self.stop_after:
            body = await reader.readexactly(self.stop_after)
            if self.responses:
                response = self.responses.pop(0)
                if response is None:
                    writer.transport.abort()
                    return False
                writer.write(response)
                await writer.drain()
                if b"close" in response:
                    return False
            else:
                await self._pause()
        body += await reader.readexactly(length - len(body))
        self.bodies.append(body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ACCEPTED) + ACCEPTED)
        return True

    async def _pause(self) -> None:
        self.paused += 1
        self.most_paused = max(self.most_paused, self.paused)
        await self.resume.wait()
        self.paused -= 1


@asynccontextmanager
async def upload_session(gateway: UploadGateway, **limits: Any) -> AsyncIterator[KontextSession]:
    """Serve `gateway` and yield a session for it, with `Limits` of the test's own."""
    settings = attrs.evolve(FAST, limits=Limits(**limits), timeouts=Timeouts(cancel=5))
    async with (
        raw_server(gateway.serve) as address,
        KontextSession("key", base_url=address, settings=settings) as session,
    ):
        yield session


def content_length(head: bytes) -> int:
    """Return the ``Content-Length`` of a request's head."""
    match = re.search(rb"content-length: (\d+)", head.lower())
    assert match
    return int(match[1])


def count_descriptors(*, of: Path | None = None) -> int:
    """Return the number of open files of this process, without sockets; with `of`, only those in that directory."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return sum(target.startswith(str(of) if of else "/") and not target.startswith("/dev") for target in targets)


def input_image_of(body: bytes) -> bytes:
    """Return the first input image of a create request's body."""
    return base64.b64decode(json.loads(body)["input"][0]["params"]["input_image"])


def write_large(directory: Path) -> Path:
    """Write the large image into a file."""
    path = directory / "fox.gif"
    path.write_bytes(LARGE)
    return path

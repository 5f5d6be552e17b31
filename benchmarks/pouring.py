"""A server that takes bodies and gives pictures as fast as a socket can: raw `asyncio.Protocol`, nothing is looked at.

``python -m benchmarks.pouring [--picture BYTES]`` prints its address, and ends with its standard input. ``POST`` takes
a body of any length and answers with an accepted task; ``GET`` answers with a picture. It keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.serving import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pouring_process"]

CHUNK = 256 * 1024
ACCEPTED = b'{"id":"task-%d","status":"completed","output":[{"content":[{"url":"http://127.0.0.1/x.jpg"}]}]}'


class Connection(asyncio.BufferedProtocol):
    """One client's connection; one request at a time. What is received goes into one buffer, over and over."""

    tasks = 0
    picture = 0
    room = bytearray(CHUNK)

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0
        self._going: asyncio.Event = asyncio.Event()
        self._pouring: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._going.set()

    def pause_writing(self) -> None:
        self._going.clear()

    def resume_writing(self) -> None:
        self._going.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio's
        if self._pouring:
            self._pouring.cancel()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 # asyncio's
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing:
            self._missing -= nbytes
            if self._missing <= 0:
                self._answer()
            return
        self._head += self.room[:nbytes]
        end = self._head.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head, body = self._head[:end], len(self._head) - end
        self._head = b""
        if head.startswith(b"GET"):
            self._pouring = asyncio.get_running_loop().create_task(self._pour())
            return
        self._missing = _length(head) - body
        if self._missing <= 0:
            self._answer()

    def _answer(self) -> None:
        self._missing = 0
        Connection.tasks += 1
        body = ACCEPTED % Connection.tasks
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def _pour(self) -> None:
        size = self.picture
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n\xff\xd8\xff\xe0" % size)
        filling = bytes(CHUNK)
        for start in range(0, size - 6, CHUNK):
            await self._going.wait()
            self._transport.write(filling[: min(CHUNK, size - 6 - start)])
            await asyncio.sleep(0)
        self._transport.write(b"\xff\xd9")


def _length(head: bytes) -> int:
    name = b"content-length:"
    at = head.lower().find(name)
    return int(head[at + len(name) : head.find(b"\r\n", at)])


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def pouring_process(picture: int = 0) -> Iterator[str]:
    """The server in a process of its own; its address."""
    with address_of("-m", "benchmarks.pouring", "--picture", str(picture)) as address:
        yield address


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--picture", type=int, default=0, help="bytes of each picture")
    Connection.picture = parser.parse_args().picture
    asyncio.run(serve())

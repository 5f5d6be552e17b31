"""A server that discards uploads and sends images as fast as a socket allows: raw `asyncio.Protocol`, no parsing.

``python -m benchmarks.servers.raw_sink [--image-bytes N]`` prints its address, and ends when its standard input does.
``POST`` accepts a body of any length and responds with an accepted task; ``GET`` responds with an image. It keeps
nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

__all__: list[str] = []

CHUNK = 256 * 1024
CONTENT_LENGTH = b"content-length:"
ACCEPTED = b'{"id":"task-%d","status":"completed","output":[{"content":[{"url":"http://127.0.0.1/x.jpg"}]}]}'


class Connection(asyncio.BufferedProtocol):
    """The connection of one client; one request at a time. All received bytes overwrite one shared buffer."""

    tasks = 0
    image_bytes = 0
    buffer = bytearray(CHUNK)

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0
        self._writable: asyncio.Event = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio's signature
        if self._sending:
            self._sending.cancel()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 # asyncio's signature
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing:
            self._missing -= nbytes
            if self._missing <= 0:
                self._accept()
            return
        self._head += self.buffer[:nbytes]
        end = self._head.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head, body = self._head[:end], len(self._head) - end
        self._head = b""
        if head.startswith(b"GET"):
            self._sending = asyncio.get_running_loop().create_task(self._send_image())
            return
        self._missing = _parse_body_length(head) - body
        if self._missing <= 0:
            self._accept()

    def _accept(self) -> None:
        self._missing = 0
        Connection.tasks += 1
        body = ACCEPTED % Connection.tasks
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def _send_image(self) -> None:
        size = self.image_bytes
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n\xff\xd8\xff\xe0" % size)
        filler = bytes(CHUNK)
        for start in range(0, size - 6, CHUNK):
            await self._writable.wait()
            self._transport.write(filler[: min(CHUNK, size - 6 - start)])
            await asyncio.sleep(0)
        self._transport.write(b"\xff\xd9")


def _parse_body_length(head: bytes) -> int:
    at = head.lower().find(CONTENT_LENGTH)
    return int(head[at + len(CONTENT_LENGTH) : head.find(b"\r\n", at)])


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers.raw_sink")
    parser.add_argument("--image-bytes", type=int, default=0, help="bytes of each image")
    Connection.image_bytes = parser.parse_args().image_bytes
    asyncio.run(serve())

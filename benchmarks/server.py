"""A server that is faster than any client: HTTP/1.1 on `asyncio.Protocol`, kept alive, with answers made beforehand.

``python -m benchmarks.server`` prints its address, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from benchmarks.gateway import Gateway

if TYPE_CHECKING:
    from typing import cast
else:

    def cast(_: object, value: object) -> object:
        return value


LENGTH = b"content-length:"


class Connection(asyncio.Protocol):
    """One client's connection; one request at a time."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._received = b""
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.Transport", transport).write

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # asyncio's
        self._gateway.open -= self._counted

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        while (end := received.find(b"\r\n\r\n") + 4) > 3:
            if not received.startswith(b"GET"):
                end += _body_length(received[:end])
                if end > len(received):
                    break
            self._write(self._answer(received[:end]))
            received = received[end:]
        self._received = received

    def _answer(self, request: bytes) -> bytes:
        path = request.split(b" ", 2)[1]
        if path.startswith(b"/_"):
            return self._gateway.control(path, request.partition(b"\r\n\r\n")[2])
        if not self._counted:
            self._counted = True
            self._gateway.connections += 1
            self._gateway.open += 1
        if request.startswith(b"GET"):
            return self._gateway.ask(path.partition(b"?")[0])
        return self._gateway.create(path)


def _body_length(head: bytes) -> int:
    head = head.lower()
    at = head.find(LENGTH)
    return 0 if at < 0 else int(head[at + len(LENGTH) : head.find(b"\r\n", at)])


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    gateways: list[Gateway] = []
    server = await loop.create_server(lambda: Connection(gateways[0]), "127.0.0.1", 0, backlog=4096)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    gateways.append(Gateway(address))
    print(address, flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())

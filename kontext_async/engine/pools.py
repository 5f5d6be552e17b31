"""The connection pools of a session, on aiohttp: how long a connection may idle, and how large a head may be."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from socket import socket

    from aiohttp import AddrInfoType
    from yarl import URL

__all__ = ["CREATE_KEEP_ALIVE", "PARSER_LIMITS", "REPEATABLE_KEEP_ALIVE", "keep_read_buffers", "make_pool"]

CREATE_KEEP_ALIVE = 0.5
"""Seconds for which an idle connection may carry a create request. Servers close idle connections after a second at the
earliest, and a request that meets the closing on its way has an unknown outcome. The rest of the second is for the way.
``benchmarks/suite/idle_close.py`` shows what it costs."""

REPEATABLE_KEEP_ALIVE = 60.0
"""Seconds for which an idle connection may carry a request that can be repeated. This is longer than the gap between
two polls, so that a poll does not need a new connection."""

HEADER_BYTES = 256 * 1024
"""The longest line of a response's head. aiohttp's own limit is 8190 bytes, and a response that exceeds it is lost."""

HEADER_COUNT = 4096
"""The most headers of a response; likewise."""

READ_BUFFER = 256 * 1024
"""Bytes that asyncio allocates for each read of a socket, however few come (`asyncio.selector_events`, `max_size`)."""

PARSER_LIMITS: dict[str, Any] = {
    "max_line_size": HEADER_BYTES,
    "max_field_size": HEADER_BYTES,
    **({"max_headers": HEADER_COUNT} if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters else {}),
}
"""Arguments of a session or of a request. aiohttp counts headers from 3.14 on."""


def keep_read_buffers() -> None:
    """Have the memory of read buffers kept for the next read.

    glibc gets a block of that size from the kernel for each read, and returns it, until the process has freed a larger
    one (mallopt(3), M_MMAP_THRESHOLD). Whether that has happened by now is chance, and without it a status request
    costs up to a tenth more CPU. With another C library this has no effect.
    """
    bytes(2 * READ_BUFFER)


def make_pool(
    keep_alive: float,
    headers: Mapping[str, str],
    timeout: aiohttp.ClientTimeout,
    *,
    proxy: URL | None = None,
    socket_factory: Callable[[AddrInfoType], socket] | None = None,
    connector: type[aiohttp.TCPConnector] = aiohttp.TCPConnector,
) -> aiohttp.ClientSession:
    """Make a pool without cookies.

    Args:
        keep_alive: Seconds for which an idle connection is kept.
        headers: The headers of every request.
        timeout: The timeouts of every request that has none of its own.
        proxy: The proxy for every request. It is set once, because aiohttp's own lookup costs more than a request.
        socket_factory: Opens the sockets.
        connector: The class of the connector.
    """
    return aiohttp.ClientSession(
        connector=connector(limit=0, keepalive_timeout=keep_alive, socket_factory=socket_factory),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        timeout=timeout,
        proxy=proxy,
        **PARSER_LIMITS,
    )

"""Keeps downloads away from addresses that are not public: `decisions.networks` has the rules.

The guard judges the address that a socket is about to connect to, so no name can change its address in between. Through
a proxy, and with a user's own `aiohttp.ClientSession`, it can only judge before the request.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from kontext_async.decisions.networks import AddressRules

if TYPE_CHECKING:
    from aiohttp import AddrInfoType
    from yarl import URL

    from kontext_async.settings import Network

__all__ = ["AddressGuard", "ForbiddenAddress"]


LOOKUPS = 3
"""The most attempts to look up the base URL's host. A user's own session may know it by other means."""


class ForbiddenAddress(OSError):
    """A connection that was not made, because of its address. All have the same text, as aiohttp joins them by it."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "")

    def __str__(self) -> str:
        return "the URL leads to an address that is not public; Network.allow can permit its network"


class AddressGuard:
    """Judges the addresses of downloads.

    Args:
        base: The base URL. The network of its host is permitted, if that is loopback or private.
        network: The user's settings.
        lookup_seconds: The longest that looking up the base URL's host may take.
    """

    def __init__(self, base: URL, network: Network, lookup_seconds: float) -> None:
        self._rules = AddressRules(network.allow)
        self._lookup_seconds = lookup_seconds
        self._home: str | None = base.raw_host or ""
        if (literal := _literal(self._home)) is not None:
            self._rules = self._rules.with_home([literal])
            self._home = None
        self._lookup = asyncio.Lock()
        self._attempts = 0

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Open a socket for a permitted address: the `socket_factory` of a connector.

        Raises:
            ForbiddenAddress: The address is not permitted.
        """
        family, kind, protocol, _, address = info
        self._check(str(address[0]))
        return socket.socket(family, kind, protocol)

    def check_literal(self, url: URL) -> None:
        """Judge the host of a URL, if it is an address. A name is the proxy's to judge.

        Raises:
            ForbiddenAddress: The address is not permitted.
        """
        if (literal := _literal(url.raw_host or "")) is not None:
            self._check(literal)

    async def check_resolved(self, url: URL) -> None:
        """Judge the addresses of a URL's host. A name that has none here is left to the request.

        Raises:
            ForbiddenAddress: One of them is not permitted.
        """
        self.check_literal(url)
        for address in await _resolve(url.raw_host or "", self._lookup_seconds):
            self._check(address)

    async def find_home(self) -> None:
        """Look up the base URL's host before the first download; again before the next ones if it has no address."""
        if self._home is not None:
            async with self._lookup:
                await self._look_up_home()

    async def _look_up_home(self) -> None:
        if self._home is None:
            return
        addresses = await _resolve(self._home, self._lookup_seconds)
        self._attempts += 1
        if addresses or self._attempts >= LOOKUPS:
            self._rules = self._rules.with_home(addresses)
            self._home = None

    def _check(self, address: str) -> None:
        if not self._rules.permits(address):
            raise ForbiddenAddress


def _literal(host: str) -> str | None:
    """Return the address that a host is; None if it is a name that has to be looked up."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in name else socket.AF_INET, name)
    except OSError:
        return None
    return name


async def _resolve(host: str, seconds: float) -> list[str]:
    with suppress(OSError, UnicodeError):
        async with asyncio.timeout(seconds):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return [str(address[0]) for *_, address in found]
    return []

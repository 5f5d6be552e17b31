"""The proxy through which a URL is requested, by the usual variables of the environment. No I/O.

``HTTPS_PROXY`` is for https URLs, ``HTTP_PROXY`` for http URLs, ``ALL_PROXY`` for both where they are missing.
``NO_PROXY`` is a list of hosts that are reached directly, separated by commas or blanks:

=========================  =========================================================================================
entry                      it covers
=========================  =========================================================================================
``*``                      every host
``example.com``            the host and all below it, as do ``.example.com`` and ``*.example.com``
``example.com:8443``       the same, on this port only
``10.1.2.3``, ``[::1]``    the address, where the URL has it instead of a name
``10.0.0.0/8``             the addresses of the network, likewise
=========================  =========================================================================================
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.decisions.networks import IPAddress, IPNetwork

__all__ = ["ProxyRules"]

DEFAULT_PORTS = {"http": 80, "https": 443}
WITH_PORT = re.compile(r"(\[[^\]]+\]|[^:\[\]]+):(\d+)")


@frozen
class _Exception:
    """One entry of ``NO_PROXY``."""

    name: str = ""
    network: IPNetwork | None = None
    port: int | None = None

    @classmethod
    def parse(cls, entry: str) -> _Exception:
        port = None
        if match := WITH_PORT.fullmatch(entry):
            entry, port = match[1], int(match[2])
        entry = entry.strip("[]").lower()
        try:
            return cls(network=ip_network(entry, strict=False), port=port)
        except ValueError:
            return cls(name=entry.removeprefix("*").strip("."), port=port)

    def covers(self, host: str, address: IPAddress | None, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return bool(self.name) and (host == self.name or host.endswith(f".{self.name}"))


@frozen
class ProxyRules:
    """The proxies of one session.

    Attributes:
        proxies: The proxy's URL by the scheme of the request's URL.
        exceptions: The hosts that are reached directly.
        covers_all: True if every host is reached directly.
    """

    proxies: Mapping[str, str] = field(factory=dict, repr=False)
    exceptions: tuple[_Exception, ...] = ()
    covers_all: bool = False

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> ProxyRules:
        """Return the rules of an environment.

        Args:
            variables: The values of the variables ``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy``, by
                these names; those that are missing or empty say nothing.
        """
        common = variables.get("all_proxy", "")
        chosen = {scheme: variables.get(f"{scheme}_proxy") or common for scheme in DEFAULT_PORTS}
        entries = re.split(r"[,\s]+", variables.get("no_proxy", ""))
        return cls(
            {scheme: _with_scheme(proxy) for scheme, proxy in chosen.items() if proxy},
            tuple(_Exception.parse(entry) for entry in entries if entry and entry != "*"),
            "*" in entries,
        )

    @classmethod
    def always(cls, proxy: str) -> ProxyRules:
        """Return rules that send every request through one proxy."""
        return cls(dict.fromkeys(DEFAULT_PORTS, proxy))

    def find(self, scheme: str, host: str, port: int | None = None) -> str | None:
        """Return the URL of the proxy for a request; None if it goes to its host directly."""
        proxy = self.proxies.get(scheme)
        if proxy is None or self.covers_all:
            return None
        host = host.strip("[]").rstrip(".").lower()
        port = port or DEFAULT_PORTS[scheme]
        address = _parse_address(host)
        return None if any(each.covers(host, address, port) for each in self.exceptions) else proxy


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _parse_address(host: str) -> IPAddress | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address

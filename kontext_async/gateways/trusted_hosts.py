"""The hosts that may see the API key: the rules for an address that a gateway names in a response. Pure.

An address of a task is foreign data, and the key is sent to it. A host is trusted in these cases, and in no other:

======================================  ===============================================================================
host                                    on
======================================  ===============================================================================
the origin of the base URL              its own scheme and port
below a suffix of the dialect           https and port 443
an entry ``host`` of the user           https and port 443; if the base URL is on loopback, the port of the base URL
an entry ``host:port`` of the user      https and this port
======================================  ===============================================================================

For the last two, http is as good as https where the base URL is http on loopback, and nowhere else. An entry is one
host, never a suffix. Hosts are compared as ASCII names in lower case; a name with a dot at its end is another name, and
is not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from attrs import field, frozen

from kontext_async.base_errors import ConfigurationError
from kontext_async.decisions.urls import UnusableURL, resolve_reference, to_request_url
from kontext_async.redaction import safe_repr

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["TrustedHosts", "UntrustedAddress", "is_loopback"]

HTTPS_PORT = 443
ENTRY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]\\*]+)(?::(?P<port>[0-9]{1,5}))?")
ODD_START = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:(?!//)")
"""A scheme without a host: browsers take the rest for a path."""

LOCAL_NAMES = ("localhost", ".localhost")


class UntrustedAddress(ValueError):
    """The key must not be sent to this address. The reason names the origin of the address, if it has one."""


@frozen
class TrustedHosts:
    """The hosts that one session trusts.

    Attributes:
        base: The base URL.
        suffixes: The suffixes of the dialect, such as ``.bfl.ai``.
        named: The hosts and ports that the user named.
    """

    base: URL
    suffixes: tuple[str, ...] = ()
    named: frozenset[tuple[str, int]] = field(default=frozenset())

    @classmethod
    def of(cls, base: URL, suffixes: Iterable[str] = (), entries: Iterable[str] = ()) -> TrustedHosts:
        """Return the rules for a base URL, the suffixes of its dialect and the entries of the user.

        Raises:
            ConfigurationError: An entry is neither ``host`` nor ``host:port``.
        """
        if isinstance(entries, str | bytes) or not isinstance(entries, Iterable):
            raise ConfigurationError("trusted_hosts must be a list of hosts, not one text")
        default_port = _port_of(base) if is_loopback(base.raw_host or "") else HTTPS_PORT
        return cls(base, tuple(suffixes), frozenset(_read_entry(entry, default_port) for entry in entries))

    @property
    def permits_http(self) -> bool:
        """True if the base URL is http on loopback."""
        return self.base.scheme == "http" and is_loopback(self.base.raw_host or "")

    def check(self, text: str, relative_to: URL | None = None) -> URL:
        """Return an address that the key may be sent to.

        Args:
            text: The address as the gateway wrote it.
            relative_to: The URL that a relative address belongs to; None for the base URL.

        Raises:
            UntrustedAddress: The address is not trusted, or is unusable.
        """
        if not text.strip() or ODD_START.match(text) or "\\" in text:
            raise UntrustedAddress("the address is unusable: it is blank, or not written as a URL")
        try:
            url = resolve_reference(relative_to or self.base, text)
        except UnusableURL as unusable:
            raise UntrustedAddress(f"the address is unusable: {unusable}") from None
        if not self.covers(url):
            raise UntrustedAddress(f"{url.scheme}://{_host_of(url)}:{_port_of(url)} is not a trusted host")
        return url

    def covers(self, url: URL) -> bool:
        """Return True if the key may be sent to a URL."""
        if "@" in url.raw_authority:
            return False
        host, port = _host_of(url), _port_of(url)
        if (url.scheme, host, port) == (self.base.scheme, _host_of(self.base), _port_of(self.base)):
            return True
        if url.scheme != "https" and not self.permits_http:
            return False
        if (host, port) in self.named:
            return True
        is_below_suffix = any(host.endswith(suffix) and host != suffix for suffix in self.suffixes)
        return is_below_suffix and url.scheme == "https" and port == HTTPS_PORT


def is_loopback(host: str) -> bool:
    """Return True if a host of a URL is this machine: an address of the loopback network, or a name for it."""
    host = host.strip("[]").lower()
    if host == LOCAL_NAMES[0] or host.endswith(LOCAL_NAMES[1]):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _read_entry(entry: object, default_port: int) -> tuple[str, int]:
    rule = "trusted_hosts has hosts as 'host' or 'host:port', without a scheme, a path or a wildcard"
    match = ENTRY.fullmatch(entry) if isinstance(entry, str) else None
    if match is None:
        raise ConfigurationError(f"{safe_repr(entry)} is not allowed; {rule}")
    port = int(match["port"]) if match["port"] is not None else default_port
    try:
        url = to_request_url(f"https://{match['host']}:{port}/")
    except UnusableURL:
        raise ConfigurationError(f"{safe_repr(entry)} is not allowed; {rule}") from None
    host = _host_of(url)
    if not port or host.startswith(".") or host.endswith("."):
        raise ConfigurationError(f"{safe_repr(entry)} is not allowed; {rule}")
    return host, port


def _host_of(url: URL) -> str:
    """Return the host of a URL, to be compared: an address in its shortest form, a name in lower case."""
    host = (url.raw_host or "").lower()
    try:
        return str(ip_address(host.strip("[]")))
    except ValueError:
        return host


def _port_of(url: URL) -> int:
    return url.port or 0

"""The IP addresses that a download may lead to. The gateway names the URL, so it may name any address. No I/O.

The table is our own: `ipaddress.is_global` differs between Python's patch releases. It follows the special-purpose
registries of IANA (RFC 6890) and stays on the safe side: of IPv6, only global unicast addresses are public.

====================================  =================================================================================
address                               permitted
====================================  =================================================================================
public                                always
IPv4 in IPv6: mapped, or NAT64        as the IPv4 address in it
6to4, Teredo, IPv4-compatible         only with `Network.allow`: such an address may lead to any IPv4 address
loopback, private, shared             if the base URL is on the same network, or with `Network.allow`
link-local, multicast, reserved       only with `Network.allow`
metadata services of clouds           never: they hand out credentials
====================================  =================================================================================
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AddressRules"]

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

LOOPBACK: tuple[IPNetwork, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

PRIVATE: tuple[IPNetwork, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),  # shared by the customers of a carrier (RFC 6598)
    IPv4Network("198.18.0.0/15"),  # benchmarks (RFC 2544)
    IPv6Network("fc00::/7"),
)

METADATA = frozenset(
    {
        IPv4Address("169.254.169.254"),  # AWS, Azure, Google and others
        IPv4Address("169.254.170.2"),  # AWS, for containers
        IPv4Address("100.100.100.200"),  # Alibaba
        IPv4Address("168.63.129.16"),  # Azure
        IPv4Address("192.0.0.192"),  # Oracle
        IPv6Address("fd00:ec2::254"),  # AWS
        IPv6Address("fd20:ce::254"),  # Google
    }
)

NOT_PUBLIC_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")

NOT_PUBLIC_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, Teredo and benchmarks among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)

NAT64 = IPv6Network("64:ff9b::/96")


@frozen
class AddressRules:
    """The rules of one session.

    Attributes:
        allowed: Networks that are permitted although they are not public.
    """

    allowed: tuple[IPNetwork, ...] = ()

    def permits(self, address: str) -> bool:
        """Return True if a download may connect to an address. Text that is no address is refused."""
        try:
            judged = _embedded(ip_address(address))
        except ValueError:
            return False
        if judged in METADATA:
            return False
        return _is_public(judged) or any(judged in network for network in self.allowed)

    def with_home(self, addresses: Iterable[str]) -> AddressRules:
        """Return rules that also permit the loopback or private networks on which the base URL is.

        Args:
            addresses: The addresses of the base URL's host. Text that is no address is ignored.
        """
        home: dict[IPNetwork, None] = {}
        for address in addresses:
            home.update(dict.fromkeys(_home_networks(address)))
        return evolve(self, allowed=(*self.allowed, *home))


def _home_networks(address: str) -> tuple[IPNetwork, ...]:
    try:
        host = _embedded(ip_address(address))
    except ValueError:
        return ()
    if any(host in network for network in LOOPBACK):
        return LOOPBACK
    return tuple(network for network in PRIVATE if host in network)


def _embedded(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 address stands for, or else the address without its zone."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    plain = IPv6Address(int(address))
    return IPv4Address(int(plain) & 0xFFFFFFFF) if plain in NAT64 else plain


def _is_public(address: IPAddress) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    return address in GLOBAL_UNICAST_V6 and not any(address in network for network in NOT_PUBLIC_V6)

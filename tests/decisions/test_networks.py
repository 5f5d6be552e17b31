"""The addresses that a download may lead to."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from kontext_async.decisions.networks import METADATA, AddressRules

PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.169.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111", "2a00::1"]

FORBIDDEN = [
    "0.0.0.0",  # noqa: S104 # an address to refuse
    "0.1.2.3",
    "10.0.0.7",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:a00:7",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", [*PUBLIC, "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_a_public_address_is_permitted(address: str) -> None:
    assert AddressRules().permits(address)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not AddressRules().permits(address)


@pytest.mark.parametrize("text", ["", "localhost", "2130706433", "127.1", "0x7f.0.0.1", "[::1]", "1.1.1.1:80"])
def test_text_that_is_no_address_is_refused(text: str) -> None:
    assert not AddressRules().permits(text)


@pytest.mark.parametrize(
    ("home", "permitted", "refused"),
    [
        ("127.0.0.1", ["127.0.0.9", "::1", "::ffff:127.0.0.1"], ["10.0.0.1", "169.254.169.254", "::"]),
        ("::1", ["127.0.0.1", "::1"], ["fc00::1", "10.0.0.1"]),
        ("10.1.2.3", ["10.9.9.9", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1"], ["127.0.0.1", "192.168.0.1", "172.16.0.1"]),
        ("192.168.0.1", ["192.168.255.1"], ["10.0.0.1", "169.254.1.1"]),
        ("100.64.0.1", ["100.65.0.1"], ["100.100.100.200", "10.0.0.1"]),
        ("fd00::1", ["fc12::1"], ["fd00:ec2::254", "fe80::1", "::1"]),
        ("::ffff:10.0.0.1", ["10.0.0.2"], ["127.0.0.1"]),
        ("169.254.7.7", [], ["169.254.7.7", "169.254.169.254"]),
        ("fe80::1", [], ["fe80::1"]),
        ("8.8.8.8", ["8.8.4.4"], ["10.0.0.1", "127.0.0.1"]),
        ("gateway.example", ["8.8.4.4"], ["10.0.0.1", "127.0.0.1"]),
    ],
)
def test_the_network_of_the_base_url_is_permitted(home: str, permitted: list[str], refused: list[str]) -> None:
    rules = AddressRules().with_home([home])
    assert [address for address in permitted if not rules.permits(address)] == []
    assert [address for address in refused if rules.permits(address)] == []


def test_a_setting_permits_a_network() -> None:
    rules = AddressRules((ip_network("10.0.0.0/8"), ip_network("2002::/16")))
    assert rules.permits("10.0.0.7")
    assert rules.permits("::ffff:10.0.0.7")
    assert rules.permits("2002:808:808::1")
    assert not rules.permits("192.168.0.1")


def test_the_metadata_services_of_clouds_are_never_permitted() -> None:
    rules = AddressRules((ip_network("0.0.0.0/0"), ip_network("::/0"))).with_home(["127.0.0.1", "169.254.169.254"])
    assert rules.permits("169.254.1.1")
    assert not any(rules.permits(str(address)) for address in METADATA)
    assert not rules.permits("::ffff:169.254.169.254")
    assert not rules.permits("64:ff9b::169.254.169.254")

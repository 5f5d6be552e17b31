"""The hosts that may see the key, tried with addresses that an attacker would write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st
from yarl import URL

from kontext_async.errors import ConfigurationError
from kontext_async.gateways.trusted_hosts import TrustedHosts, UntrustedAddress, is_loopback

GLOBAL = "https://api.bfl.ai"
SUFFIXES = (".bfl.ai",)


def rules(base: str = GLOBAL, *entries: str, suffixes: tuple[str, ...] = SUFFIXES) -> TrustedHosts:
    return TrustedHosts.of(URL(base), suffixes, entries)


def trusts(hosts: TrustedHosts, address: str) -> bool:
    try:
        hosts.check(address)
    except UntrustedAddress:
        return False
    return True


@pytest.mark.parametrize(
    "address",
    [
        "https://api.bfl.ai/v1/get_result?id=1",
        "https://api.us1.bfl.ai/v1/get_result?id=1",
        "https://api.eu2.bfl.ai/v1/get_result?id=1",
        "https://api.ice.bfl.ai/v1/get_result?id=1",
        "https://gateway.bfl.ai/v1/get_result?id=1",
        "https://API.US1.BFL.AI/v1/get_result?id=1",
        "HTTPS://api.us1.bfl.ai/v1/get_result?id=1",
        "https://api.us1.bfl.ai:443/v1/get_result?id=1",
        "  https://api.us1.bfl.ai/v1/get_result?id=1\n",
        "/v1/get_result?id=1",
        "v1/get_result?id=1",
        "?id=1",
        "//api.us1.bfl.ai/v1/get_result?id=1",
    ],
)
def test_the_documented_hosts_are_trusted(address: str) -> None:
    url = rules().check(address)
    assert url.scheme == "https"
    assert (url.host or "").endswith(".bfl.ai")


@pytest.mark.parametrize(
    "address",
    [
        "",
        " ",
        "https://",
        "https:///v1",
        "http://api.us1.bfl.ai/v1/get_result?id=1",
        "http://api.bfl.ai/v1/get_result?id=1",
        "https://api.us1.bfl.ai:8443/",
        "https://api.us1.bfl.ai:80/",
        "https://api.us1.bfl.ai:0/",
        "https://api.us1.bfl.ai:99999/",
        "https://evil.example/.bfl.ai",
        "https://evil.example/?x=.bfl.ai",
        "https://evil.example#.bfl.ai",
        "https://evil.example#@api.bfl.ai",
        "https://evilbfl.ai/",
        "https://bfl.ai.evil.example/",
        "https://api.bfl.ai.evil.example/",
        "https://bfl.ai/",
        "https://.bfl.ai/",
        "https://api.bfl.ai./",
        "https://api.us1.bfl.ai./",
        "https://api.bfl.ai@evil.example/",
        "https://api.bfl.ai:443@evil.example/",
        "https://evil.example@api.bfl.ai/",
        "https://user:password@api.bfl.ai/",
        "https://@api.bfl.ai/",
        "https://evil.example\\.bfl.ai/",
        "https://evil.example\\@api.bfl.ai/",
        "https:\\\\api.bfl.ai/",
        "https://evil.example%2F.bfl.ai/",
        "https://evil.example%00.bfl.ai/",
        "https://api%2ebfl.ai/",
        "https://evil.example\t.bfl.ai/",
        "https://evil.example\n.bfl.ai/",
        "https://evil.example\x00.bfl.ai/",
        "https://evil.example .bfl.ai/",
        "https://evil.example;.bfl.ai/",
        "https://evil.example,.bfl.ai/",
        "https://evil.example?.bfl.ai",
        "https://a..bfl.ai/",
        f"https://{'a' * 64}.bfl.ai/",
        "https://api。evil。example/",
        "https://bf1.ai/",
        "https://api.bfl.аi/",  # noqa: RUF001 # a Cyrillic letter
        "https://api.xn--bfl-8cd.ai/",
        "https://api.bfl.ml/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://[::ffff:127.0.0.1]/",
        "https://localhost/",
        "//evil.example/v1",
        "///evil.example/v1/../..//evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:text/plain,x",
        "ftp://api.bfl.ai/",
        "wss://api.bfl.ai/",
        "\ud800",
        "https://api.bfl.ai/\ud800",
    ],
)
def test_a_hostile_address_is_not_trusted(address: str) -> None:
    assert not trusts(rules(), address)


@given(st.text(alphabet="abfl.i/\\@:?#%[]0123456789- \t\n。", max_size=40))
def test_no_address_leads_elsewhere(text: str) -> None:
    """Whatever follows the scheme, a trusted address leads to a host below the suffix, by https, on port 443."""
    try:
        url = rules().check(f"https://{text}")
    except UntrustedAddress:
        return
    assert url.scheme == "https"
    assert url.port == 443
    assert (url.raw_host or "").lower().endswith(".bfl.ai")
    assert url.raw_user is None
    assert URL(str(url)).raw_host == url.raw_host


def test_an_older_suffix_is_trusted_only_below_such_a_base() -> None:
    assert not trusts(rules(), "https://api.us1.bfl.ml/v1")
    assert trusts(rules("https://api.bfl.ml", suffixes=(".bfl.ai", ".bfl.ml")), "https://api.us1.bfl.ml/v1")


def test_the_origin_of_the_base_url_is_trusted() -> None:
    private = rules("https://images.example:8443/bfl")
    assert trusts(private, "https://images.example:8443/anything")
    assert trusts(private, "/anything")
    assert not trusts(private, "https://images.example/anything")
    assert not trusts(private, "http://images.example:8443/anything")
    assert not trusts(private, "https://other.images.example:8443/")


class TestEntries:
    def test_an_entry_is_one_host_on_port_443(self) -> None:
        hosts = rules(GLOBAL, "poll.example")
        assert trusts(hosts, "https://poll.example/v1")
        assert trusts(hosts, "https://POLL.example:443/v1")
        for address in (
            "https://a.poll.example/",
            "https://poll.example:8443/",
            "http://poll.example/",
            "https://xpoll.example/",
        ):
            assert not trusts(hosts, address)

    def test_an_entry_may_name_a_port(self) -> None:
        hosts = rules(GLOBAL, "poll.example:8443", "[2001:DB8::1]:444")
        assert trusts(hosts, "https://poll.example:8443/")
        assert trusts(hosts, "https://[2001:db8:0::1]:444/")
        assert not trusts(hosts, "https://poll.example/")
        assert not trusts(hosts, "https://[2001:db8::1]/")

    def test_on_loopback_an_entry_has_the_port_of_the_base_url(self) -> None:
        hosts = rules("http://127.0.0.1:8080", "localhost", "other.test:9090")
        assert trusts(hosts, "http://localhost:8080/v1")
        assert trusts(hosts, "http://other.test:9090/v1")
        assert trusts(hosts, "http://127.0.0.1:8080/v1")
        assert not trusts(hosts, "http://localhost/v1")
        assert not trusts(hosts, "http://localhost:8081/v1")
        assert not trusts(hosts, "http://127.0.0.2:8080/v1")
        assert trusts(rules("https://127.0.0.1:8443", "localhost"), "https://localhost:8443/")

    def test_http_is_trusted_only_with_a_base_url_that_is_http_on_loopback(self) -> None:
        for base in ("https://127.0.0.1:8080", "https://api.bfl.ai", "http://10.0.0.1:8080"):
            assert not trusts(rules(base, "poll.example:8080"), "http://poll.example:8080/")
        assert not trusts(rules("http://127.0.0.1:8080"), "http://api.us1.bfl.ai/")
        assert not trusts(rules("http://127.0.0.1:8080"), "http://api.us1.bfl.ai:443/")

    @pytest.mark.parametrize(
        "entry",
        [
            "",
            " ",
            "*",
            "*.bfl.ai",
            ".bfl.ai",
            "bfl.ai.",
            "https://poll.example",
            "poll.example/v1",
            "poll.example:0",
            "poll.example:99999",
            "poll.example:https",
            "poll.example:",
            "user@poll.example",
            "a b",
            "a,b",
            "poll.example\n",
            "a..b",
            "1",
            None,
            7,
            b"poll.example",
        ],
    )
    def test_anything_else_is_a_configuration_error(self, entry: Any) -> None:
        with pytest.raises(ConfigurationError, match="trusted_hosts"):
            rules(GLOBAL, entry)

    def test_one_text_is_not_a_list(self) -> None:
        with pytest.raises(ConfigurationError, match="not one text"):
            TrustedHosts.of(URL(GLOBAL), (), "poll.example")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "::ffff:127.0.0.1"]
)
def test_loopback_is_recognized(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example", "xlocalhost", "128.0.0.1", "127.0.0.1.example", "::2", "10.0.0.1"]
)
def test_another_host_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_the_reason_names_the_origin_and_no_query() -> None:
    with pytest.raises(UntrustedAddress, match=r"https://evil\.example:8443 is not a trusted host") as caught:
        rules().check("https://evil.example:8443/v1?id=secret")
    assert "secret" not in str(caught.value)

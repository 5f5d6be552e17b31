"""The proxy for a URL, by the usual variables of the environment."""

from __future__ import annotations

import pytest

from kontext_async.decisions.proxies import ProxyRules

PROXY = "http://proxy.example:3128"
OTHER = "http://other.example:3128"


@pytest.mark.parametrize(
    ("variables", "https", "http"),
    [
        ({}, None, None),
        ({"https_proxy": PROXY}, PROXY, None),
        ({"http_proxy": PROXY}, None, PROXY),
        ({"all_proxy": PROXY}, PROXY, PROXY),
        ({"all_proxy": PROXY, "http_proxy": OTHER}, PROXY, OTHER),
        ({"all_proxy": PROXY, "no_proxy": "*"}, None, None),
        ({"https_proxy": "proxy.example:3128"}, PROXY, None),
        ({"https_proxy": "user:secret@proxy.example:3128"}, "http://user:secret@proxy.example:3128", None),
    ],
)
def test_the_scheme_of_the_url_selects_the_proxy(
    variables: dict[str, str], https: str | None, http: str | None
) -> None:
    rules = ProxyRules.from_variables(variables)
    assert rules.find("https", "gateway.example", 443) == https
    assert rules.find("http", "gateway.example", 80) == http


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("example.com", ["example.com", "a.example.com", "EXAMPLE.com.", "a.b.example.com"], ["badexample.com"]),
        (".example.com", ["example.com", "a.example.com"], ["badexample.com"]),
        ("*.example.com", ["a.example.com"], ["badexample.com"]),
        ("a.example, b.example\tc.example", ["a.example", "b.example", "c.example"], ["d.example"]),
        ("example.com:8443", [], ["example.com"]),
        ("example.com:443", ["example.com", "a.example.com"], []),
        ("10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "10.example"]),
        ("10.1.2.3", ["10.1.2.3"], ["10.1.2.4"]),
        ("10.1.2.3:443", ["10.1.2.3"], []),
        ("10.1.2.3:80", [], ["10.1.2.3"]),
        ("::1", ["::1", "[::1]", "0:0::1"], ["::2"]),
        ("[::1]:443", ["::1"], []),
        ("fd00::/8", ["fd12::1"], ["fe80::1"]),
        ("localhost,127.0.0.1", ["localhost", "127.0.0.1"], ["127.0.0.2"]),
        (",, ", [], ["example.com"]),
        ("[::", [], ["example.com"]),
    ],
)
def test_no_proxy_lists_what_is_reached_directly(no_proxy: str, direct: list[str], proxied: list[str]) -> None:
    rules = ProxyRules.from_variables({"all_proxy": PROXY, "no_proxy": no_proxy})
    assert [host for host in direct if rules.find("https", host, 443)] == []
    assert [host for host in proxied if not rules.find("https", host, 443)] == []


def test_a_proxy_of_the_settings_is_for_every_host() -> None:
    rules = ProxyRules.always(PROXY)
    assert rules.find("https", "localhost", 443) == rules.find("http", "10.0.0.1", 80) == PROXY


def test_the_repr_of_the_rules_has_no_password() -> None:
    assert "secret" not in repr(ProxyRules.from_variables({"all_proxy": "http://user:secret@proxy.example"}))

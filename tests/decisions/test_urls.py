"""URLs as they are sent: byte for byte, and only those that a request can be sent to."""

from __future__ import annotations

import pytest
from yarl import URL

from kontext_async.decisions.urls import (
    RedirectRefused,
    UnusableURL,
    follow_redirect,
    resolve_reference,
    to_request_url,
)


@pytest.mark.parametrize(
    "target",
    [
        "/a.png?sig=a%2Fb%2Bc%3D&x=%7E",
        "/a%2fb/../c/./d?x=1+2&y=%zz&z=%",
        "//double//slash?a?b",
        "/q?x=\"<>`{|}^\\'()*!,;:@[]",
        "/~user/%7Euser?%C3%A9",
        "/?",
    ],
)
@pytest.mark.parametrize("origin", ["http://h", "https://H.Example:8443", "http://1.2.3.4", "http://[::1]:80"])
def test_what_can_be_sent_stays_byte_for_byte(origin: str, target: str) -> None:
    assert to_request_url(origin + target).raw_path_qs == target.removesuffix("?")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/a b?c d", "/a%20b?c%20d"),
        ("/a\tb\r\nc\x00", "/a%09b%0D%0Ac"),
        ("/é?ü=~", "/%C3%A9?%C3%BC=~"),
        ("/a\udce9b", "/a%E9b"),  # a byte of a header that is no UTF-8
        ("/a%20b c", "/a%20b%20c"),
        ("?x=1", "/?x=1"),
        ("", "/"),
        ("/a#part", "/a"),
    ],
)
def test_only_what_cannot_be_sent_is_quoted(written: str, sent: str) -> None:
    assert to_request_url(f" http://h{written}\n").raw_path_qs == sent


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://bücher.example/x", "xn--bcher-kva.example"),
        ("http://a_b.example/", "a_b.example"),
        ("http://example.com./", "example.com."),
        ("http://user:p%40ss@h/", "h"),
        ("http://\uff11\uff12\uff17.0.0.1/", "127.0.0.1"),
        ("HTTP://H/", "H"),
    ],
)
def test_a_host_is_sent_in_its_ascii_form(url: str, host: str) -> None:
    assert to_request_url(url).raw_host == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/a.png",
        "ftp://h/a",
        "file:///etc/passwd",
        "data:image/png;base64,AA==",
        "http:h",
        "http://",
        "http:///a",
        "http://a..b/x.png",
        f"http://{'a' * 64}.example/x.png",
        f"http://{'a.' * 127}example/",
        "http://a b/",
        "http://a%2eb/",
        "http://h:99999/",
        "http://h:x/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://[1.2.3.4]/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://127.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://127.0.0.256/",
        "http://evil.example\\@h/",
        "http://h/\ud800",
        "http://-\x00-/",
    ],
)
def test_a_url_that_no_request_can_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(UnusableURL):
        to_request_url(url)


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ("https://c.example/x?y=%7E", "https://c.example/x?y=%7E"),
        ("//c.example/x", "http://c.example/x"),
        ("/x?y=a%2Fb", "http://h:8080/x?y=a%2Fb"),
        ("?y=%7E", "http://h:8080/a/b?y=%7E"),
        ("c?y=%7E", "http://h:8080/a/c?y=%7E"),
        ("../c", "http://h:8080/c"),
        ("http:/c", "http://h:8080/c"),
        ("http:c", "http://h:8080/a/c"),
        ("", "http://h:8080/a/b?q=1"),
        (" /x y", "http://h:8080/x%20y"),
    ],
)
def test_a_reference_is_resolved_without_rewriting_it(reference: str, meant: str) -> None:
    assert str(resolve_reference(URL("http://h:8080/a/b?q=1", encoded=True), reference)) == meant


@pytest.mark.parametrize("location", ["ftp://h/a", "javascript:alert(1)", "//a..b/x", "http://[::1/", "https:c", "a:b"])
def test_a_redirect_to_no_usable_url_is_refused(location: str) -> None:
    with pytest.raises(UnusableURL):
        follow_redirect(URL("http://h/a"), location)


def test_a_redirect_does_not_leave_https() -> None:
    assert follow_redirect(URL("http://h/"), "https://h/x").scheme == "https"
    assert follow_redirect(URL("https://h/"), "//c.example/x").scheme == "https"
    with pytest.raises(RedirectRefused):
        follow_redirect(URL("https://h/"), "http://h/x")

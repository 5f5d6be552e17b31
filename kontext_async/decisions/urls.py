"""Foreign URLs as they are sent: byte for byte, because a signature covers how they are written. No I/O.

Only what a request line cannot carry is quoted: blanks, control characters and non-ASCII. Hosts are strict: a name, or
an address in its usual form, so that nobody on the way understands another one.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import quote_from_bytes

from yarl import URL

__all__ = ["RedirectRefused", "UnusableURL", "follow_redirect", "resolve_reference", "to_request_url"]

PARTS = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^/?#]*)@)?(?P<host>\[[^\]/?#@]*\]|[^:/?#@\[\]]*)(?::(?P<port>[0-9]*))?"
    r"(?P<rest>[/?].*)?",
    re.IGNORECASE | re.DOTALL,
)
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
NOT_SENDABLE = re.compile(r"[^\x21-\x7e]+")
AROUND = "".join(map(chr, range(0x21)))
"""Characters that belong to no URL and are removed at its ends, as browsers do."""

HOST_NAME = re.compile(r"(?=.{1,253}\.?\Z)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
NUMBER = re.compile(r"\d+|0[xX][0-9A-Fa-f]*")
IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)")


class UnusableURL(ValueError):
    """The text is no http(s) URL that a request can be sent to. The reason contains nothing of it."""


class RedirectRefused(ValueError):
    """A redirect leads where it must not lead."""


def to_request_url(text: str) -> URL:
    """Return an absolute http(s) URL for a request, without its fragment.

    Raises:
        UnusableURL: It is not an http(s) URL, or its host or port is invalid.
    """
    match = PARTS.fullmatch(text.strip(AROUND).partition("#")[0])
    if match is None:
        raise UnusableURL("it is not an http(s) URL")
    user = f"{_quote(match['user'])}@" if match["user"] is not None else ""
    host = _check_host(match["host"])
    port = f":{match['port']}" if match["port"] else ""
    target = _quote(match["rest"] or "/")
    try:
        url = URL(f"{match['scheme'].lower()}://{user}{host}{port}{target}", encoded=True)
        url.port  # noqa: B018 # yarl checks its range here
    except ValueError:
        raise UnusableURL("its user or its port is invalid") from None
    return url


def resolve_reference(base: URL, text: str) -> URL:
    """Return the URL that a reference means: an absolute URL, or one that is relative to `base`.

    Raises:
        UnusableURL: It does not lead to an http(s) URL.
    """
    text = text.strip(AROUND)
    if (scheme := SCHEME.match(text)) and not text.lower().startswith(f"{base.scheme}:"):
        return to_request_url(text)
    if scheme:  # "http:path" is relative, as browsers see it
        rest = text[scheme.end() :]
        if rest.startswith("//"):
            return to_request_url(text)
        text = rest
    authority = f"{base.scheme}://{base.raw_authority}"
    if text.startswith("//"):
        return to_request_url(f"{base.scheme}:{text}")
    if text.startswith("/"):
        return to_request_url(authority + text)
    if text.startswith("?"):
        return to_request_url(authority + base.raw_path + text)
    try:
        joined = base.join(URL(_quote(text), encoded=True))
    except ValueError:
        raise UnusableURL("it is not a URL") from None
    return to_request_url(str(joined))


def follow_redirect(current: URL, location: str) -> URL:
    """Return the URL to which a response redirects.

    Args:
        current: The URL of the request.
        location: The ``Location`` header.

    Raises:
        UnusableURL: It does not lead to an http(s) URL.
        RedirectRefused: It leaves https.
    """
    target = resolve_reference(current, location)
    if current.scheme == "https" and target.scheme != "https":
        raise RedirectRefused("it redirects from https to http")
    return target


def _quote(text: str) -> str:
    """Quote what cannot be sent. Bytes that a header carried although they are no UTF-8 stay the same bytes."""
    try:
        return NOT_SENDABLE.sub(lambda match: quote_from_bytes(match[0].encode("utf-8", "surrogateescape")), text)
    except UnicodeEncodeError:
        raise UnusableURL("it is not valid Unicode") from None


def _check_host(host: str) -> str:
    """Return a host as a request needs it: an international name in its ASCII form."""
    try:
        if host.startswith("["):
            _check_ipv6(host[1:-1])
            return host
        name = host if host.isascii() else URL.build(scheme="http", host=host).raw_host or ""
    except ValueError:
        raise UnusableURL("its host is invalid") from None
    if HOST_NAME.fullmatch(name) is None:
        raise UnusableURL("its host is invalid")
    if NUMBER.fullmatch(name.rstrip(".").rpartition(".")[2]) and IPV4.fullmatch(name) is None:
        raise UnusableURL("its host is an address in an unusual form")
    return name


def _check_ipv6(text: str) -> None:
    if IPv6Address(text).scope_id is not None:
        raise UnusableURL("its host has a zone")

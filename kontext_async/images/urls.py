"""URLs as input images: those that the gateway downloads, and those that name a file. No I/O."""

from __future__ import annotations

import os
import re
from ipaddress import IPv6Address
from typing import TypeGuard
from urllib.parse import unquote_to_bytes, urlsplit

__all__ = ["MAX_URL_LENGTH", "has_scheme", "is_file_url", "is_url", "parse_file_url", "rule_against_url"]

MAX_URL_LENGTH = 65_536
"""The most characters of a URL. Servers accept 8 KiB; a longer text is most likely something else."""

MAX_HOST_LENGTH = 253
"""The most characters of a host name (RFC 1035, section 2.3.4, as text)."""

SCHEME = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*://|https?:|file:/)", re.IGNORECASE)
HOST = re.compile(r"[a-z0-9._-]+", re.IGNORECASE)

CHARACTERS_RULE = "a URL must name a host, and have no spaces, backslashes or control characters"
CREDENTIALS_RULE = (
    "a URL must not have a user or a password, because the gateway would receive them; "
    "download the image and pass its bytes"
)


def is_url(text: object) -> TypeGuard[str]:
    """Return True for a URL that the gateway can download."""
    return isinstance(text, str) and text[:8].lower().startswith(("http://", "https://"))


def is_file_url(text: str) -> bool:
    """Return True for the URL of a file (RFC 8089): ``file:///path``, ``file://localhost/path`` or ``file:/path``."""
    return text[:6].lower() == "file:/"


def has_scheme(text: str) -> bool:
    """Return True for a text that is meant as a URL, valid or not. Blanks may precede it."""
    return SCHEME.match(text) is not None


def rule_against_url(url: str) -> str | None:
    """Return the rule that an http(s) URL breaks; None if it breaks none.

    Non-ASCII characters are allowed, in the host too. The gateway decides whether it can download the URL.
    """
    if len(url) > MAX_URL_LENGTH:
        return f"a URL may have at most {MAX_URL_LENGTH} characters"
    if not url.isprintable() or " " in url or "\\" in url:
        return CHARACTERS_RULE
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "a URL must name a valid host, and a port of at most 65535 if it names one"
    if "@" in parts.netloc:
        return CREDENTIALS_RULE
    if not host:
        return CHARACTERS_RULE
    return None if _is_host(host) else "a URL must name a valid host"


def parse_file_url(url: str) -> str:
    """Return the path that the URL of a file names.

    Raises:
        ValueError: It names another host, or no path. The text is the rule.
    """
    path = url[len("file:") :]
    if path.startswith("//"):
        host, slash, rest = path[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise ValueError("a file URL must name a file on this computer: file:///path")
        path = slash + rest
    if not path.isprintable() or "?" in path or "#" in path:
        raise ValueError("a file URL must have '?', '#' and control characters percent-encoded")
    decoded = os.fsdecode(unquote_to_bytes(path))
    if not decoded.strip("/") or "\0" in decoded:
        raise ValueError("a file URL must name a file: file:///path")
    return decoded


def _is_host(host: str) -> bool:
    """Return True for an IPv6 address, or for a name whose labels have 1 to 63 characters in ASCII (RFC 5890)."""
    try:
        if ":" in host:
            IPv6Address(host)
            return True
        name = host.removesuffix(".")
        encoded = name.encode("idna").decode() if len(name) <= MAX_HOST_LENGTH else ""
    except ValueError:  # UnicodeError among them
        return False
    return 0 < len(encoded) <= MAX_HOST_LENGTH and HOST.fullmatch(encoded) is not None and not encoded.endswith(".")

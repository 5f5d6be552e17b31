"""Passwords in the URLs of proxies and stores: recognized, and hidden in what is printed. Pure."""

from __future__ import annotations

import re

__all__ = ["contains_password", "hide_passwords"]

USER = re.compile(r"(?<=://)[^/?#\s]*(?=@)")
"""The user and the password of a URL."""

PARAMETER = re.compile(r"(?<=password=)[^&\s]+", re.IGNORECASE)
"""A password among the parameters of a URL, which are those of libpq."""


def contains_password(url: str) -> bool:
    """Return True if the URL of a store contains a password, even one with signs that should have been escaped."""
    scheme, _, rest = url.partition("://")
    if scheme.lower().startswith("sqlite"):
        return False
    return ":" in rest.rpartition("@")[0] or PARAMETER.search(rest) is not None


def hide_passwords(text: str) -> str:
    """Return a text in which ``***`` stands for the users and passwords of URLs."""
    return PARAMETER.sub("***", USER.sub("***", text))

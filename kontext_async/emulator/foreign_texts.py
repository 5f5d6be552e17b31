"""Texts that a client must not pass on as they come: the API key in every disguise, and control characters. Pure."""

from __future__ import annotations

CUT_LENGTH = 500
"""The length at which clients often cut a foreign text."""

KEY_PLACE = "\N{PLACE OF INTEREST SIGN}"
"""Stands for the key while its place in a body is computed."""

CONTROL_TEXTS = {
    "escape": "\x1b]0;a forged title\x07\x1b[2J\x1b[31mred\x1b[0m\x9b31m",
    "bell": "\a\b\v\f\x7f",
    "line-break": "first\r\n2026-01-09 12:00:00 INFO a forged line\r\x85\u2028\u2029last",
    "nul": "before\0after",
    "direction": "\u202egnp.exe\u202c \u2066inside\u2069 \u200f\ufeff",
}
"""The control characters of each variant, with some text."""


def extract_key(header: str) -> str:
    """Return the key of an Authorization header."""
    return header.partition(" ")[2].strip() or header


def build_control_message(variant: str) -> str:
    """Return an error's message with the control characters of a variant."""
    return f"the request is invalid: {CONTROL_TEXTS[variant]}"


def build_key_message(header: str, variant: str, prefix: int = 0) -> str:
    """Return an error's message that repeats the key of an Authorization header.

    Args:
        header: The header's value.
        variant: The disguise of the key.
        prefix: The length of the text before the message, for a key that straddles the place of a cut.
    """
    key = extract_key(header)
    match variant:
        case "straddling" | "straddling-body":
            return _fill(prefix, key)
        case "percent-encoded":
            return "no account for " + "".join(f"%{byte:02X}" for byte in key.encode(errors="surrogateescape"))
        case "url":
            return f"GET https://accounts.internal.example/v1/keys/{key}/check?token={key} failed"
        case _:
            return f"invalid header: Authorization: {header}"


def _fill(prefix: int, key: str) -> str:
    """Return a message in which the key straddles the place of a cut, in the message itself or behind `prefix`."""
    start = max(0, CUT_LENGTH - prefix - len(key) // 2)
    filler = "the key is not valid. " * (1 + CUT_LENGTH // 20)
    return f"{filler[:start]}{key} {filler[:100]}"


def escape_key(body: bytes, header: str) -> bytes:
    """Return a JSON body in which each character of the key is written as an escape."""
    key = extract_key(header)
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key)
    return body.replace(key.encode(errors="surrogateescape"), escaped.encode())

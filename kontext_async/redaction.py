"""Functions that make foreign values safe to show: bounded, printable, without secrets and without payloads."""

from __future__ import annotations

import re
import reprlib
from functools import lru_cache
from urllib.parse import quote, urlsplit

from attrs import frozen

__all__ = [
    "clean_text",
    "clean_url",
    "contains_secret",
    "redact_text",
    "safe_repr",
    "strip_query",
    "truncate",
    "truncate_body",
]

TRUNCATED_LENGTH = 500
"""The most characters of foreign text in an error."""

VALUE_LENGTH = 120
"""The most characters of a user's value in an error."""

VALUE_BITS = 256
"""Bits from which on only the size of an integer is shown."""

PAYLOAD = re.compile(r"[A-Za-z0-9+/=_-]{120,}")
"""A long run of base64: an image that a body echoes, never part of an explanation."""


REDACTED = "***"

HEAD_LENGTH = 8
"""Characters of a secret that identify it. A piece of a secret that begins with them is replaced like the whole."""

TAIL_LENGTH = 4
"""The fewest characters of a secret that are replaced at the end of a text, where something cut it off."""

INVISIBLE = (
    r"\x00-\x1f\x7f-\x9f"  # controls
    r"\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\uffff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e007f"  # format characters: some reorder a line, some have no width
    r"\u2028\u2029"  # line separators
    r"\ud800-\udfff"  # lone surrogates
)
"""The inside of a character class: characters that a terminal obeys or that nobody can see."""

VISIBLE_LETTER = rf"[^\x00-\x7f\u200c\u200d{INVISIBLE}]"

UNPRINTABLE = re.compile(rf"\r\n|[{INVISIBLE}]|(?<!{VISIBLE_LETTER})[\u200c\u200d]|[\u200c\u200d](?!{VISIBLE_LETTER})")
"""An invisible character, and a joiner that joins nothing: one inside an emoji or in a script that needs it stays."""

GAP = re.compile(rf"[\u200c\u200d{INVISIBLE}]*")
"""Invisible characters, which an echo may have between two characters of a secret."""


def clean_text(text: str, secret: str | None = None, *, is_cut: bool = False) -> str:
    r"""Return foreign text on one line, without the secret and with invisible characters as escapes such as ``\x1b``.

    Clean a text before cutting it: a piece of a secret that straddles a cut might stay.

    Args:
        text: The text.
        secret: The API key. ``***`` replaces it in every form that an echo may have. None replaces nothing.
        is_cut: True if somebody else may have cut the text: then the first few characters of the secret are replaced
            too where the text ends with them.
    """
    if secret:
        text = redact_text(text, secret, is_cut=is_cut)
    return text if text.isprintable() else UNPRINTABLE.sub(_escape, text)


def clean_url(url: str, secret: str | None = None) -> str:
    """Return a foreign URL without the secret. Invisible characters are quoted: the URL means the same as before."""
    if secret:
        url = redact_text(url, secret)
    return url if url.isprintable() else UNPRINTABLE.sub(lambda match: quote(match[0], errors="replace"), url)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0][0])
    if match[0][0] in "\t\r\n":
        return " "
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 # as `ascii` does


@frozen
class _Forms:
    """Patterns for the forms of a secret: plain, percent-encoded, JSON-escaped, as HTML entities, with gaps."""

    head: re.Pattern[str]
    rest: tuple[re.Pattern[str], ...]
    tail: re.Pattern[str] | None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the places of the secret, and of pieces that begin with its head, in their order."""
        found: list[tuple[int, int]] = []
        match = self.head.search(text)
        while match:
            end = match.end()
            for character in self.rest:
                gap = GAP.match(text, end)
                following = character.match(text, gap.end() if gap else end)
                if following is None:
                    break
                end = following.end()
            found.append((match.start(), end))
            match = self.head.search(text, end)
        return found


@lru_cache(maxsize=16)
def _make_forms(secret: str) -> _Forms:
    characters = [_encode_forms(character) for character in secret]
    head = GAP.pattern.join(characters[:HEAD_LENGTH])
    if len(secret) < HEAD_LENGTH:  # it may be part of a word that means something else
        return _Forms(re.compile(rf"(?<![A-Za-z0-9]){head}(?![A-Za-z0-9])"), (), None)
    further = ""  # characters that may follow the shortest piece
    for character in reversed(characters[TAIL_LENGTH : HEAD_LENGTH - 1]):
        further = rf"(?:{GAP.pattern}{character}{further})?"
    return _Forms(
        re.compile(head),
        tuple(re.compile(character, re.IGNORECASE) for character in characters[HEAD_LENGTH:]),
        re.compile(rf"{GAP.pattern.join(characters[:TAIL_LENGTH])}{further}\s*\Z"),
    )


def _encode_forms(character: str) -> str:
    """Return a pattern for one character of a secret: API keys are ASCII."""
    code = f"{ord(character):02x}"
    plain = re.escape(character) if character.isalnum() else rf"\\*{re.escape(character)}"
    return rf"(?:{plain}|(?i:%(?:25)*{code}|\\+(?:u00|x){code}|&\#x0*{code};?)|&\#0*{ord(character)};?)"


def contains_secret(text: str, secret: str) -> bool:
    """Return True if `text` has the secret, in any form that an echo may have."""
    return _may_contain(text, secret) and bool(_make_forms(secret).spans(text))


def _may_contain(text: str, secret: str) -> bool:
    """Return False if `text` certainly does not have the secret; this costs little for an ordinary text."""
    if secret[:HEAD_LENGTH] in text or "%" in text or "\\" in text or "&" in text:
        return True
    return not text.isprintable()


def redact_text(text: str, secret: str, *, is_cut: bool = False) -> str:
    """Replace the secret, in every form that an echo may have, by ``***``; return the text."""
    forms = _make_forms(secret)
    if _may_contain(text, secret):
        parts: list[str] = []
        position = 0
        for start, end in forms.spans(text):
            parts += [text[position:start], REDACTED]
            position = end
        text = "".join((*parts, text[position:]))
    return forms.tail.sub(REDACTED, text) if is_cut and forms.tail else text


def truncate(value: object, limit: int = TRUNCATED_LENGTH) -> str:
    """Return the start of a text, on one line, with payloads cut out and invisible characters as escapes.

    Args:
        value: The text; of any other value, its repr is used.
        limit: The most characters of the result.
    """
    text = value if isinstance(value, str) else repr(value)
    text = PAYLOAD.sub("…", clean_text(text[: 8 * limit]))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


class _BoundedRepr(reprlib.Repr):
    """Creates bounded reprs without payloads. `reprlib` finds the method by the name of a value's type."""

    def __init__(self) -> None:
        super().__init__()
        self.maxother = VALUE_LENGTH

    def repr_str(self, x: str, level: int) -> str:  # noqa: ARG002 # reprlib's signature
        start = x[:80].lstrip().lower()
        if start.startswith("data:"):
            return f"<data URI, {len(x)} characters>"
        return truncate(repr(strip_query(x) if start.startswith(("http://", "https://")) else x), VALUE_LENGTH)

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:  # noqa: ARG002 # as above
        return f"<{type(x).__name__}, {len(x)} bytes>"

    repr_bytearray = repr_bytes

    def repr_memoryview(self, x: memoryview, level: int) -> str:  # noqa: ARG002 # as above
        try:
            return f"<memoryview, {x.nbytes} bytes>"
        except ValueError:
            return "<memoryview, released>"

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 # as above
        return repr(x) if x.bit_length() < VALUE_BITS else f"<int, {x.bit_length()} bits>"


BOUNDED_REPR = _BoundedRepr()


def safe_repr(value: object) -> str:
    """Return a bounded repr of a user's value for an error: only the size of bytes, and no query of a URL.

    The same holds inside lists, tuples, sets and mappings. A repr that raises is replaced.
    """
    return truncate(BOUNDED_REPR.repr(value), VALUE_LENGTH)


def truncate_body(body: bytes, limit: int = TRUNCATED_LENGTH) -> str:
    """Return the start of a cleaned response body, on one line."""
    text = body[: 8 * limit].decode("utf-8", "replace")
    return truncate(" ".join(text.split()), limit)


def strip_query(url: str) -> str:
    """Return a URL without user, query and fragment, which may contain secrets; of a data URI, only its size."""
    if url[:80].lstrip()[:5].lower() == "data:":
        return f"<data URI, {len(url)} characters>"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<an unreadable URL>"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

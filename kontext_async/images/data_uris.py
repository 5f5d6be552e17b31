"""Data URIs (RFC 2397), decoded piece by piece, so that a large one is never in memory twice. No I/O.

What programs write in practice is accepted too: blanks and line ends in base64, percent-encoded base64, the alphabet
for URLs, and missing padding. Such a URI is decoded as a whole.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from attrs import field, frozen

__all__ = [
    "Base64Payload",
    "data_uri_size",
    "decode_payload",
    "decode_start",
    "is_data_uri",
    "largest_size",
    "parse_data_uri",
]

START = re.compile(r"\s*data:", re.IGNORECASE)
BLANKS = b" \t\n\r\f\v"
ODD_CHARACTERS = "%-_ \t\n\r\f\v"
"""Characters that a payload in plain base64 does not contain."""

TO_STANDARD = bytes.maketrans(b"-_", b"+/")


@frozen(eq=False)
class Base64Payload:
    """The payload of a data URI in plain base64.

    Attributes:
        size: The number of decoded bytes.
    """

    _uri: str = field(repr=False)
    _start: int
    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Decode `length` bytes at `offset`.

        Raises:
            ValueError: It is not valid base64.
        """
        first = offset // 3
        last = -(-min(offset + length, self.size) // 3)
        text = self._uri[self._start + 4 * first : self._start + 4 * last]
        data = _decode_base64(text)
        if len(data) != min(3 * last, self.size) - 3 * first:
            raise ValueError("its base64 is invalid: there is data after its padding")
        skipped = offset - 3 * first
        return data[skipped : skipped + length] if skipped or len(data) > length else data


def is_data_uri(text: str) -> bool:
    """Return True for a text that starts like a data URI. Blanks may precede it."""
    return START.match(text) is not None


def parse_data_uri(uri: str) -> Base64Payload | bytes:
    """Return the payload: as an object that decodes it piece by piece if it is plain base64, otherwise as bytes.

    Raises:
        ValueError: It has no comma, or its base64 is invalid.
    """
    start, in_base64 = _split(uri)
    if not in_base64:
        return unquote_to_bytes(uri[start:])
    quads, rest = divmod(len(uri) - start, 4)
    if rest or any(uri.find(character, start) >= 0 for character in ODD_CHARACTERS):
        return _decode_base64(_pad(_to_standard(uri[start:])))
    padding = len(uri[-2:]) - len(uri[-2:].rstrip("=")) if quads else 0
    return Base64Payload(uri, start, 3 * quads - padding)


def decode_payload(payload: Base64Payload | bytes) -> bytes:
    """Return the whole payload."""
    return payload if isinstance(payload, bytes) else payload.read_at(0, payload.size)


def decode_start(uri: str, length: int) -> bytes:
    """Decode the first `length` characters of the payload; all of a shorter one.

    Raises:
        ValueError: As `parse_data_uri`.
    """
    start, in_base64 = _split(uri)
    text = uri[start : start + length]
    is_cut = start + length < len(uri)
    if is_cut and "%" in text[-2:]:
        text = text[: text.rindex("%")]
    if not in_base64:
        return unquote_to_bytes(text)
    standard = _to_standard(text)
    return _decode_base64(standard[: len(standard) // 4 * 4] if is_cut else _pad(standard))


def largest_size(uri: str) -> int:
    """Return the most bytes that a data URI in base64 can have, from its length alone."""
    return len(uri) * 3 // 4


def data_uri_size(uri: str, limit: int) -> int:
    """Return the bytes of a data URI; of one that cannot have more than `limit`, the most that it can have.

    Raises:
        ValueError: As `parse_data_uri`.
    """
    size = largest_size(uri)
    if size > limit:
        payload = parse_data_uri(uri)
        size = len(payload) if isinstance(payload, bytes) else payload.size
    return size


def _split(uri: str) -> tuple[int, bool]:
    """Return the position of the payload, and True if it is in base64."""
    comma = uri.find(",")
    if comma < 0:
        raise ValueError("it has no comma")
    parameters = uri[:comma].lower().split(";")[1:]
    return comma + 1, any(parameter.strip() == "base64" for parameter in parameters)


def _to_standard(text: str) -> bytes:
    """Return base64 in the standard alphabet (RFC 4648, section 4), without blanks and percent-encoding."""
    if "%" in text:
        raw = unquote_to_bytes(text)
    else:
        try:
            raw = text.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError("its base64 is invalid: it contains characters that are not ASCII") from None
    return raw.translate(TO_STANDARD, BLANKS)


def _pad(standard: bytes) -> bytes:
    return standard + b"=" * (-len(standard) % 4)


def _decode_base64(text: str | bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is invalid: {error}") from None
    except ValueError:
        raise ValueError("its base64 is invalid: it contains characters that are not ASCII") from None

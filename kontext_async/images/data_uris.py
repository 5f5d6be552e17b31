"""Data URIs (RFC 2397), decoded piece by piece, so that a large one is never in memory twice. No I/O."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from attrs import field, frozen

__all__ = ["Base64Payload", "decode_payload", "is_data_uri", "parse_data_uri"]


@frozen(eq=False)
class Base64Payload:
    """The base64 payload of a data URI, without percent-encoding.

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
    """Return True for a text that starts like a data URI."""
    return text[:5].lower() == "data:"


def parse_data_uri(uri: str) -> Base64Payload | bytes:
    """Return the payload: as bytes if it is percent-encoded, otherwise as an object that decodes it piece by piece.

    Raises:
        ValueError: It has no comma, or its base64 is invalid.
    """
    comma = uri.find(",")
    if comma < 0:
        raise ValueError("it has no comma")
    start = comma + 1
    in_base64 = uri[:comma].lower().endswith(";base64")
    if not in_base64 or uri.find("%", start) >= 0:
        raw = unquote_to_bytes(uri[start:])
        return _decode_base64(raw) if in_base64 else raw
    quads, rest = divmod(len(uri) - start, 4)
    if rest:
        raise ValueError("its base64 is invalid: Incorrect padding")
    padding = len(uri[-2:]) - len(uri[-2:].rstrip("=")) if quads else 0
    return Base64Payload(uri, start, 3 * quads - padding)


def decode_payload(payload: Base64Payload | bytes) -> bytes:
    """Return the whole payload."""
    return payload if isinstance(payload, bytes) else payload.read_at(0, payload.size)


def _decode_base64(text: str | bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is invalid: {error}") from None
    except ValueError:
        raise ValueError("its base64 is invalid: it contains characters that are not ASCII") from None

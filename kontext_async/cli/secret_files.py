"""Reads secrets from files: the API key, and the URL of a store. No message shows any of their content."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from kontext_async.cli.exit_codes import MissingApiKey
from kontext_async.errors import ConfigurationError
from kontext_async.settings import find_api_key

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_key_file", "read_store_file"]

MAX_BYTES = 64 * 1024
"""The most bytes of a file that are read. A key has fewer than a hundred."""

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # it begins with the mark of UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""The byte order marks, and the encodings that they announce. Windows PowerShell writes UTF-16 by default."""


def read_key_file(path: Path) -> str:
    """Return the API key in a file.

    Raises:
        MissingApiKey: The file cannot be read, or contains no key, or more than a key.
    """
    text = _read(path, "key file", MissingApiKey)
    try:
        return find_api_key(text)
    except ConfigurationError:
        raise MissingApiKey(f"the key file {path} must contain an API key and nothing else") from None


def read_store_file(path: Path) -> str:
    """Return the URL of a store in a file.

    Raises:
        ConfigurationError: The file cannot be read, or contains no text, or more than a line.
    """
    text = _read(path, "store file", ConfigurationError)
    if not text.isprintable():
        raise ConfigurationError(f"the store file {path} must contain the URL of a store and nothing else")
    return text


def _read(path: Path, name: str, refusal: type[ConfigurationError]) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
        text = data.decode(_encoding_of(data)).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise refusal(f"the {name} {path} cannot be read: {reason}") from None
    if not text:
        raise refusal(f"the {name} {path} is empty")
    return text


def _encoding_of(data: bytes) -> str:
    return next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8")

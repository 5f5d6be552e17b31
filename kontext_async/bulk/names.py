"""Renders image names that are safe on every file system, for any prompt and task ID. Pure."""

from __future__ import annotations

import re
import string
import unicodedata
from typing import TYPE_CHECKING, Any

from kontext_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_TEMPLATE", "NameTemplate", "slug"]

DEFAULT_TEMPLATE = "{index:06d}-{slug}.{ext}"
SLUG_LENGTH = 48
SLUG_BYTES = 96
PART_BYTES = 120
"""Bytes of a file's or a directory's name in UTF-8. File systems allow 255, some that encrypt names 143; a temporary
file's name and a number for equal names take some of them."""

PARTS = 8
SAFE_MARKS = frozenset("._,+=@ -")
"""The characters of a name beside letters and digits."""

RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)
"""Names that Windows reserves for devices, with any extension."""

INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters and marks that show nothing: fillers and variation selectors."""

OWN = re.compile(r"journal\.sqlite.*|results\.jsonl|index(-[0-9]+)?\.html", re.IGNORECASE)
"""The files of a run's directory beside the images."""

EXAMPLE = {
    "index": 0,
    "slug": "image",
    "ext": "jpg",
    "task_id": "task",
    "seed": "none",
    "model": "model",
    "fingerprint": "0" * 12,
    "occurrence": 0,
}


def slug(prompt: str) -> str:
    """Return the beginning of a prompt as lower-case letters and digits of any script, with hyphens between the words.

    Latin letters lose their accents; all others are in Unicode's form NFC. Without letters and digits it is ``image``.
    """
    start = INVISIBLE.sub("", unicodedata.normalize("NFC", prompt[: 8 * SLUG_LENGTH]))
    plain = "".join(_without_accents(character) for character in start).lower().replace("'", "").replace("\u2019", "")
    spaced = "".join(character if _is_letter(character) else " " for character in unicodedata.normalize("NFC", plain))
    words = [word for word in spaced.split() if word[0].isalnum()]  # a mark needs a letter before it
    return _cut("-".join(words)[:SLUG_LENGTH], SLUG_BYTES).strip("-") or "image"


def _without_accents(character: str) -> str:
    """Return the ASCII letters and digits of a character that is made of them; any other one as it is."""
    parts = unicodedata.normalize("NFKD", character)
    return parts.encode("ascii", "ignore").decode() if parts[0].isascii() else character


def _is_letter(character: str) -> bool:
    """Return True for a letter, a digit, or a mark of a script whose vowels are marks."""
    return character.isalnum() or unicodedata.category(character) in ("Mn", "Mc")


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text that has at most `size` bytes in UTF-8."""
    return text.encode()[:size].decode(errors="ignore")


class NameTemplate:
    """A template of file names, which are always inside the run's directory.

    Args:
        template: A format string as for `str.format`, with the fields ``index``, ``slug``, ``ext``, ``task_id``,
            ``seed``, ``model``, ``fingerprint`` (12 characters) and ``occurrence``. Slashes separate directories.

    Raises:
        ConfigurationError: The template is invalid, contains an unknown field, or names no file in the directory.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
            unknown = sorted(set(fields) - set(EXAMPLE))
            if unknown:
                raise ConfigurationError(
                    f"the filename template {template!r} contains the unknown field {unknown[0]!r}; "
                    f"the known fields are {', '.join(EXAMPLE)}"
                )
            parts = self.fill(EXAMPLE)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise ConfigurationError(f"the filename template {template!r} is invalid: {error}") from None
        if not fields or not parts or template.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", template):
            raise ConfigurationError(
                f"the filename template {template!r} must contain a field and name a file inside the directory"
            )

    def fill(self, values: Mapping[str, Any]) -> str:
        """Return a relative path with ``/`` between its parts: each is plain, short, visible and not reserved."""
        safe = {name: _plain(value) if isinstance(value, str) else value for name, value in values.items()}
        parts = [_part(part) for part in self._template.format_map(safe).replace("\\", "/").split("/")]
        kept = [part for part in parts if part][:PARTS]
        return "/".join(kept)


def _plain(text: str) -> str:
    """Return a value in NFC, without characters that could separate path parts or that file systems do not take."""
    plain = INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    return "".join(each if _is_letter(each) or each in SAFE_MARKS else "_" for each in plain)


def _part(text: str) -> str:
    plain = _plain(text).strip(" ").lstrip(".").rstrip(". ")
    stem, dot, extension = plain.rpartition(".")
    if dot and len(extension) <= 8:  # noqa: PLR2004 # a longer suffix is not an extension
        plain = _cut(stem, PART_BYTES - len(extension.encode()) - 1).rstrip(". ") + dot + extension
    plain = _cut(plain, PART_BYTES)
    return f"_{plain}" if RESERVED.fullmatch(plain) or OWN.fullmatch(plain) else plain

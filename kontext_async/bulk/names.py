"""How pictures are named: safely for every file system, whatever prompts and task ids hold. Pure."""

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
PART_LENGTH = 120
"""Characters of a file's or a directory's name: well below the 255 bytes that file systems allow."""

PARTS = 8
UNSAFE = re.compile(r"[^A-Za-z0-9._,+=@ -]")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices, with any extension."""

OWN = frozenset({"journal.sqlite", "results.jsonl", "index.html"})
"""What a run's directory holds beside pictures."""

EXAMPLE = {
    "index": 0,
    "slug": "picture",
    "ext": "jpg",
    "task_id": "task",
    "seed": "none",
    "model": "model",
    "fingerprint": "0" * 12,
    "occurrence": 0,
}


def slug(prompt: str) -> str:
    """The beginning of a prompt as lower-case ASCII letters and digits, with hyphens between the words."""
    plain = unicodedata.normalize("NFKD", prompt[: 8 * SLUG_LENGTH]).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain.replace("'", ""))
    return "-".join(words)[:SLUG_LENGTH].strip("-") or "picture"


class NameTemplate:
    """Names of files within a directory, never outside of it.

    Args:
        template: As for `str.format`, with ``index``, ``slug``, ``ext``, ``task_id``, ``seed``, ``model``,
            ``fingerprint`` (12 characters) and ``occurrence``. Slashes make directories.

    Raises:
        ConfigurationError: It is no template, or asks for something else.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
            unknown = sorted(set(fields) - set(EXAMPLE))
            if unknown:
                raise ConfigurationError(
                    f"the name template {template!r} asks for {unknown[0]!r}; there are {', '.join(EXAMPLE)}"
                )
            parts = self.fill(EXAMPLE)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise ConfigurationError(f"the name template {template!r} cannot be used: {error}") from None
        if not fields or not parts or template.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", template):
            raise ConfigurationError(f"the name template {template!r} must name a file within the directory")

    def fill(self, values: Mapping[str, Any]) -> str:
        """A relative path, with ``/`` between its parts: each part is plain, short, and neither hidden nor reserved."""
        safe = {name: _plain(value) if isinstance(value, str) else value for name, value in values.items()}
        parts = [_part(part) for part in self._template.format_map(safe).replace("\\", "/").split("/")]
        kept = [part for part in parts if part][:PARTS]
        return "/".join(kept)


def _plain(text: str) -> str:
    """A value without anything that could be a separator."""
    return UNSAFE.sub("_", text)


def _part(text: str) -> str:
    plain = UNSAFE.sub("_", text).strip(" ").lstrip(".").rstrip(". ")
    stem, dot, extension = plain.rpartition(".")
    if dot and len(extension) <= 8:  # noqa: PLR2004 # longer ones are no extensions
        plain = stem[: PART_LENGTH - len(extension) - 1].rstrip(". ") + dot + extension
    plain = plain[:PART_LENGTH]
    return f"_{plain}" if RESERVED.fullmatch(plain) or plain.lower() in OWN else plain

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
PART_LENGTH = 120
"""Characters of a file's or a directory's name: well below the 255 bytes that file systems allow."""

PARTS = 8
UNSAFE = re.compile(r"[^A-Za-z0-9._,+=@ -]")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names that Windows reserves for devices, with any extension."""

OWN = frozenset({"journal.sqlite", "results.jsonl", "index.html"})
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
    """Return the beginning of a prompt as lower-case ASCII letters and digits, with hyphens between the words."""
    plain = unicodedata.normalize("NFKD", prompt[: 8 * SLUG_LENGTH]).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain.replace("'", ""))
    return "-".join(words)[:SLUG_LENGTH].strip("-") or "image"


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
    """Return a value without characters that could separate path parts."""
    return UNSAFE.sub("_", text)


def _part(text: str) -> str:
    plain = UNSAFE.sub("_", text).strip(" ").lstrip(".").rstrip(". ")
    stem, dot, extension = plain.rpartition(".")
    if dot and len(extension) <= 8:  # noqa: PLR2004 # a longer suffix is not an extension
        plain = stem[: PART_LENGTH - len(extension) - 1].rstrip(". ") + dot + extension
    plain = plain[:PART_LENGTH]
    return f"_{plain}" if RESERVED.fullmatch(plain) or plain.lower() in OWN else plain

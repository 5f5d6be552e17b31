"""Chooses the names of images, and checks that saved images are intact.

Names are rendered from a template. They are safe on every file system, for any prompt and task ID, and lead to no place
outside the run's directory. `FilenameTemplate` is pure; the rest blocks on disk access.
"""

from __future__ import annotations

import os
import re
import string
import threading
import unicodedata
from errno import ELOOP
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kontext_async.bulk.paths import is_inside, is_relative_name
from kontext_async.errors import ConfigurationError
from kontext_async.images import EXTENSIONS, detect_any_format

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kontext_async.store.rows import Row
    from kontext_async.store.steps import Files

__all__ = [
    "DEFAULT_TEMPLATE",
    "FilenameAllocator",
    "FilenameTemplate",
    "files_intact",
    "files_of",
    "occurrence_of",
    "slug",
]

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

OWN = re.compile(r"journal\.sqlite.*|results\.jsonl|run\.json|index(-[0-9]+)?\.html", re.IGNORECASE)
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

SUFFIXES = tuple(suffix for suffixes in EXTENSIONS.values() for suffix in suffixes)
HEAD, TAIL = 64, 4096

KEY_DIGITS = 32
"""Digits of the digest in the key of a request that has no key of its own; the occurrence follows."""


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


class FilenameTemplate:
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
            parts = self.render(EXAMPLE)
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise ConfigurationError(f"the filename template {template!r} is invalid: {error}") from None
        if not fields or not parts or template.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", template):
            raise ConfigurationError(
                f"the filename template {template!r} must contain a field and name a file inside the directory"
            )

    def render(self, values: Mapping[str, Any]) -> str:
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


class FilenameAllocator:
    """Allocates paths in a directory, each for one image only: no image replaces another paid image.

    Args:
        directory: The run's directory.
        folder: The number of the directory in the store.
        template: The template of the image names.
    """

    def __init__(self, directory: Path, folder: int, template: FilenameTemplate) -> None:
        self._directory = directory
        self._folder = folder
        self._template = template
        self._allocated: set[str] = set()
        self._lock = threading.Lock()

    def allocate(self, row: Row) -> Path:
        """Return a path for a row's image that nothing else uses. The row's own earlier image may be replaced.

        Raises:
            OSError: The path leads out of the directory, or the file system does not take its name.
        """
        extension = "png" if row.fields.get("output_format") == "png" else "jpg"
        path = self._directory / _encodable(self._template.render(_fields(row, extension)))
        stem, suffix = _split(path)
        known = [self._directory / name for name, _ in files_of(row, self._folder)]
        own = [_split(each)[0] for each in known if is_inside(each, self._directory)]
        if len(own) == 1:
            stem = own[0]
        elif not is_inside(path.parent, self._directory):
            raise OSError(ELOOP, "a symbolic link leads out of the run's directory", str(path.parent))
        with self._lock:
            chosen = next(
                each
                for each in _candidates(stem, row)
                if each.casefold() not in self._allocated and (each in own or not _taken(each))
            )
            self._allocated.add(chosen.casefold())
        return Path(chosen + suffix)

    def release(self, path: Path) -> None:
        """Release a path whose image is saved, or will not be saved."""
        self._allocated.discard(_split(path)[0].casefold())


def files_of(row: Row, folder: int) -> Files:
    """Return the images of a row that are in a folder. Names that lead out of it, which no run writes, do not count."""
    if row.folder != folder or not all(is_relative_name(name) for name, _ in row.files):
        return ()
    return row.files


def files_intact(directory: Path, files: Files) -> bool:
    """Return True if all images are in the directory with their sizes, and start like an image; False for none."""
    paths = [(directory / name, size) for name, size in files]
    return bool(paths) and all(is_inside(path, directory) and _is_whole(path, size) for path, size in paths)


def _encodable(name: str) -> str:
    """Return a name that the system's encoding of file names can express: not every one is UTF-8."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return re.sub(r"[^\x00-\x7f]", "_", name)
    return name


def _candidates(stem: str, row: Row) -> Iterator[str]:
    """Yield a name, and the names to use instead if another image has it."""
    yield stem
    yield f"{stem}-{row.digest.hex()[:8]}"
    for number in count(2):
        yield f"{stem}-{row.digest.hex()[:8]}-{number}"


def _split(path: Path) -> tuple[str, str]:
    """Split a path into the part before an image extension, and that extension."""
    known = path.suffix.lower() in SUFFIXES
    return (str(path.with_suffix("")), path.suffix) if known else (str(path), "")


def _taken(stem: str) -> bool:
    return any(os.path.lexists(stem + extension) for extension in ("", *SUFFIXES))


def _is_whole(path: Path, size: int) -> bool:
    """Return True if a file has the size that was saved, starts like an image, and was not left empty at its end."""
    try:
        with path.open("rb", buffering=0) as file:  # a resumed run opens each of its images
            if os.fstat(file.fileno()).st_size != size or detect_any_format(file.read(HEAD)) is None:
                return False
            file.seek(max(0, size - TAIL))
            return bool(file.read(TAIL).strip(b"\0"))
    except (OSError, ValueError):
        return False


def _fields(row: Row, extension: str) -> dict[str, object]:
    seed = row.fields.get("seed")
    return {
        "index": row.position or 0,
        "slug": slug(row.prompt),
        "ext": extension,
        "task_id": row.task_id or "",
        "seed": "none" if seed is None else str(seed),
        "model": row.model,
        "fingerprint": row.digest.hex()[:12],
        "occurrence": occurrence_of(row),
    }


def occurrence_of(row: Row) -> int:
    """Return the number of earlier requests of the input that are equal to a row's; 0 for one with a key of its own."""
    start, _, number = row.key.rpartition("-")
    return int(number) if start == row.digest.hex()[:KEY_DIGITS] and number.isdecimal() else 0

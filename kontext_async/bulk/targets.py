"""Chooses the paths of images, and checks that saved images are intact. Blocks on disk access."""

from __future__ import annotations

import os
import re
import threading
from errno import ELOOP
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from kontext_async.bulk.names import slug
from kontext_async.bulk.paths import is_inside
from kontext_async.images import EXTENSIONS, detect_any_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kontext_async.bulk.entries import JournalRow
    from kontext_async.bulk.names import NameTemplate

__all__ = ["Targets", "is_present"]

SUFFIXES = tuple(suffix for suffixes in EXTENSIONS.values() for suffix in suffixes)
HEAD, TAIL = 64, 4096


class Targets:
    """Reserves paths in a directory, each for one image only: no image replaces another paid image.

    Args:
        directory: The run's directory.
        template: The template of the image names.
    """

    def __init__(self, directory: Path, template: NameTemplate) -> None:
        self._directory = directory
        self._template = template
        self._reserved: set[str] = set()
        self._held = threading.Lock()

    def reserve(self, row: JournalRow) -> Path:
        """Return a path for a row's image that nothing else uses. The row's own earlier image may be replaced.

        Raises:
            OSError: The path leads out of the directory, or the file system does not take its name.
        """
        extension = "png" if row.fields.get("output_format") == "png" else "jpg"
        path = self._directory / _encodable(self._template.fill(_values(row, extension)))
        stem, suffix = _split(path)
        known = [self._directory / name for name, _ in row.files]
        own = [_split(each)[0] for each in known if is_inside(each, self._directory)]
        if len(own) == 1:
            stem = own[0]
        elif not is_inside(path.parent, self._directory):
            raise OSError(ELOOP, "a symbolic link leads out of the run's directory", str(path.parent))
        with self._held:
            chosen = next(
                each
                for each in _candidates(stem, row)
                if each.casefold() not in self._reserved and (each in own or not _taken(each))
            )
            self._reserved.add(chosen.casefold())
        return Path(chosen + suffix)

    def release(self, path: Path) -> None:
        """Release a path whose image is saved, or will not be saved."""
        self._reserved.discard(_split(path)[0].casefold())


def is_present(directory: Path, row: JournalRow) -> bool:
    """Return True if all images of a row are in the directory with their sizes, and start like an image."""
    paths = [(directory / name, size) for name, size in row.files]
    return bool(paths) and all(is_inside(path, directory) and _is_whole(path, size) for path, size in paths)


def _encodable(name: str) -> str:
    """Return a name that the system's encoding of file names can express: not every one is UTF-8."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return re.sub(r"[^\x00-\x7f]", "_", name)
    return name


def _candidates(stem: str, row: JournalRow) -> Iterator[str]:
    """Yield a name, and the names to use instead if another image has it."""
    yield stem
    yield f"{stem}-{row.fingerprint[:8]}"
    for number in count(2):
        yield f"{stem}-{row.fingerprint[:8]}-{number}"


def _split(path: Path) -> tuple[str, str]:
    """Split a path into the part before an image extension, and that extension."""
    known = path.suffix.lower() in SUFFIXES
    return (str(path.with_suffix("")), path.suffix) if known else (str(path), "")


def _taken(stem: str) -> bool:
    return any(os.path.lexists(stem + extension) for extension in ("", *SUFFIXES))


def _is_whole(path: Path, size: int) -> bool:
    """Return True if a file has the size that was saved, starts like an image, and was not left empty at its end."""
    try:
        with path.open("rb") as file:
            kind = detect_any_format(file.read(HEAD))
            if file.seek(0, os.SEEK_END) != size or kind is None:
                return False
            file.seek(max(0, size - TAIL))
            return bool(file.read(TAIL).strip(b"\0"))
    except (OSError, ValueError):
        return False


def _values(row: JournalRow, extension: str) -> dict[str, object]:
    seed = row.fields.get("seed")
    return {
        "index": row.position,
        "slug": slug(row.prompt),
        "ext": extension,
        "task_id": row.task_id or "",
        "seed": "none" if seed is None else str(seed),
        "model": row.model,
        "fingerprint": row.fingerprint[:12],
        "occurrence": row.occurrence,
    }

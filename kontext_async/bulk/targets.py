"""Where pictures are put, and whether they are still there. Blocks for as long as the disk takes."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from kontext_async.bulk.names import slug
from kontext_async.images import detect_format, is_complete

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kontext_async.bulk.entries import Row
    from kontext_async.bulk.names import NameTemplate

__all__ = ["Targets", "is_present"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif")
HEAD, TAIL = 12, 4096


class Targets:
    """Hands out names within a directory, each to one picture only: no paid picture goes over another.

    Args:
        directory: The run's directory.
        template: How pictures are named.
    """

    def __init__(self, directory: Path, template: NameTemplate) -> None:
        self._directory = directory
        self._template = template
        self._reserved: set[str] = set()
        self._held = threading.Lock()

    def reserve(self, row: Row) -> Path:
        """A path for a row's picture, which nothing else has; its own earlier one is free to be replaced."""
        extension = "png" if row.fields.get("output_format") == "png" else "jpg"
        path = self._directory / self._template.fill(_values(row, extension))
        stem, suffix = _split(path)
        own = [_split(self._directory / name)[0] for name, _ in row.files]
        if len(own) == 1:
            stem = own[0]
        with self._held:
            chosen = next(
                each
                for each in _candidates(stem, row)
                if each.casefold() not in self._reserved and (each in own or not _taken(each))
            )
            self._reserved.add(chosen.casefold())
        return Path(chosen + suffix)

    def release(self, path: Path) -> None:
        """The picture is in its place, or will not be."""
        self._reserved.discard(_split(path)[0].casefold())


def is_present(directory: Path, row: Row) -> bool:
    """Whether all pictures of a row are there: of their sizes, with the beginning and the end of an image."""
    return bool(row.files) and all(_is_whole(directory / name, size) for name, size in row.files)


def _candidates(stem: str, row: Row) -> Iterator[str]:
    """A name, and what is taken instead when it is another picture's."""
    yield stem
    yield f"{stem}-{row.fingerprint[:8]}"
    for number in count(2):
        yield f"{stem}-{row.fingerprint[:8]}-{number}"


def _split(path: Path) -> tuple[str, str]:
    """A path without the extension of an image, and that extension."""
    known = path.suffix.lower() in EXTENSIONS
    return (str(path.with_suffix("")), path.suffix) if known else (str(path), "")


def _taken(stem: str) -> bool:
    return any(Path(stem + extension).exists() for extension in ("", *EXTENSIONS))


def _is_whole(path: Path, size: int) -> bool:
    try:
        with path.open("rb") as file:
            kind = detect_format(file.read(HEAD))
            if file.seek(0, 2) != size or kind is None:
                return False
            file.seek(max(0, size - TAIL))
            return is_complete(kind, file.read(TAIL))
    except OSError:
        return False


def _values(row: Row, extension: str) -> dict[str, object]:
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

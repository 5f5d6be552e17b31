"""The paths of saved images: their names and extensions, and what may stand there. Blocks on disk access.

An image takes the place of a regular file. A symbolic link is replaced too, and what it points to stays as it is: a
link in a folder of images must not lead a download to another place. Anything else, such as a device or a named pipe,
is never replaced, not through a link either.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from kontext_async.images import EXTENSIONS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["adapt_extension", "choose_path", "refuse_special_file", "temporary_name"]

TEMPORARY_BYTES = 80
"""Bytes of an image's name in the name of its temporary file. File systems count bytes, and most allow 255."""

SPECIAL_FILES = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a directory"),
)


def choose_path(path: Path, name: str, place: int | None) -> Path:
    """Return the path of an image, and find out before anything is downloaded that it cannot be used.

    Args:
        path: The file, or an existing directory.
        name: The name in a directory.
        place: The image's place among several of one generation, appended to the name; None if it is the only one.

    Raises:
        OSError: The path is too long, leads through a file, or stands for something that is not replaced.
        ValueError: The path contains a NUL or a lone surrogate.
    """
    if path.is_dir():
        path /= name
    if place is not None:
        path = path.with_name(f"{path.stem}-{place}{path.suffix}")
    if not path.is_dir():
        refuse_special_file(path)
    refuse_special_file(adapt_extension(path, "jpeg"))  # a longer name, if it has no extension yet
    return path


def refuse_special_file(path: Path) -> None:
    """Check that nothing but a regular file, or a link to one, would be replaced.

    Raises:
        OSError: Something else is there, or the path is unusable.
        ValueError: As in `choose_path`.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # a link that points nowhere is replaced as well
        return
    for is_kind, kind in SPECIAL_FILES:
        if is_kind(mode):
            raise FileExistsError(errno.EEXIST, f"it is {kind}, which is not replaced by a file", str(path))


def adapt_extension(path: Path, image_format: str) -> Path:
    """Return `path` with an extension that fits the image's format.

    The extension of another image format is replaced; any other suffix belongs to the name.
    """
    fitting = EXTENSIONS[image_format]
    suffix = path.suffix.lower()
    if suffix in fitting:
        return path
    if any(suffix in others for others in EXTENSIONS.values()):
        return path.with_suffix(fitting[0])
    return path.with_name(path.name + fitting[0])


def temporary_name(name: str, token: str) -> str:
    """Return the name of the temporary file of an image, in valid Unicode."""
    start = os.fsencode(name)[:TEMPORARY_BYTES].decode(errors="ignore")
    return f".{start}.{token}.part"

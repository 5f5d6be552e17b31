"""The paths of a run: absolute from construction, and inside its directory.

The process may change its working directory during a run, and a run's directory may come from elsewhere: a name in its
journal, or a symbolic link in it, may lead to files that are not the run's.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from errno import ELOOP
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

__all__ = ["PARTIAL", "absolute_url", "is_inside", "is_relative_name", "open_own", "reason_of", "write_own"]

PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)
"""The names of the temporary files of `engine.sinks`, and of the run's own reports."""

SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!:memory:|file:)(.+)", re.DOTALL)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+_]+:")


def absolute_url(url: str) -> str:
    """Return the URL or the path of a store in which the path of an SQLite file is absolute."""
    if parts := SQLITE_FILE.fullmatch(url):
        return f"{parts[1]}{Path(parts[2]).absolute()}"
    return url if SCHEME.match(url) else str(Path(url).absolute())


def is_relative_name(name: object) -> bool:
    """Return True for a name below a directory, on every system. Pure."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    if "/" not in name and ":" not in name:  # nearly all, and a resumed run asks for each of its images
        return name != ".."
    path = PurePosixPath(name)
    return not (path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts)


def is_inside(path: Path, directory: Path) -> bool:
    """Return True if no symbolic link leads a path out of its directory. Blocks."""
    try:
        if path.parent == directory and not path.is_symlink():
            return True
        return path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name that the file system does not take
        return False


def open_own(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open one of the run's own files. A symbolic link in its place is not followed. Blocks.

    Raises:
        OSError: The file cannot be opened, or is a symbolic link.
    """
    return open(path, mode, opener=_open_no_link, **options)  # `Path.open` takes no opener


def write_own(path: Path, text: str) -> None:
    """Write one of the run's own files, and replace an earlier one. It is on the disk when this returns. Blocks.

    Raises:
        OSError: The file cannot be written, or is a symbolic link.
    """
    if path.is_symlink():
        raise OSError(ELOOP, os.strerror(ELOOP), str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open_own(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 # it overwrites
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can do so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _open_no_link(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)


def reason_of(error: OSError) -> str:
    """Return why a file cannot be used, as text."""
    return "it is a symbolic link" if error.errno == ELOOP else error.strerror or str(error)

"""The paths of a run: absolute from construction, and inside its directory.

The process may change its working directory during a run, and a run's directory may come from elsewhere: a name in its
journal, or a symbolic link in it, may lead to files that are not the run's.
"""

from __future__ import annotations

import os
import re
from errno import ELOOP
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

__all__ = ["PARTIAL", "absolute_url", "is_inside", "is_relative_name", "open_own", "reason_of"]

PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)
"""The names of the temporary files of `engine.sinks`, and of the run's own reports."""

SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.DOTALL)


def absolute_url(url: str | None) -> str | None:
    """Return a database URL in which the path of an SQLite file is absolute."""
    parts = SQLITE_FILE.fullmatch(url) if url else None
    if parts is None or parts[2].startswith((":memory:", "file:")):
        return url
    return f"{parts[1]}{Path(parts[2]).absolute()}{parts[3]}"


def is_relative_name(name: object) -> bool:
    """Return True for a name below a directory, on every system. Pure."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
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


def _open_no_link(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)


def reason_of(error: OSError) -> str:
    """Return why a file cannot be used, as text."""
    return "it is a symbolic link" if error.errno == ELOOP else error.strerror or str(error)

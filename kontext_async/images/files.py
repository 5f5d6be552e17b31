"""Files as input images: paths, file objects, and objects that open like a path. Blocks.

Nothing here waits for ever on a path: a pipe that nobody writes to is given up, and devices are not opened.
"""

from __future__ import annotations

import inspect
import os
import select
import stat
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from kontext_async.images.contents import MonitoredFile
from kontext_async.images.spooling import SPOOL_AT, Spool
from kontext_async.images.urls import is_file_url, parse_file_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    from kontext_async.images.contents import Content
    from kontext_async.images.sources import Openable

__all__ = [
    "AT_END",
    "Unreadable",
    "accepts_size",
    "open_path",
    "read_file",
    "read_openable",
    "resolve_path",
    "spool_from",
]

WRITER_TIMEOUT = 5.0
"""Seconds after which a pipe without a writer is given up."""

SILENCE_TIMEOUT = 60.0
"""Seconds after which a pipe is given up whose writer writes nothing."""

AT_END = "it is at its end (position {}); rewind it: file.seek(0)"

NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)

NOT_READ = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
"""The kinds of files that are not opened. Opening a device may have an effect, and reading it may never end."""


class Unreadable(ValueError):
    """A source cannot be read. Internal: becomes an `InvalidRequest`."""


def resolve_path(source: str | os.PathLike[Any]) -> Path:
    """Return the path that a text, the URL of a file, or a path-like object names. A leading ``~`` is expanded.

    Raises:
        ValueError: The URL of a file is invalid.
        TypeError: The path-like object returns no path.
    """
    if isinstance(source, str) and is_file_url(source):
        return Path(parse_file_url(source))
    path = Path(os.fsdecode(source))
    try:
        return path.expanduser()
    except (RuntimeError, ValueError):  # there is no such user: the name of a file may begin with ~
        return path


def open_path(path: Path, limit: int) -> Content:
    """Open the file at a path. A regular file stays open and is monitored; a pipe is read to its end.

    Args:
        path: The path.
        limit: The most bytes to read of a pipe.
    """
    path = path.absolute()  # the working directory may change before the file is sent
    _check_kind(path.stat().st_mode)
    file = open(path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115 # an opener; closed below, or by the content
    try:
        mode = os.fstat(file.fileno()).st_mode
        _check_kind(mode)
        if stat.S_ISREG(mode):
            return MonitoredFile(file, path)
        content = spool_from(lambda spool: _read_pipe(file, spool), limit)
    except BaseException:
        file.close()
        raise
    file.close()
    return content


def read_openable(source: Openable, limit: int) -> Content:
    """Read an object that opens like a path, such as `zipfile.Path`, to its end."""
    with closing(source.open("rb")) as file:
        return spool_from(lambda spool: _read_to_end(file, spool), limit)


def read_file(file: BinaryIO, limit: int) -> Content:
    """Read a file object from its position to its end. The position of a file that can seek is restored.

    Raises:
        Unreadable: There is nothing to read at its position.
    """
    start = _position_of(file)
    if start is None:
        content = spool_from(lambda spool: _read_to_end(file, spool), limit)
        if not content.size:
            raise Unreadable("it has no more bytes; it cannot seek, and is read only once: pass its bytes to reuse it")
        return content
    try:
        content = spool_from(lambda spool: _read_to_end(file, spool), limit)
    finally:
        file.seek(start)
    if start and not content.size:
        raise Unreadable(AT_END.format(start))
    return content


def spool_from(read_into: Callable[[Spool], None], limit: int) -> Content:
    """Return what a function writes into a spool of at most `limit` bytes."""
    spool = Spool(limit)
    try:
        read_into(spool)
        return spool.finish()
    finally:
        spool.close()


def accepts_size(read: Any) -> bool:
    """Return True if a read method accepts the number of bytes to read."""
    try:
        inspect.signature(read).bind(1)
    except TypeError:
        return False
    except ValueError:  # it is written in C, and has no signature
        return True
    return True


def _check_kind(mode: int) -> None:
    for is_kind, name in NOT_READ:
        if is_kind(mode):
            raise Unreadable(f"it is {name}, not a file")


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a path. Without this flag, opening a pipe waits for a writer."""
    return os.open(path, flags | NON_BLOCKING)


def _read_pipe(pipe: FileIO, spool: Spool) -> None:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while data := _wait_for_bytes(pipe, poll, min(SPOOL_AT, spool.room)):
        spool.write(data)


def _wait_for_bytes(pipe: FileIO, poll: select.poll, size: int) -> bytes:
    """Return the next bytes of a pipe; none after the last writer closed it."""
    for seconds in (WRITER_TIMEOUT, SILENCE_TIMEOUT):
        is_ready = bool(poll.poll(seconds * 1000))
        data = pipe.read(size)
        if data or (data is not None and is_ready):
            return data
        if data is not None:  # an end that is not reported as an event: there never was a writer
            raise Unreadable("no process writes to this pipe")
    raise Unreadable(f"the process that writes to this pipe wrote nothing for {SILENCE_TIMEOUT:g} s")


def _position_of(file: BinaryIO) -> int | None:
    """Return the position of a file; None if it cannot seek. Some objects have a read method and nothing else."""
    seekable = getattr(file, "seekable", None)
    if callable(seekable) and not seekable():
        return None
    if not callable(getattr(file, "seek", None)) or not callable(getattr(file, "tell", None)):
        return None
    try:
        return file.tell()
    except OSError:  # `io.UnsupportedOperation` among them
        return None


def _read_to_end(file: IO[bytes], spool: Spool) -> None:
    """Read until there are no more bytes: one read of a raw file or a socket may return fewer than requested."""
    if not accepts_size(file.read):
        spool.write(file.read())
        return
    while True:
        data = file.read(min(SPOOL_AT, spool.room))
        spool.write(data)
        if not data:
            return

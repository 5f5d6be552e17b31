"""Keeps a command alive on standard streams that are closed or cannot be written."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["cannot_be_written", "discard", "open_missing_streams", "print_to_stderr"]

STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))
"""The standard streams, in the order of their descriptors."""


def open_missing_streams() -> None:
    """Open each standard stream that the process was started without (``2>&-``) on the null device.

    Otherwise the next file or socket that the process opens gets the stream's descriptor, and whatever a library prints
    ends up in there.
    """
    for descriptor, (name, mode) in enumerate(STREAMS):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, mode)
            if null != descriptor and not _is_open(descriptor):
                os.dup2(null, descriptor)
                os.close(null)
                null = descriptor
            how = "r" if mode == os.O_RDONLY else "w"
            setattr(sys, name, open(null, how, encoding="utf-8", closefd=False))  # noqa: SIM115 # it stays open


def discard(stream: TextIO) -> None:
    """Send a stream that cannot be written to the null device: the interpreter would fail to flush it when it exits."""
    with suppress(OSError, ValueError):  # it has no descriptor, or is closed
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def print_to_stderr(line: str) -> None:
    """Print a line on stderr. Nothing ends because a message cannot be printed."""
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 # this is where the command prints
    except OSError:
        discard(sys.stderr)


def cannot_be_written(stream: TextIO) -> bool:
    """Write an empty line to a stream, and return True if that fails."""
    try:
        print(file=stream, flush=True)
    except OSError:
        return True
    return False


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

"""Reads how much memory this process uses: the anonymous part of the resident set, without what glibc keeps. Linux."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import ClassVar

__all__ = ["read_anonymous_memory", "read_free_heap", "read_used_memory"]

MIB = 1024 * 1024


class Mallinfo(ctypes.Structure):
    """The result of glibc's `mallinfo2`: the state of its heap."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()  # noqa: SIM905
    ]


def read_free_heap() -> float:
    """Return the memory that the C library has got back and keeps for later, in MiB."""
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = Mallinfo
    return float(library.mallinfo2().fordblks / MIB)


def read_anonymous_memory() -> float:
    """Collect garbage, and return the anonymous memory of this process in MiB."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def read_used_memory() -> float:
    """Return the anonymous memory without what the C library keeps for later, in MiB."""
    return read_anonymous_memory() - read_free_heap()

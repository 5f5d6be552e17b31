"""Range requests for one range of bytes, as in RFC 9110 section 14. Pure."""

from __future__ import annotations

import re

RANGE_HEADER = re.compile(r"bytes=(\d*)-(\d*)")


class Unsatisfiable(ValueError):
    """The range lies outside of the file."""


def parse_range(header: str | None, if_range: str | None, *, etag: str, size: int) -> range | None:
    """Return the bytes that a request wants; None for the whole file.

    A header that is malformed, or that names several ranges, is ignored, and so is one whose If-Range names
    another version of the file.

    Raises:
        Unsatisfiable: There are no such bytes.
    """
    match = RANGE_HEADER.fullmatch(header or "")
    if match is None or (if_range is not None and if_range != etag):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        wanted = range(max(0, size - int(last)), size)
    else:
        wanted = range(int(first), min(size, int(last) + 1) if last else size)
        if last and int(last) < int(first):
            return None
    if not wanted:
        raise Unsatisfiable(f"bytes */{size}")
    return wanted

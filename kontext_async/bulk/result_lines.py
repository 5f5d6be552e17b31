"""The lines of ``results.jsonl`` that earlier runs wrote. Blocks on disk access.

A killed run leaves an incomplete last line, lacks some of the last lines, or has two lines of one request: results that
complete at the same time are written in any order, and lines that later ones replace are removed at the end of a run
only. So each request is counted, and the latest lines are compared with the store.
"""

from __future__ import annotations

import json
import os
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

import orjson

from kontext_async.bulk.filenames import occurrence_of
from kontext_async.bulk.input import DuplicateCounter
from kontext_async.bulk.paths import open_own
from kontext_async.errors import KontextError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from kontext_async.store.rows import Row

__all__ = ["ResultLines"]

CHECKED = 10_000
"""The latest completions that are compared with the store: more than results that complete at the same time."""

TAIL = 1024 * 1024
LINES_AT_ONCE = 1000


class ResultLines:
    """The lines of the file. Each request has at most one.

    Attributes:
        last: The highest number of completion; 0 for none.
    """

    def __init__(self) -> None:
        self.last = 0
        self._requests = DuplicateCounter()
        self._latest: set[int] = set()
        self._found = 0

    @classmethod
    def read(cls, path: Path) -> ResultLines | None:
        """Read a file, and remove an incomplete last line; return None if the file must be made again."""
        lines = cls()
        try:
            with open_own(path, "rb+") as file:
                _remove_incomplete_line(file)
                file.seek(0)
                lines._read(file)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, KontextError):
            lines.close()
            return None
        return lines

    @property
    def checked_from(self) -> int:
        """The number of completion after which rows are compared with the lines."""
        return max(0, self.last - CHECKED)

    @property
    def is_checked(self) -> bool:
        """True if the store has all lines that are compared."""
        return self._found == len(self._latest)

    def has(self, row: Row) -> bool:
        """Return True if the file has the line of a row."""
        is_known = row.completion in self._latest
        self._found += is_known
        return is_known

    def add(self, rows: Sequence[Row]) -> bool:
        """Add the lines of rows; return False if the file has other lines of these requests, which must be removed."""
        self.last = max((self.last, *(row.completion or 0 for row in rows)))
        return not any(self._requests.count(_identity(row.digest, occurrence_of(row)) for row in rows))

    def close(self) -> None:
        """Delete the temporary file."""
        self._requests.close()

    def _read(self, file: Iterable[bytes]) -> None:
        lines = map(_parse, file)
        while chunk := list(islice(lines, LINES_AT_ONCE)):
            if any("folder" in known for known in chunk):
                raise ValueError("the lines are those of all workers, as `Results.regenerate` writes them")
            if any(self._requests.count(map(_identity_of, chunk))):
                raise ValueError("a request has two lines")
            numbers = [known["completion"] for known in chunk]
            self.last = max(self.last, *numbers)
            self._latest.update(numbers)
            least = self.checked_from
            self._latest = {number for number in self._latest if number > least}


def _remove_incomplete_line(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - TAIL)
    file.seek(start)
    tail = file.read()
    whole = tail.rfind(b"\n") + 1
    if whole < len(tail):
        file.truncate(start + whole)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        known: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:  # a prompt with a lone surrogate, or no JSON
        known = json.loads(line)
    return known


def _identity_of(known: Mapping[str, Any]) -> bytes:
    return _identity(bytes.fromhex(known["fingerprint"]), known["occurrence"])


def _identity(digest: bytes, occurrence: int) -> bytes:
    return digest[:12] + occurrence.to_bytes(4, "big")

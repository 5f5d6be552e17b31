"""Counts equal requests of one input. Memory use is bounded; the rest is in the journal. No I/O in here."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kontext_async.bulk.entries import InputRequest

__all__ = ["REMEMBERED", "Occurrences"]

REMEMBERED = 8192
"""Fingerprints whose next occurrence is kept in memory; all others are looked up in the journal."""


class Occurrences:
    """Numbers the requests with equal fingerprints, from 0."""

    def __init__(self) -> None:
        self._next: OrderedDict[str, int] = OrderedDict()

    def unknown(self, fingerprints: Iterable[str]) -> list[str]:
        """Return the fingerprints to look up in the journal, each once."""
        return [each for each in dict.fromkeys(fingerprints) if each not in self._next]

    def count(self, entries: Sequence[InputRequest], latest: Mapping[str, int]) -> list[tuple[str, int]]:
        """Return the fingerprint and the occurrence of each request.

        Args:
            entries: The requests, in the order of the input.
            latest: The latest occurrences of the unknown fingerprints, without those that did not occur.
        """
        keys = []
        for entry in entries:
            known = self._next.get(entry.fingerprint)
            occurrence = latest.get(entry.fingerprint, -1) + 1 if known is None else known
            self._next[entry.fingerprint] = occurrence + 1
            self._next.move_to_end(entry.fingerprint)
            keys.append((entry.fingerprint, occurrence))
        while len(self._next) > REMEMBERED:
            self._next.popitem(last=False)
        return keys

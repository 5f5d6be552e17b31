"""Writes what people look at anew, from the journal alone."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 # attrs resolves it
from decimal import Decimal  # noqa: TC003 # as above
from typing import TYPE_CHECKING

from attrs import frozen

from kontext_async.bulk.opening import opened
from kontext_async.bulk.sheet import write_sheet

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Rebuilt", "rebuild"]


@frozen(kw_only=True)
class Rebuilt:
    """What the journal holds.

    Attributes:
        states: How many requests there are in each state.
        spent: USD.
        lines: Lines of ``results.jsonl``.
    """

    states: Mapping[str, int]
    spent: Decimal
    lines: int


async def rebuild(directory: Path, *, url: str | None = None) -> Rebuilt:
    """Write ``results.jsonl`` and ``index.html`` of a run anew.

    Raises:
        RunRefused: There is no run, another process is at work there, or the journal cannot be used.
        JournalFailed: The journal cannot be read, or a file not be written.
    """
    async with opened(directory, url=url, must_exist=True) as (journal, results):
        lines = await results.rebuild(journal)
        await write_sheet(directory, journal)
        standing = await journal.standing()
    return Rebuilt(
        states={str(state): count for state, count in standing.states.items()}, spent=standing.spent, lines=lines
    )

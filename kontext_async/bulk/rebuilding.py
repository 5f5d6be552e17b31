"""Regenerates ``results.jsonl`` and the contact sheet from the journal alone."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 # attrs resolves it
from decimal import Decimal  # noqa: TC003 # as above
from typing import TYPE_CHECKING

from attrs import frozen

from kontext_async.bulk.opening import open_run_directory
from kontext_async.bulk.sheet import write_sheet

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RegeneratedReports", "regenerate_reports"]


@frozen(kw_only=True)
class RegeneratedReports:
    """The summary of the journal from which the reports were regenerated.

    Attributes:
        states: The number of requests in each state.
        spent: USD spent by all runs in the directory.
        lines: The number of lines in ``results.jsonl``.
    """

    states: Mapping[str, int]
    spent: Decimal
    lines: int


async def regenerate_reports(directory: Path, *, url: str | None = None) -> RegeneratedReports:
    """Regenerate ``results.jsonl`` and ``index.html`` of a run from its journal.

    Args:
        directory: The run's directory.
        url: The URL of the journal's database; None is SQLite in the directory.

    Returns:
        The summary of the journal.

    Raises:
        RunRefused: The directory has no run, another process is using it, or the journal cannot be used.
        JournalFailed: The journal cannot be read, or a file cannot be written.
    """
    async with open_run_directory(directory, url=url, must_exist=True) as (journal, results):
        lines = await results.rebuild(journal)
        await write_sheet(directory, journal)
        standing = await journal.standing()
    return RegeneratedReports(
        states={str(state): count for state, count in standing.states.items()}, spent=standing.spent, lines=lines
    )

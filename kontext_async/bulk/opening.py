"""Opens a run's directory: the lock, the journal and the results, which are closed in reverse order."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from kontext_async.bulk import results
from kontext_async.bulk.errors import RunRefused
from kontext_async.bulk.journal import Journal
from kontext_async.bulk.lock import DirectoryLock
from kontext_async.bulk.results import Results

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

__all__ = ["has_run", "open_run_directory"]


@asynccontextmanager
async def open_run_directory(
    directory: Path, *, url: str | None = None, must_exist: bool = False
) -> AsyncGenerator[tuple[Journal, Results], None]:
    """Open a run's journal and results, exclusively.

    Args:
        directory: The run's directory; created if it does not exist.
        url: The URL of the journal's database; None is SQLite in the directory.
        must_exist: True if the directory must already contain a run.

    Raises:
        RunRefused: Another run is using the directory, or the directory or the journal cannot be used.
        JournalFailed: The journal cannot be read or written.
    """
    begun = await anyio.to_thread.run_sync(has_run, directory)
    if must_exist and not begun:
        raise RunRefused(f"there is no run in {directory}: check the path")
    lock = await anyio.to_thread.run_sync(_create_and_lock, directory)
    try:
        journal = await Journal.open(directory, url=url, must_exist=begun)
        try:
            lines = Results(directory)
            await anyio.to_thread.run_sync(_claim, directory)
            await lines.catch_up(journal)
            yield journal, lines
        finally:
            with anyio.CancelScope(shield=True):
                await journal.aclose()
    finally:
        lock.release()


def has_run(directory: Path) -> bool:
    """Return True if the directory contains a run, which then needs its own journal. Blocks."""
    return (directory / results.NAME).exists()


def _create_and_lock(directory: Path) -> DirectoryLock:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunRefused(
            f"the directory {directory} cannot be created: {error.strerror or error}; nothing was submitted"
        ) from None
    return DirectoryLock(directory).acquire()


def _claim(directory: Path) -> None:
    """Claim the directory for the run, and remove the partial files of a killed run."""
    try:
        for path in directory.rglob(".*.part"):
            path.unlink(missing_ok=True)
        (directory / results.NAME).open("ab").close()
    except OSError as error:
        raise RunRefused(
            f"the directory {directory} cannot be written: {error.strerror or error}; nothing was submitted"
        ) from None

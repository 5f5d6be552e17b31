"""Opens a run's directory: the lock, the journal and the results, closed in the opposite order."""

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

__all__ = ["opened", "was_begun"]


@asynccontextmanager
async def opened(
    directory: Path, *, url: str | None = None, must_exist: bool = False
) -> AsyncGenerator[tuple[Journal, Results], None]:
    """A run's journal and its results, for nobody else as long as they are open.

    Args:
        directory: Made when it is missing.
        url: The journal's database; None is SQLite in the directory.
        must_exist: Whether there must be a run already.

    Raises:
        RunRefused: Another run is at work there, or the directory or the journal cannot be used.
        JournalFailed: The journal cannot be read or written.
    """
    begun = await anyio.to_thread.run_sync(was_begun, directory)
    if must_exist and not begun:
        raise RunRefused(f"there is no run in {directory}")
    lock = await anyio.to_thread.run_sync(_locked, directory)
    try:
        journal = await Journal.open(directory, url=url, must_exist=begun)
        try:
            lines = Results(directory)
            await anyio.to_thread.run_sync(_begin, directory)
            await lines.catch_up(journal)
            yield journal, lines
        finally:
            with anyio.CancelScope(shield=True):
                await journal.aclose()
    finally:
        lock.release()


def was_begun(directory: Path) -> bool:
    """Whether a run was begun in a directory: then only its journal will do. Blocks."""
    return (directory / results.NAME).exists()


def _locked(directory: Path) -> DirectoryLock:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunRefused(f"the directory {directory} cannot be made: {error.strerror or error}") from None
    return DirectoryLock(directory).acquire()


def _begin(directory: Path) -> None:
    """From here on, the directory is a run's. What a killed run was writing is removed."""
    try:
        for path in directory.rglob(".*.part"):
            path.unlink(missing_ok=True)
        (directory / results.NAME).open("ab").close()
    except OSError as error:
        raise RunRefused(f"the directory {directory} cannot be written: {error.strerror or error}") from None

"""Opens a run's directory: the lock, the journal and the results, which are closed in reverse order."""

from __future__ import annotations

import contextlib
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from kontext_async.bulk import results
from kontext_async.bulk.database import NAME
from kontext_async.bulk.errors import RunRefused
from kontext_async.bulk.journal import Journal
from kontext_async.bulk.lock import DirectoryLock
from kontext_async.bulk.paths import PARTIAL, is_inside, open_own, reason_of
from kontext_async.bulk.results import Results

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

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
    directory = Path.cwd() / directory
    begun = await anyio.to_thread.run_sync(has_run, directory)
    if must_exist and not begun:
        raise RunRefused(f"there is no run in {directory}: check the path")
    lock = await anyio.to_thread.run_sync(_create_and_lock, directory)
    try:
        if not begun:
            await anyio.to_thread.run_sync(_check_foreign_sheet, directory)
        journal = await Journal.open(directory, url=url, must_exist=begun)
        try:
            lines = Results(directory)
            folders = await journal.folders() if begun else set()
            await anyio.to_thread.run_sync(_claim, directory, folders)
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


def _check_foreign_sheet(directory: Path) -> None:
    """Check that the contact sheet of a new run would not replace a page that is not the run's."""
    if os.path.lexists(directory / NAME):
        return
    for name in ("index.html", "index-2.html"):
        if os.path.lexists(directory / name):
            raise RunRefused(
                f"{directory / name} is not of a run, and the contact sheet would replace it: use another directory; "
                "nothing was submitted"
            )


def _claim(directory: Path, folders: Iterable[str]) -> None:
    """Claim the directory for the run, and remove the partial files of a killed run from the folders of its images."""
    try:
        for folder in sorted(folders):
            if folder == "." or is_inside(directory / folder, directory):
                _remove_partials(directory / folder)
        open_own(directory / results.NAME, "ab").close()
    except OSError as error:
        raise RunRefused(
            f"the directory {directory} cannot be written: {reason_of(error)}; nothing was submitted"
        ) from None


def _remove_partials(folder: Path) -> None:
    """Remove the temporary files in one folder, not in those below it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if PARTIAL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108 # it is a name already

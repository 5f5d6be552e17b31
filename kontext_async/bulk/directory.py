"""The directory of a run: the lock, the run file, what a killed run left, and opening in order.

Each worker of a run has a directory of its own, which no other one uses. ``run.json`` in it names the run and the
store that it belongs to: a run that is continued with another store by mistake would pay for everything again.

Opening takes three steps, because the store is opened between them: `open_run_directory` locks the directory,
`RunDirectory.find_run` finds the name of the run in the store, and `RunDirectory.join` registers the directory there.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import asdict, field, frozen, validators

from kontext_async.bulk.errors import RunRefused
from kontext_async.bulk.filenames import files_intact, files_of
from kontext_async.bulk.lock import DirectoryLock
from kontext_async.bulk.paths import PARTIAL, is_inside, is_relative_name, open_own, reason_of, write_own
from kontext_async.bulk.results import NAME as RESULTS, Results, read_pages
from kontext_async.errors import ConfigurationError
from kontext_async.store.access import check_key
from kontext_async.store.rows import Selection
from kontext_async.store.steps import State
from kontext_async.store.urls import store_from_url
from kontext_async.store.version_1 import RUN_NAME, folder_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from kontext_async.settings import StoreSettings
    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row, Run
    from kontext_async.store.steps import Files

__all__ = ["JOURNAL", "RunDirectory", "new_store", "open_run_directory"]

JOURNAL = "journal.sqlite"
"""The store of a run that has no other one: a file in its directory."""

RUN_FILE = "run.json"
LARGEST_RUN_FILE = 64 * 1024
SHEET = ("index.html", "index-2.html")

ADVICE = (
    "nothing was submitted. Use the same store and run as before, or another directory, in which every request that "
    "the run does not know is submitted and billed again"
)


@frozen(kw_only=True)
class RunFile:
    """The contents of ``run.json``: the run that a directory belongs to.

    Attributes:
        run: The name of the run.
        store: The identity of the store.
        folder: The token of the directory, 32 hexadecimal digits.
    """

    run: str = field(validator=validators.and_(validators.instance_of(str), validators.min_len(1)))
    store: str = field(validator=validators.instance_of(str))
    folder: str = field(validator=validators.matches_re("[0-9a-f]{32}"))


class RunDirectory:
    """The directory of one worker of a run, locked. Its construction blocks.

    Attributes:
        path: The absolute path.
        has_run: True if an earlier run has used the directory.
        folder: The number of the directory in the store. Known after `join`.
        results: ``results.jsonl``. Complete after `join`.

    Raises:
        RunRefused: The files of a run in it are of another program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = 0
        self.results = Results(path)
        self._run_file = _read_run_file(path / RUN_FILE)
        self._is_claimed = self._run_file is not None or os.path.lexists(path / RESULTS)
        self._has_journal = os.path.lexists(path / JOURNAL)
        self.has_run = self._is_claimed or self._has_journal
        self._is_own_store = False
        self._completions = 0

    def own_store(self, settings: StoreSettings) -> Store:
        """Return the store in the directory, not opened yet.

        Raises:
            RunRefused: The run of the directory is in another store, or the store is missing.
        """
        if self._is_claimed and not self._has_journal:
            known = f"belongs to the run {self._run_file.run!r} of a store" if self._run_file else "has a run"
            raise RunRefused(f"{self.path} {known}, and {JOURNAL} is not in it; {ADVICE}")
        self._is_own_store = True
        return new_store(self.path / JOURNAL, settings)

    async def find_run(self, store: Store, name: str | None = None) -> str:
        """Return the name of the run that the directory belongs to, or will belong to. Nothing is written.

        Args:
            store: The store, open.
            name: The name that the user gave. None stands for the run that the directory belongs to already, the only
                run of the store in the directory, or one of version 1, which is named after the directory.

        Raises:
            InvalidRequest: The name is not allowed.
            ConfigurationError: There is no name.
            RunRefused: The directory belongs to another run, or its run is not in this store.
            StoreError: The store cannot be read.
        """
        if self._is_own_store and name not in (None, RUN_NAME):
            raise ConfigurationError(f"the run {name!r} needs a store: pass store=URL (--store, KONTEXT_STORE)")
        found = await self._known_name(store) if name is None else check_key(name, "run")
        known = self._run_file
        if known and (known.store, known.run) != (store.identity, found):
            which = "another store" if known.store != store.identity else f"the run {known.run!r}, not {found!r}"
            raise RunRefused(f"{self.path} belongs to {which}; {ADVICE}")
        if (
            known is None
            and self._has_journal
            and not self._is_own_store
            and str(self.path / JOURNAL) not in store.name
        ):
            raise RunRefused(f"{self.path} has a run with a store of its own, {JOURNAL}; {ADVICE}")
        if self._is_claimed and await store.open_run(found, create=False) is None:
            raise RunRefused(f"{self.path} has a run, and the store has no run {found!r}; {ADVICE}")
        return found

    async def join(self, store: Store, run: Run) -> None:
        """Register the directory in the store, remove what a killed run left, and complete ``results.jsonl``.

        Args:
            store: The store, open.
            run: The run.

        Raises:
            RunRefused: The directory cannot be written.
            ReportUnwritable: ``results.jsonl`` cannot be written.
            StoreError: The store cannot be read or written.
        """
        token = await self.find_folder(store, run.name)
        mine = RunFile(run=run.name, store=store.identity, folder=token.hex())
        folders = await self._unfinished_folders(store, run.id) if self.has_run else set()
        await anyio.to_thread.run_sync(self._claim, mine, folders)
        self._completions = await self.results.catch_up(store, run.id, self.folder)

    async def find_folder(self, store: Store, run: str) -> bytes:
        """Find the number of the directory in the store; register it if it is new there.

        Args:
            store: The store, open.
            run: The name of the run.

        Returns:
            The token of the directory.

        Raises:
            StoreError: The store cannot be read or written.
        """
        token = self._folder_token(run)
        self.folder = await store.folder(token, str(self.path))
        return token

    def next_completion(self) -> int:
        """Return the next number in the order of completion."""
        self._completions += 1
        return self._completions

    def files_of(self, row: Row) -> Files:
        """Return the images of a row that are in this directory."""
        return files_of(row, self.folder)

    def paths_of(self, row: Row) -> tuple[Path, ...]:
        """Return the paths of the images of a row that are saved in this directory."""
        return tuple(self.path / name for name, _ in self.files_of(row)) if row.state is State.SAVED else ()

    def has_images(self, row: Row) -> bool:
        """Return True if the images of a saved row are intact; those in another directory count as intact. Blocks."""
        return row.folder != self.folder or files_intact(self.path, self.files_of(row))

    async def _known_name(self, store: Store) -> str:
        if self._run_file:
            return self._run_file.run
        if self._is_own_store:
            return RUN_NAME
        resolved = await anyio.to_thread.run_sync(lambda: str(self.path.resolve()))
        if await store.open_run(resolved, create=False):
            return resolved
        raise ConfigurationError("a store of its own may have several runs: give the run a name: run=NAME (--run NAME)")

    def _folder_token(self, run: str) -> bytes:
        if self._run_file:
            return bytes.fromhex(self._run_file.folder)
        return folder_token(run) if self._is_own_store or self._is_claimed else secrets.token_bytes(16)

    async def _unfinished_folders(self, store: Store, run: int) -> set[str]:
        """Return the folders in which an earlier run may have left partial images, relative to the directory."""
        folders = {"."}
        unfinished = Selection(run=run, states=frozenset({State.COMPLETED}), folder=self.folder)
        async for rows in read_pages(store, unfinished):
            names = (name for row in rows for name, _ in self.files_of(row))
            folders |= {str(PurePosixPath(name).parent) for name in names if is_relative_name(name)}
        return folders

    def _claim(self, mine: RunFile, folders: Iterable[str]) -> None:
        """Claim the directory for the run, and remove partial files of a killed run from the folders of its images."""
        try:
            for folder in sorted(folders):
                if folder == "." or is_inside(self.path / folder, self.path):
                    _remove_partials(self.path / folder)
            open_own(self.path / RESULTS, "ab").close()
            if self._run_file != mine:
                write_own(self.path / RUN_FILE, json.dumps(asdict(mine), indent=2) + "\n")
                self._run_file = mine
        except OSError as error:
            raise RunRefused(
                f"the directory {self.path} cannot be written: {reason_of(error)}; nothing was submitted"
            ) from None


def new_store(file: Path, settings: StoreSettings) -> Store:
    """Return the store in a file of a locked directory, or in a copy of it, not opened yet."""
    return store_from_url(file, settings, holds_directory_lock=True)


@asynccontextmanager
async def open_run_directory(directory: Path, *, must_exist: bool = False) -> AsyncGenerator[RunDirectory, None]:
    """Lock the directory of a run for as long as the context is open.

    Args:
        directory: The directory; created if it does not exist.
        must_exist: True if the directory must already have a run.

    Raises:
        RunRefused: Another run is using the directory, it cannot be used, or it has no run.
    """
    path = Path.cwd() / directory
    if must_exist and not (await anyio.to_thread.run_sync(RunDirectory, path)).has_run:
        raise RunRefused(f"there is no run in {path}: check the path")
    lock = await anyio.to_thread.run_sync(_create_and_lock, path)
    try:
        opened = await anyio.to_thread.run_sync(RunDirectory, path)
        if not opened.has_run:
            await anyio.to_thread.run_sync(_check_foreign_sheet, path)
        yield opened
    finally:
        lock.release()


def _create_and_lock(directory: Path) -> DirectoryLock:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunRefused(
            f"the directory {directory} cannot be created: {error.strerror or error}; nothing was submitted"
        ) from None
    return DirectoryLock(directory).acquire()


def _read_run_file(path: Path) -> RunFile | None:
    """Return what the run file says; None if there is none."""
    try:
        with open_own(path, "rb") as file:
            return RunFile(**json.loads(file.read(LARGEST_RUN_FILE)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunRefused(f"{path} cannot be read: {reason_of(error)}; nothing was submitted") from None
    except (ValueError, TypeError, RecursionError):
        raise RunRefused(f"{path} is not of a run: use another directory; nothing was submitted") from None


def _check_foreign_sheet(directory: Path) -> None:
    """Check that the contact sheet of a new run would not replace a page that is not the run's."""
    for name in SHEET:
        if os.path.lexists(directory / name):
            raise RunRefused(
                f"{directory / name} is not of a run, and the contact sheet would replace it: use another directory; "
                "nothing was submitted"
            )


def _remove_partials(folder: Path) -> None:
    """Remove the temporary files in one folder, not in those below it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if PARTIAL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108 # it is a name already

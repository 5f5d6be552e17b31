"""``results.jsonl``: one line per completed or failed request of a directory, in order of completion.

The store has everything; this file is derived from it. Lines are appended a few times a second. A killed run leaves at
worst an incomplete last line, some missing lines and some that later ones replace, which the next run repairs.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from typing import IO, TYPE_CHECKING

import anyio.to_thread

from kontext_async.bulk.errors import ReportUnwritable
from kontext_async.bulk.paths import open_own, reason_of
from kontext_async.bulk.records import row_to_dict
from kontext_async.bulk.result_lines import ResultLines
from kontext_async.store.rows import Selection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row

__all__ = ["NAME", "Results", "read_pages"]

NAME = "results.jsonl"
FLUSH_SECONDS = 0.25
ROWS_AT_ONCE = 1000
SURROGATES = "backslashreplace"
"""Backslash escapes of lone surrogates are the same in Python and in JSON."""


NO_FOLDERS: Mapping[int, str] = {}


async def read_pages(store: Store, selection: Selection, *, after: int = 0) -> AsyncIterator[list[Row]]:
    """Yield the selected rows in order, in pages.

    Args:
        store: The store.
        selection: The rows to read.
        after: The number, or with `Selection.by_completion` the completion, of the last row to leave out.

    Raises:
        StoreError: The store cannot be read.
    """
    while page := await store.page(selection, after=after, limit=ROWS_AT_ONCE):
        yield page
        after = (page[-1].completion if selection.by_completion else page[-1].id) or 0


class Results:
    """Appends results, in order of completion.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._superseded = False
        self.failure: OSError | None = None

    async def catch_up(self, store: Store, run: int, folder: int) -> int:
        """Repair the file after a killed run, from the store, which has all lines and their order.

        Args:
            store: The store.
            run: The number of the run.
            folder: The number of the directory in the store.

        Returns:
            The last number of completion in the directory; 0 for none.

        Raises:
            ReportUnwritable: The file cannot be written.
            StoreError: The store cannot be read.
        """
        completed = Selection(run=run, folder=folder, by_completion=True)
        lines = await anyio.to_thread.run_sync(ResultLines.read, self._path)
        try:
            last = lines.last if lines else 0
            if lines and await self._complete(store, completed, lines):
                return max(last, lines.last)
            _, known = await self._replace(store, [completed])
            return max(last, known)
        finally:
            if lines:
                lines.close()

    async def _complete(self, store: Store, completed: Selection, lines: ResultLines) -> bool:
        """Append the missing lines, and return True; return False if the file must be made again."""
        async for rows in read_pages(store, completed, after=lines.checked_from):
            missing = [row for row in rows if not lines.has(row)]
            if not await anyio.to_thread.run_sync(lines.add, missing):
                return False
            await anyio.to_thread.run_sync(self._append, [_line(row) for row in missing])
        await self.aclose()
        return lines.is_checked

    def add(self, row: Row, *, again: bool) -> None:
        """Append the result of a request.

        Args:
            row: The request's row.
            again: True if the file has an earlier line of the request.
        """
        self._superseded |= again
        self._lines.append(_line(row))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    async def aclose(self) -> None:
        """Write all remaining lines.

        Raises:
            ReportUnwritable: The file cannot be written.
        """
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._writing:
            await self._writing
        lines, self._lines = self._lines, []
        await anyio.to_thread.run_sync(self._append, lines)
        if self.failure:
            raise _unwritable(self._path, self.failure)

    async def finish(self, store: Store, run: int, folder: int) -> None:
        """Write all remaining lines, and remove lines that later ones replace.

        Args:
            store: As for `catch_up`.
            run: As for `catch_up`.
            folder: As for `catch_up`.

        Raises:
            ReportUnwritable: The file cannot be written.
            StoreError: The store cannot be read.
        """
        await self.aclose()
        if self._superseded:
            await self._replace(store, [Selection(run=run, folder=folder, by_completion=True)])
            self._superseded = False

    async def regenerate(self, store: Store, run: int, folder: int, folders: Mapping[int, str]) -> int:
        """Regenerate the file for the whole run, with the rows of all directories.

        Args:
            store: The store.
            run: The number of the run.
            folder: The number of this directory in the store; its rows come first.
            folders: The paths of all directories by number. The lines of another one name it.

        Returns:
            The number of lines.

        Raises:
            ReportUnwritable: The file cannot be written.
            StoreError: The store cannot be read.
        """
        order = [folder, *sorted(folders.keys() - {folder})]
        selections = [Selection(run=run, folder=each, by_completion=True) for each in order]
        others = {number: path for number, path in folders.items() if number != folder}
        lines, _ = await self._replace(store, selections, others)
        return lines

    async def _replace(
        self, store: Store, selections: Iterable[Selection], folders: Mapping[int, str] = NO_FOLDERS
    ) -> tuple[int, int]:
        """Write a new file, and replace the old one when it is complete.

        Returns:
            The number of lines, and the last number of completion.
        """
        temporary = self._path.with_name(f".{NAME}.{secrets.token_hex(4)}.part")
        count = last = 0
        try:
            with await anyio.to_thread.run_sync(
                lambda: open_own(temporary, "x", encoding="utf-8", errors=SURROGATES)
            ) as file:
                for selection in selections:
                    async for rows in read_pages(store, selection):
                        await anyio.to_thread.run_sync(_write, file, rows, folders)
                        count += len(rows)
                        last = rows[-1].completion or last
            await anyio.to_thread.run_sync(os.replace, temporary, self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return count, last

    def _flush(self) -> None:
        self._timer = None
        lines, self._lines = self._lines, []
        loop = asyncio.get_running_loop()
        if self._writing and not self._writing.done():  # a slow disk: the lines wait for the next write
            self._lines = lines
            self._timer = loop.call_later(FLUSH_SECONDS, self._flush)
            return
        self._writing = loop.run_in_executor(None, self._append, lines)

    def _append(self, lines: list[str]) -> None:
        try:
            if lines:
                with open_own(self._path, "a", encoding="utf-8", errors=SURROGATES) as file:
                    file.write("".join(lines))
        except OSError as error:
            self.failure = self.failure or error


def _write(file: IO[str], rows: Iterable[Row], folders: Mapping[int, str]) -> None:
    file.write("".join(_line(row, folders.get(row.folder or 0)) for row in rows))


def _line(row: Row, folder: str | None = None) -> str:
    """Return the line of a row.

    Args:
        row: The row.
        folder: The directory of its images, if it is another one than the directory of the file.
    """
    known = row_to_dict(row) if folder is None else {**row_to_dict(row), "folder": folder}
    return json.dumps(known, ensure_ascii=False) + "\n"


def _unwritable(path: Path, error: OSError) -> ReportUnwritable:
    return ReportUnwritable(f"{path} cannot be written: {reason_of(error)}; the images and the store are complete")

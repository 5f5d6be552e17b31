"""``results.jsonl``: one line per completed or failed request, in order of completion.

The journal is the durable store; this file is derived from it. Lines are appended a few times a second. A killed run
leaves at worst an incomplete last line and some missing lines, which the next run repairs.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from typing import TYPE_CHECKING

import anyio.to_thread

from kontext_async.bulk.errors import JournalFailed
from kontext_async.bulk.paths import open_own
from kontext_async.bulk.records import row_to_dict

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.bulk.entries import JournalRow
    from kontext_async.bulk.journal import Journal

__all__ = ["NAME", "Results"]

NAME = "results.jsonl"
FLUSH_SECONDS = 0.25
TAIL = 1024 * 1024
LINES_AT_ONCE = 500
SURROGATES = "backslashreplace"
"""Backslash escapes of lone surrogates are the same in Python and in JSON."""


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

    async def catch_up(self, journal: Journal) -> None:
        """Repair the file after a killed run, from the journal, which has all lines and their order.

        Raises:
            JournalFailed: The journal cannot be read, or the file cannot be written.
        """
        last = await anyio.to_thread.run_sync(_repair, self._path)
        if last > journal.completions or (last == 0 and journal.completions):
            await self.rebuild(journal)
            return
        async for row in journal.completed(after=last):
            self._lines.append(_line(row))
        await self.aclose()

    def add(self, row: JournalRow, *, again: bool) -> None:
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
            JournalFailed: The file cannot be written.
        """
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._writing:
            await self._writing
        lines, self._lines = self._lines, []
        await anyio.to_thread.run_sync(self._append, lines)
        if self.failure:
            reason = self.failure.strerror or self.failure
            raise JournalFailed(f"{self._path} cannot be written: {reason}; the journal has the missing results")

    async def finish(self, journal: Journal) -> None:
        """Write all remaining lines, and remove lines that later ones replace.

        Raises:
            JournalFailed: The journal cannot be read, or the file cannot be written.
        """
        await self.aclose()
        if self._superseded:
            await self.rebuild(journal)

    async def rebuild(self, journal: Journal) -> int:
        """Regenerate the file from the journal, and replace the old one when the new one is complete.

        Returns:
            The number of lines.

        Raises:
            JournalFailed: The journal cannot be read, or the file cannot be written.
        """
        temporary = self._path.with_name(f".{NAME}.{secrets.token_hex(4)}.part")
        count = 0
        try:
            with await anyio.to_thread.run_sync(
                lambda: open_own(temporary, "x", encoding="utf-8", errors=SURROGATES)
            ) as file:
                lines: list[str] = []
                async for row in journal.completed():
                    lines.append(_line(row))
                    count += 1
                    if len(lines) >= LINES_AT_ONCE:
                        await anyio.to_thread.run_sync(file.write, "".join(lines))
                        lines = []
                await anyio.to_thread.run_sync(file.write, "".join(lines))
            await anyio.to_thread.run_sync(os.replace, temporary, self._path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            reason = error.strerror or error
            raise JournalFailed(f"{self._path} cannot be written: {reason}; the journal has all results") from error
        return count

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


def _line(row: JournalRow) -> str:
    return json.dumps(row_to_dict(row), ensure_ascii=False) + "\n"


def _repair(path: Path) -> int:
    """Remove an incomplete last line, and return the last completion that the file contains."""
    try:
        with open_own(path, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - TAIL)
            file.seek(start)
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole < len(tail):
                file.truncate(start + whole)
            lines = tail[:whole].splitlines()
            return int(json.loads(lines[-1])["completion"]) if lines else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0

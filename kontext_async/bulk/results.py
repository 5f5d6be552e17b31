"""``results.jsonl``: a line for each request that has come to its end, in that order.

The journal is what is durable; this file is made from it. Lines are appended as requests end, a few times a second; a
run that was killed leaves at worst a torn last line and some missing ones, which the next run puts right.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from typing import TYPE_CHECKING

import anyio.to_thread

from kontext_async.bulk.errors import JournalFailed
from kontext_async.bulk.records import record_of

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.bulk.entries import Row
    from kontext_async.bulk.journal import Journal

__all__ = ["NAME", "Results"]

NAME = "results.jsonl"
FLUSH_SECONDS = 0.25
TAIL = 1024 * 1024
LINES_AT_ONCE = 500
SURROGATES = "backslashreplace"
"""Which happens to be how JSON writes them."""


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
        """Put right what a killed run left: the journal knows all lines, and their order.

        Raises:
            JournalFailed: The journal cannot be read, or the file not be written.
        """
        last = await anyio.to_thread.run_sync(_repaired, self._path)
        if last > journal.completions or (last == 0 and journal.completions):
            await self.rebuild(journal)
            return
        async for row in journal.completed(after=last):
            self._lines.append(_line(row))
        await self.aclose()

    def add(self, row: Row, *, again: bool) -> None:
        """Take down a request that has come to its end.

        Args:
            row: What is known of it.
            again: Whether the file has an earlier line of it.
        """
        self._superseded |= again
        self._lines.append(_line(row))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    async def aclose(self) -> None:
        """Write what is left.

        Raises:
            JournalFailed: It could not be written.
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
            raise JournalFailed(f"{self._path} cannot be written: {reason}; the journal has what is missing there")

    async def finish(self, journal: Journal) -> None:
        """Write what is left, and drop lines that later ones have replaced.

        Raises:
            JournalFailed: The journal cannot be read, or the file not be written.
        """
        await self.aclose()
        if self._superseded:
            await self.rebuild(journal)

    async def rebuild(self, journal: Journal) -> int:
        """Write the file anew from the journal, and put it in its place when it is whole.

        Returns:
            How many lines there are.

        Raises:
            JournalFailed: The journal cannot be read, or the file not be written.
        """
        temporary = self._path.with_name(f".{NAME}.{secrets.token_hex(4)}.part")
        count = 0
        try:
            with await anyio.to_thread.run_sync(
                lambda: temporary.open("w", encoding="utf-8", errors=SURROGATES)
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
            raise JournalFailed(f"{self._path} cannot be written: {error.strerror or error}") from error
        return count

    def _flush(self) -> None:
        self._timer = None
        lines, self._lines = self._lines, []
        loop = asyncio.get_running_loop()
        if self._writing and not self._writing.done():  # a slow disk: the lines wait for the next turn
            self._lines = lines
            self._timer = loop.call_later(FLUSH_SECONDS, self._flush)
            return
        self._writing = loop.run_in_executor(None, self._append, lines)

    def _append(self, lines: list[str]) -> None:
        try:
            if lines:
                with self._path.open("a", encoding="utf-8", errors=SURROGATES) as file:
                    file.write("".join(lines))
        except OSError as error:
            self.failure = self.failure or error


def _line(row: Row) -> str:
    return json.dumps(record_of(row), ensure_ascii=False) + "\n"


def _repaired(path: Path) -> int:
    """Cut off a torn last line, and say up to which completion the file is whole."""
    try:
        with path.open("rb+") as file:
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

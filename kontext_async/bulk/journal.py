"""The journal of a durable run: every request by fingerprint and occurrence, and each step before the next one.

There is one connection, used by one caller at a time. Reads see everything that was committed.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import anyio
from sqlalchemy import Update, and_, bindparam, func, insert, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from kontext_async.bulk.committer import Committer
from kontext_async.bulk.database import (
    ADVICE,
    NAME,
    begin_generation,
    connect,
    disconnect,
    is_locked,
    reason_of,
    settle,
    unusable,
    url_of,
)
from kontext_async.bulk.entries import JournalRow
from kontext_async.bulk.errors import JournalFailed, JournalUnusable
from kontext_async.bulk.occurrences import Occurrences
from kontext_async.bulk.paths import is_relative_name
from kontext_async.bulk.reserve import Reserve
from kontext_async.bulk.schema import requests
from kontext_async.bulk.standing import summarize, summary_query
from kontext_async.bulk.states import State
from kontext_async.errors import KontextError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from kontext_async.bulk.committer import Changes
    from kontext_async.bulk.entries import InputRequest
    from kontext_async.bulk.standing import Standing

__all__ = ["Journal"]

ROWS_AT_ONCE = 500
ENDS = (State.SAVED, State.FAILED, State.EXPIRED)


class Journal:
    """The open journal of a run. Create it with `open`.

    Attributes:
        generation: The number of executions of the run, from 1.
        completions: The number of completions so far; a request may complete more than once.
    """

    def __init__(self, connection: AsyncConnection, run_id: int, generation: int, *, dry: bool) -> None:
        self._connection = connection
        self._run_id = run_id
        self.generation = generation
        self.completions = 0
        self._dry = dry
        self._using = asyncio.Lock()
        self._next_id = 1
        self._occurrences = Occurrences()
        self._statements: dict[tuple[str, ...], Update] = {}
        self._committer = Committer(self._apply)
        database = connection.engine.url.database if connection.dialect.name == "sqlite" else None
        self._file = Path(database) if database else None
        self._reserve = Reserve(self._file)

    @classmethod
    async def open(
        cls, directory: Path, *, url: str | None = None, must_exist: bool = False, dry: bool = False
    ) -> Self:
        """Open a run's journal, or create it.

        Args:
            directory: The run's directory, which must exist; its path is the run's name.
            url: The URL of the database; None is SQLite in the directory.
            must_exist: True if the journal of an earlier execution must exist.
            dry: True if no change is kept.

        Raises:
            JournalUnusable: The journal is missing, cannot be opened, is damaged, or is newer than this library.
            RunLocked: Another process is using the run.
            JournalFailed: The journal cannot be written.
        """
        if must_exist and not url and not await anyio.to_thread.run_sync((directory / NAME).exists):
            raise _missing(directory)
        address = url_of(url, directory)
        connection = await connect(address)
        try:
            with _failing("the run could not be recorded"):
                name = await anyio.to_thread.run_sync(lambda: str(directory.resolve())) if url else "run"
                run_id, generation = await begin_generation(connection, name, must_exist=must_exist)
                if not run_id:
                    raise _missing(directory)  # noqa: TRY301 # nothing is caught here but to close the connection
                if not dry:
                    await connection.commit()
                journal = cls(connection, run_id, generation, dry=dry)
                mine = requests.c.run_id == run_id
                last = select(func.max(requests.c.id), func.max(requests.c.completion)).where(mine)
                number, completion = (await connection.execute(last)).one()
            if not dry:
                await settle(connection)
        except BaseException as error:
            await disconnect(connection)
            cause = error.__cause__
            if isinstance(error, JournalFailed) and cause and is_locked(cause):
                raise unusable(address.render_as_string(), cause) from cause
            raise
        journal._next_id = (number or 0) + 1
        journal.completions = completion or 0
        if not dry:
            try:
                await anyio.to_thread.run_sync(journal._reserve.fill)
            except BaseException:
                await journal.aclose()
                raise
        return journal

    async def aclose(self) -> None:
        """Write all remaining steps, and close the journal."""
        await self._committer.aclose()
        async with self._using:
            await disconnect(self._connection)
        self._reserve.release()

    async def take(self, entries: Sequence[InputRequest]) -> list[JournalRow]:
        """Return the rows of consecutive requests of the input, known or new.

        Raises:
            JournalFailed: The journal cannot be read or written.
        """
        async with self._used("requests could not be recorded"):
            unknown = self._occurrences.unknown([entry.fingerprint for entry in entries])
            keys = self._occurrences.count(entries, await self._latest(unknown))
            known = {
                (row.fingerprint, row.occurrence): row
                for row in await self._rows(tuple_(requests.c.fingerprint, requests.c.occurrence).in_(_binary(keys)))
            }
            rows = []
            for entry, key in zip(entries, keys, strict=True):
                row = known.get(key) or self._new_row(entry, key[1])
                row.position = entry.position
                rows.append(row)
            await self._record(entries, rows, known)
            if not self._dry:
                await self._connection.commit()
        return rows

    async def commit(self, row: int, **changes: Any) -> None:
        """Write one step of a row, and return when it is durable.

        Raises:
            JournalFailed: The step could not be written.
        """
        await self._committer.commit(row, changes)

    def note(self, row: int, **changes: Any) -> None:
        """Write one step of a row with the next group.

        Raises:
            JournalFailed: The journal is closed.
        """
        self._committer.note(row, changes)

    async def flush(self) -> None:
        """Return when all earlier steps are written, so that the journal can be read.

        Raises:
            JournalFailed: A step could not be written.
        """
        await self._committer.flush()

    def next_completion(self) -> int:
        """Return the next number in the order of completion."""
        self.completions += 1
        return self.completions

    async def standing(self) -> Standing:
        """Summarize the journal.

        Raises:
            JournalFailed: The journal cannot be read.
        """
        async with self._used("it could not be read"):
            return summarize(await self._connection.execute(summary_query(self._run_id)))

    async def rows(self, *where: ColumnElement[bool]) -> AsyncIterator[JournalRow]:
        """Yield rows in the order in which they were first read, a few hundred at a time.

        Raises:
            JournalFailed: The journal cannot be read.
        """
        last = 0
        while True:
            async with self._used("it could not be read"):
                rows = await self._rows(requests.c.id > last, *where, limit=ROWS_AT_ONCE)
            for row in rows:
                yield row
            if len(rows) < ROWS_AT_ONCE:
                return
            last = rows[-1].id

    async def completed(self, *, after: int = 0) -> AsyncIterator[JournalRow]:
        """Yield rows with a final result, in order of completion, a few hundred at a time.

        Args:
            after: Yield only rows whose completion number is higher.

        Raises:
            JournalFailed: The journal cannot be read.
        """
        while True:
            later = and_(requests.c.completion > after, requests.c.state.in_(ENDS))
            async with self._used("it could not be read"):
                rows = await self._rows(later, order=requests.c.completion, limit=ROWS_AT_ONCE)
            for row in rows:
                yield row
            if len(rows) < ROWS_AT_ONCE:
                return
            after = rows[-1].completion or 0

    async def orphans(self) -> AsyncIterator[JournalRow]:
        """Yield requests that are paid for, not saved, and missing from the latest input.

        Raises:
            JournalFailed: The journal cannot be read.
        """
        paid = requests.c.state.in_((State.ACCEPTED, State.COMPLETED))
        async for row in self.rows(paid, requests.c.generation < self.generation):
            yield row

    async def uncertain(self) -> list[JournalRow]:
        """Return the uncertain requests. Call it only while no request is being sent.

        Raises:
            JournalFailed: The journal cannot be read.
        """
        return [row async for row in self.rows(requests.c.state == State.INTENT)]

    async def folders(self) -> set[str]:
        """Return the folders in which an earlier execution may have left partial images, relative to the directory.

        Raises:
            JournalFailed: The journal cannot be read.
        """
        folders = {"."}
        unfinished = (requests.c.state == State.COMPLETED, requests.c.files.is_not(None))
        query = select(requests.c.files).where(requests.c.run_id == self._run_id, *unfinished)
        async with self._used("it could not be read"):
            for (files,) in await self._connection.execute(query):
                folders |= {str(PurePosixPath(name).parent) for name, _ in json.loads(files) if is_relative_name(name)}
        return folders

    async def _latest(self, fingerprints: Sequence[str]) -> dict[str, int]:
        """Return the latest occurrence of each fingerprint that this input contained so far."""
        if not fingerprints:
            return {}
        c = requests.c
        query = select(c.fingerprint, func.max(c.occurrence)).where(
            c.run_id == self._run_id,
            c.fingerprint.in_([bytes.fromhex(each) for each in fingerprints]),
            c.generation == self.generation,
        )
        found = await self._connection.execute(query.group_by(c.fingerprint))
        return {bytes(fingerprint).hex(): occurrence for fingerprint, occurrence in found}

    def _new_row(self, entry: InputRequest, occurrence: int) -> JournalRow:
        number = self._next_id
        self._next_id += 1
        return JournalRow.new(number, entry, occurrence)

    async def _record(
        self, entries: Sequence[InputRequest], rows: Sequence[JournalRow], known: Mapping[tuple[str, int], JournalRow]
    ) -> None:
        new = []
        seen = []
        for entry, row in zip(entries, rows, strict=True):
            place = {"generation": self.generation, "position": row.position}
            if (row.fingerprint, row.occurrence) in known:
                seen.append({"row": row.id, **{f"new_{name}": value for name, value in place.items()}})
                continue
            new.append(
                {
                    "run_id": self._run_id,
                    "id": row.id,
                    "fingerprint": bytes.fromhex(row.fingerprint),
                    "occurrence": row.occurrence,
                    "state": str(row.state),
                    "model": row.model,
                    "images": row.images,
                    "prompt": row.prompt.replace("\0", "\ufffd"),  # PostgreSQL has no NUL in its texts
                    "fields": entry.fields(),
                    **place,
                }
            )
        if new:
            await self._connection.execute(insert(requests), new)
        if seen:
            await self._connection.execute(self._statement(("generation", "position")), seen)

    async def _apply(self, changes: Changes) -> None:
        """Write a group. If the disk is full, steps of paid tasks use the reserve; intents do not."""
        if self._file and not await anyio.to_thread.run_sync(self._file.exists):
            raise JournalFailed(
                f"the journal {self._file} was deleted during the run: no further requests are submitted; "
                "restore it from a backup before the next run, or requests would be billed again"
            )
        try:
            await self._execute(changes)
        except JournalFailed as error:
            if not self._reserve.release():
                raise
            intents = frozenset(row for row, each in changes.items() if each.get("state") == State.INTENT)
            await self._execute({row: each for row, each in changes.items() if row not in intents})
            error.rows = intents
            raise

    async def _execute(self, changes: Changes) -> None:
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row, columns in changes.items():
            values = {f"new_{name}": value for name, value in columns.items()}
            alike.setdefault(tuple(columns), []).append({"row": row, **values})
        async with self._used("a step could not be written"):
            for names, steps in alike.items():
                await self._connection.execute(self._statement(names), steps)
            await self._connection.commit()

    def _statement(self, names: tuple[str, ...]) -> Update:
        if names not in self._statements:
            mine = (requests.c.run_id == self._run_id, requests.c.id == bindparam("row"))
            self._statements[names] = (
                update(requests).where(*mine).values({name: bindparam(f"new_{name}") for name in names})
            )
        return self._statements[names]

    async def _rows(
        self, *where: ColumnElement[bool], order: ColumnElement[Any] = requests.c.id, limit: int | None = None
    ) -> list[JournalRow]:
        query = select(requests).where(requests.c.run_id == self._run_id, *where).order_by(order).limit(limit)
        return [JournalRow.of(row._asdict()) for row in await self._connection.execute(query)]

    @asynccontextmanager
    async def _used(self, what: str) -> AsyncIterator[None]:
        async with self._using:
            try:
                with (
                    anyio.CancelScope(shield=True),
                    _failing(what),
                ):  # a cancelled statement would break the connection
                    yield
            except JournalFailed:
                if not self._dry:
                    await _roll_back(self._connection)
                raise


class _failing:  # noqa: N801 # a context manager
    """Translates the errors of the database, and values that no run writes, into `JournalFailed`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, KontextError):
            raise JournalFailed(f"the journal failed, {self._what}: {reason_of(error)}") from error


async def _roll_back(connection: AsyncConnection) -> None:
    try:
        await connection.rollback()
    except SQLAlchemyError:
        return


def _binary(keys: Sequence[tuple[str, int]]) -> list[tuple[bytes, int]]:
    return [(bytes.fromhex(fingerprint), occurrence) for fingerprint, occurrence in keys]


def _missing(directory: Path) -> JournalUnusable:
    return JournalUnusable(f"the journal of the run in {directory} is missing: {ADVICE}")

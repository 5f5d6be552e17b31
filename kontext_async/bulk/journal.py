"""The journal of a durable run: every request by fingerprint and occurrence, and each step before the next is taken.

One connection, used by one at a time. What is read through it sees everything that was committed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
from sqlalchemy import Update, and_, bindparam, func, insert, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from kontext_async.bulk.committer import Committer
from kontext_async.bulk.database import NAME, begin_generation, connect, disconnect, reason_of, url_of
from kontext_async.bulk.entries import Row
from kontext_async.bulk.errors import JournalFailed, JournalUnusable
from kontext_async.bulk.occurrences import Occurrences
from kontext_async.bulk.reserve import Reserve
from kontext_async.bulk.schema import requests
from kontext_async.bulk.standing import groups_of, summed_up
from kontext_async.bulk.states import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from kontext_async.bulk.committer import Changes
    from kontext_async.bulk.entries import Entry
    from kontext_async.bulk.standing import Standing

__all__ = ["Journal"]

ROWS_AT_ONCE = 500
ENDS = (State.SAVED, State.FAILED, State.EXPIRED)


class Journal:
    """A run's journal, open. Made by `open`.

    Attributes:
        generation: How often the run was begun, from 1.
        completions: Requests that have come to an end so far; some of them more than once.
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
        """Open a run's journal, or make it.

        Args:
            directory: The run's directory, which must exist; its name is the run's name.
            url: The database; None is SQLite in the directory.
            must_exist: Whether the run was begun before, and no new journal will do.
            dry: Whether nothing of what is done shall stay.

        Raises:
            JournalUnusable: It is missing, cannot be opened, is damaged, or newer than this library.
            RunLocked: Another process has the run.
            JournalFailed: It cannot be written.
        """
        if must_exist and not url and not await anyio.to_thread.run_sync((directory / NAME).exists):
            raise _missing(directory)
        connection = await connect(url_of(url, directory))
        try:
            with _failing("the run cannot be begun"):
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
        except BaseException:
            await disconnect(connection)
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
        """Write what is left, and close."""
        await self._committer.aclose()
        async with self._using:
            await disconnect(self._connection)
        self._reserve.release()

    async def take(self, entries: Sequence[Entry]) -> list[Row]:
        """The rows of requests that were read one after the other: as they are known, or new.

        Raises:
            JournalFailed: It cannot be read or written.
        """
        async with self._used("requests could not be taken down"):
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
            await self._take_down(entries, rows, known)
            if not self._dry:
                await self._connection.commit()
        return rows

    async def commit(self, row: int, **changes: Any) -> None:
        """Write one step of a row, and return when it is durable.

        Raises:
            JournalFailed: It could not be written.
        """
        await self._committer.commit(row, changes)

    def note(self, row: int, **changes: Any) -> None:
        """Write one step of a row with the next group.

        Raises:
            JournalFailed: The journal is closed.
        """
        self._committer.note(row, changes)

    def next_completion(self) -> int:
        """The place in the order of completion of a request that comes to its end now."""
        self.completions += 1
        return self.completions

    async def standing(self) -> Standing:
        """Sum up.

        Raises:
            JournalFailed: It cannot be read.
        """
        async with self._used("it cannot be read"):
            return summed_up(await self._connection.execute(groups_of(self._run_id)))

    async def rows(self, *where: ColumnElement[bool]) -> AsyncIterator[Row]:
        """Rows in the order in which they were first read, a few hundred at a time.

        Raises:
            JournalFailed: It cannot be read.
        """
        last = 0
        while True:
            async with self._used("it cannot be read"):
                rows = await self._rows(requests.c.id > last, *where, limit=ROWS_AT_ONCE)
            for row in rows:
                yield row
            if len(rows) < ROWS_AT_ONCE:
                return
            last = rows[-1].id

    async def completed(self, *, after: int = 0) -> AsyncIterator[Row]:
        """Rows that have come to an end, in the order in which they did, a few hundred at a time.

        Args:
            after: The place in that order behind which to begin.

        Raises:
            JournalFailed: It cannot be read.
        """
        while True:
            later = and_(requests.c.completion > after, requests.c.state.in_(ENDS))
            async with self._used("it cannot be read"):
                rows = await self._rows(later, order=requests.c.completion, limit=ROWS_AT_ONCE)
            for row in rows:
                yield row
            if len(rows) < ROWS_AT_ONCE:
                return
            after = rows[-1].completion or 0

    async def orphans(self) -> AsyncIterator[Row]:
        """Requests that are paid for and not saved, and that the latest input has no more.

        Raises:
            JournalFailed: It cannot be read.
        """
        paid = requests.c.state.in_((State.ACCEPTED, State.FINISHED))
        async for row in self.rows(paid, requests.c.generation < self.generation):
            yield row

    async def uncertain(self) -> list[Row]:
        """Requests of which nobody knows whether they were accepted; only when nothing is on the wire.

        Raises:
            JournalFailed: It cannot be read.
        """
        return [row async for row in self.rows(requests.c.state == State.INTENT)]

    async def _latest(self, fingerprints: Sequence[str]) -> dict[str, int]:
        """The latest occurrence of each that this input had so far; those that it had not are left out."""
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

    def _new_row(self, entry: Entry, occurrence: int) -> Row:
        number = self._next_id
        self._next_id += 1
        return Row.new(number, entry, occurrence)

    async def _take_down(
        self, entries: Sequence[Entry], rows: Sequence[Row], known: Mapping[tuple[str, int], Row]
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
        """Write a group. When the disk is full, what is paid for goes into the reserve; intents do not."""
        if self._file and not await anyio.to_thread.run_sync(self._file.exists):
            raise JournalFailed(f"the journal {self._file} is gone")
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
    ) -> list[Row]:
        query = select(requests).where(requests.c.run_id == self._run_id, *where).order_by(order).limit(limit)
        return [Row.of(row._asdict()) for row in await self._connection.execute(query)]

    @asynccontextmanager
    async def _used(self, what: str) -> AsyncIterator[None]:
        async with self._using:
            try:
                with (
                    anyio.CancelScope(shield=True),
                    _failing(what),
                ):  # a statement that is cancelled costs the connection
                    yield
            except JournalFailed:
                if not self._dry:
                    await _roll_back(self._connection)
                raise


class _failing:  # noqa: N801 # a context manager
    """What the database raises, as `JournalFailed`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, SQLAlchemyError | OSError):
            raise JournalFailed(f"the journal has failed, {self._what}: {reason_of(error)}") from error


async def _roll_back(connection: AsyncConnection) -> None:
    try:
        await connection.rollback()
    except SQLAlchemyError:
        return


def _binary(keys: Sequence[tuple[str, int]]) -> list[tuple[bytes, int]]:
    return [(bytes.fromhex(fingerprint), occurrence) for fingerprint, occurrence in keys]


def _missing(directory: Path) -> JournalUnusable:
    return JournalUnusable(
        f"the journal of the run in {directory} is missing: put a copy of it in its place, or use another directory; "
        "without it, what is paid for would be paid again"
    )

"""Stores for soaks: each on a database of its own, and what the store and the gateway know at the end.

`start_store` runs the database. `read_store` reads it, and `Audit` compares it with the gateway's ledger.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from benchmarks.servers.pgbouncer import start_pgbouncer
from benchmarks.servers.postgres import start_postgres
from kontext_async.settings import StoreSettings
from kontext_async.store.rows import Selection
from kontext_async.store.steps import State
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.servers.postgres import PostgresDatabase
    from kontext_async.store.rows import Row, SecondTask

__all__ = [
    "PGBOUNCER",
    "POSTGRES",
    "SQLITE",
    "STORES",
    "Audit",
    "StoreServer",
    "StoreState",
    "add_store_option",
    "read_store",
    "start_store",
]

SQLITE = "sqlite"
POSTGRES = "postgres"
PGBOUNCER = "pgbouncer"
STORES = (SQLITE, POSTGRES, PGBOUNCER)
WINDOW = 0.4
"""Seconds that a step may take from the process to the disk. Kills are farther apart than that."""
REACTION = 0.1
"""Seconds after a kill in which the gateway may not have noticed that its client is gone."""


def add_store_option(parser: argparse.ArgumentParser, choices: Sequence[str] = STORES) -> None:
    """Add the options ``--store``, all of `choices` by default, and ``--quick``."""
    parser.add_argument("--store", choices=choices, action="append", help="the database; all of them by default")
    parser.add_argument("--quick", action="store_true", help="a small run, which shows whether the logic holds")
    parser.set_defaults(stores=choices)


@frozen
class StoreServer:
    """A database for a store.

    Attributes:
        kind: One of `STORES`.
        url: The URL of the store.
        folder: The folder of the SQLite file and of the spools.
        database: The database in PostgreSQL; None for SQLite.
    """

    kind: str
    url: str = field(repr=False)
    folder: Path
    database: PostgresDatabase | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment variables for processes that use the store. Their spools go to the folder."""
        return {"KONTEXT_STORE": self.url, "XDG_STATE_HOME": str(self.folder)}

    def cpu_seconds(self) -> float:
        """Return the seconds of CPU of the database server; 0 for SQLite, which works in the client."""
        return self.database.server.cpu_seconds() if self.database else 0.0


@contextmanager
def start_store(kind: str, folder: Path, *, fsync: bool = True) -> Iterator[StoreServer]:
    """Run an empty database: a file in the folder, or a PostgreSQL server, with PgBouncer before it or without."""
    if kind == SQLITE:
        yield StoreServer(kind, f"sqlite:///{folder / 'store.db'}", folder)
        return
    with ExitStack() as stack:
        server = stack.enter_context(start_postgres(fsync=fsync))
        database = server.create_database()
        url = database.url
        if kind == PGBOUNCER:
            url = stack.enter_context(start_pgbouncer(server)).url(database)
        yield StoreServer(kind, url, folder, database)


@frozen
class StoreState:
    """What a store knows.

    Attributes:
        rows: All rows.
        second_tasks: All second paid tasks.
    """

    rows: tuple[Row, ...]
    second_tasks: tuple[SecondTask, ...]

    @property
    def states(self) -> Counter[str]:
        """The number of rows in each state."""
        return Counter(str(row.state) for row in self.rows)

    @property
    def task_ids(self) -> set[str]:
        """The IDs of all paid tasks."""
        return {row.task_id for row in self.rows if row.task_id} | {task.task_id for task in self.second_tasks}

    @property
    def uncertain(self) -> dict[str, Row]:
        """The uncertain rows, by prompt. An intent is one whose owner nobody has looked for yet."""
        return {row.prompt: row for row in self.rows if row.state in (State.UNCERTAIN, State.INTENT)}


def read_store(url: str) -> StoreState:
    """Read a whole store."""
    return asyncio.run(_read_store(url))


async def _read_store(url: str) -> StoreState:
    store = store_from_url(url, StoreSettings())
    await store.open()
    try:
        rows: list[Row] = []
        while page := await store.page(Selection(), after=rows[-1].id if rows else 0):
            rows += page
        return StoreState(tuple(rows), tuple(await store.second_tasks()))
    finally:
        await store.aclose()


@frozen
class Audit:
    """The gateway's ledger beside the store, at the end of a soak in which processes were killed.

    Attributes:
        ledger: The entries of the ledger that were accepted.
        store: What the store knows.
        kills: When processes were killed, in Unix seconds.
        window: Seconds before a kill in which a process may have known of a response, or of an intent, alone.
    """

    ledger: Sequence[Mapping[str, Any]]
    store: StoreState
    kills: Sequence[float] = ()
    window: float = WINDOW

    @classmethod
    def of(
        cls, ledger: Mapping[str, Any], store: StoreState, kills: Sequence[float] = (), window: float = WINDOW
    ) -> Audit:
        """Make an audit of a whole ledger."""
        return cls([entry for entry in ledger["entries"] if entry["task_id"]], store, kills, window)

    @property
    def bills(self) -> Counter[str]:
        """The number of accepted create requests of each prompt."""
        return Counter(entry["prompt"] for entry in self.ledger)

    @property
    def billed_twice(self) -> dict[str, int]:
        """The prompts that were billed more than once."""
        return {prompt: bills for prompt, bills in self.bills.items() if bills > 1}

    @property
    def lost_ids(self) -> list[str]:
        """The IDs of accepted tasks that the store does not know, and whose rows are not uncertain either."""
        known, uncertain = self.store.task_ids, self.store.uncertain
        return [
            entry["task_id"]
            for entry in self.ledger
            if entry["task_id"] not in known and entry["prompt"] not in uncertain
        ]

    @property
    def on_wire(self) -> set[str]:
        """The prompts that were accepted and whose client was gone at the response, or was killed a moment later."""
        return {
            entry["prompt"] for entry in self.ledger if entry["status"] is None or self._is_near_a_kill(entry["at"])
        }

    @property
    def uncertain_off_wire(self) -> list[str]:
        """The uncertain prompts that were not on the wire at a kill, nor about to be sent."""
        bills, on_wire = self.bills, self.on_wire
        return [
            prompt
            for prompt, row in self.store.uncertain.items()
            if not (prompt in on_wire if bills[prompt] else self._is_near_a_kill(row.intended_at or 0.0))
        ]

    def describe_off_wire(self) -> list[str]:
        """Return, for each uncertain prompt that was not on the wire, when it was sent and accepted before a kill."""
        accepted = {entry["prompt"]: entry["at"] for entry in self.ledger}
        lines = []
        for prompt in self.uncertain_off_wire:
            row = self.store.uncertain[prompt]
            times = {"intent": row.intended_at, "accepted": accepted.get(prompt)}
            before = {name: self._until_kill(at) for name, at in times.items() if at is not None}
            lines.append(f"uncertain off the wire: {prompt}, seconds until the next kill {before}, error {row.error}")
        return lines

    def checks(self) -> dict[str, bool]:
        """Print what disagrees, and return the checks that hold for every soak with kills."""
        for line in self.describe_off_wire():
            print(line)
        uncertain = len(self.store.uncertain)
        unsent = sum(not self.bills[prompt] for prompt in self.store.uncertain)
        return {
            f"no request was billed twice: {len(self.billed_twice)} were": not self.billed_twice,
            f"no ID of a billed task is lost: {len(self.lost_ids)} are": not self.lost_ids,
            f"uncertain {uncertain} (never sent {unsent}), on the wire at {len(self.kills)} kills {len(self.on_wire)}; "
            f"uncertain without having been on the wire {len(self.uncertain_off_wire)}": not self.uncertain_off_wire,
        }

    def _until_kill(self, at: float) -> float | None:
        """Return the seconds from a time until the next kill; None if there is none."""
        return min((round(kill - at, 3) for kill in self.kills if kill >= at), default=None)

    def _is_near_a_kill(self, at: float) -> bool:
        return any(kill - self.window <= at <= kill + REACTION for kill in self.kills)

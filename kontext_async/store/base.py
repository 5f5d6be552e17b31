"""The interface of a store: rows of paid work, shared by workers. Each method is one transaction.

A store decides nothing by itself: which steps are legal is `kontext_async.store.states`. It decides with one statement
of the database, on the database's clock, whether a step still holds when it is written, because other workers write
too. `kontext_async.store.memory` and `kontext_async.store.sql` implement it, and one test suite holds for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kontext_async.store.limits import Commitment
    from kontext_async.store.rows import (
        Account,
        NewRow,
        Row,
        RowStep,
        Run,
        RunSummary,
        SecondTask,
        Selection,
        StepResult,
    )

__all__ = ["DEFAULT_RUN", "Store"]

DEFAULT_RUN = "default"
"""The name of the run of keys that are given without one."""


class Store(ABC):
    """The place where paid work is known outside the process that paid.

    One object belongs to one session (or bulk run) at a time, and to one event loop. Any method but `open` may raise
    `StoreUnavailable`: the database could not be reached, or has stopped the statement. It may then have been executed
    or not: every method can be repeated. A `StoreUnusable` lasts.

    Attributes:
        name: The store's address for people, without a password.
        identity: A random text that distinguishes this store from every other one. Known once it is open.
        salt: 32 random bytes, with which names of accounts are made from keys. Known once it is open.
        concurrency: The number of groups of steps that may be written at the same time.
        reserve_beside: The folder in whose file system the store needs space, for a reserve; None for a server.
    """

    name: str
    identity: str = ""
    salt: bytes = b""
    concurrency: int = 1

    @abstractmethod
    async def open(self) -> None:
        """Open the store, and create or migrate its tables.

        Raises:
            StoreUnusable: It is not a store, is damaged, is newer than this library, or rights are missing.
            StoreUnavailable: It cannot be reached within `StoreSettings.connect` seconds.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections. It does not raise."""

    @abstractmethod
    async def add_worker(self, token: bytes, lease: float) -> int:
        """Register a worker that is alive for `lease` seconds from now, and return its number.

        Args:
            token: The worker's UUID, 16 bytes. The same token gives the same number.
            lease: Seconds.
        """

    @abstractmethod
    async def beat(self, worker: int, lease: float) -> None:
        """Extend the life of a worker to `lease` seconds from now. It uses a connection of its own."""

    @abstractmethod
    async def remove_worker(self, worker: int) -> None:
        """End the life of a worker now: its rows are free, its intents can be swept."""

    @abstractmethod
    async def account(self, account: Account) -> int:
        """Return the number of an account; register it if it is new."""

    @abstractmethod
    async def accounts(self) -> dict[int, Account]:
        """Return all accounts by number."""

    @abstractmethod
    async def open_run(self, name: str, *, create: bool = True, executes: bool = False) -> Run | None:
        """Return a run by its name.

        Args:
            name: The name.
            create: Create the run if it does not exist; otherwise return None for an unknown name.
            executes: Begin another execution: the number of executions grows by one.
        """

    @abstractmethod
    async def run_names(self) -> dict[int, str]:
        """Return the names of all runs by number."""

    @abstractmethod
    async def folder(self, token: bytes, path: str) -> int:
        """Return the number of a folder of images; register it if it is new.

        Args:
            token: A random token that is kept in the folder, 16 bytes.
            path: The path of the folder, for people.
        """

    @abstractmethod
    async def folders(self) -> dict[int, str]:
        """Return the paths of all folders by number, for people and reports."""

    @abstractmethod
    async def plan(
        self, run: int, rows: Sequence[NewRow], *, worker: int | None = None, execution: int | None = None
    ) -> list[Row]:
        """Return the rows of keys, in order; create the missing ones as planned.

        A new row is free; `worker` is recorded as the preferred owner, which keeps nobody from taking it. A new row
        with `NewRow.intended` is that worker's, as if it had taken this step of the planned row. For an execution, the
        position and the execution of known rows are updated where `kontext_async.store.states.is_moved` says so, and
        `worker` becomes the preferred owner of ownerless rows (`kontext_async.store.states.is_ownerless`).

        Args:
            run: The number of the run.
            rows: The requests; their keys must differ.
            worker: The preferred owner of new rows, and for an execution of ownerless rows; None for none.
            execution: The number of the execution that reads these requests; None outside bulk runs.
        """

    @abstractmethod
    async def fetch(self, rows: Collection[int]) -> dict[int, Row]:
        """Return rows by their numbers; unknown ones are left out."""

    @abstractmethod
    async def find(self, run: int, keys: Collection[str]) -> dict[str, Row]:
        """Return rows by their keys; unknown ones are left out."""

    @abstractmethod
    async def apply(self, worker: int, steps: Sequence[RowStep]) -> list[StepResult]:
        """Write a group of steps in one transaction, in order, and return what became of each.

        A step that is lost does not affect the others. `StoreUnavailable` concerns all of them; each can be repeated.
        What a step does is `outcomes.decide`, and whether the cost limit admits it is `limits.admits`. The amount that
        the run has spent is the sum of the costs of its rows and second tasks, forgotten ones included.
        """

    @abstractmethod
    async def page(self, selection: Selection, *, after: int = 0, limit: int = 500) -> list[Row]:
        """Return selected rows in order, up to `limit`, whose number (or completion) is above `after`."""

    @abstractmethod
    async def second_tasks(self, run: int | None = None) -> list[SecondTask]:
        """Return the second paid tasks of a run, or of all runs."""

    @abstractmethod
    async def receive_second_task(self, row: int, task_id: str, at: float) -> None:
        """Record that somebody has received a second task."""

    @abstractmethod
    async def commitment(self, run: int) -> Commitment:
        """Return what a run has spent, and what its rows may still cost. It reads the open rows of the run only."""

    @abstractmethod
    async def summary(self, run: int) -> RunSummary:
        """Sum up a run."""

    @abstractmethod
    async def forget(self, before: float, *, run: int | None = None) -> int:
        """Delete completed, failed and expired rows that completed before a time, and return their number.

        Second tasks whose row is gone are deleted once somebody has received them, or if they failed or expired.

        Args:
            before: Unix seconds.
            run: The number of the run; None for all runs but those of bulk runs, which have executions.
        """

    def release_reserve(self) -> bool:
        """Release the disk space that is reserved for the store, if the disk is full; return True if there was some."""
        return False

    def restore_reserve(self) -> bool:
        """Reserve the space again that was released; return False if the disk is still full."""
        return True

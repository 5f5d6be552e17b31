"""A worker: one incarnation of a session at a store, with its beat, its queue of steps and its spool.

What becomes of a step while the store cannot be reached:

===============================  ===================================================================================
steps                            what `Worker.record` does
===============================  ===================================================================================
before a create request:         repeats it until its time limit, then raises `StoreUnavailable`: nothing was sent.
Intended, Resubmitted, Orphaned  An `Intended` that may have been written is withdrawn as soon as that is known
Accepted                         never raises: the ID is spooled at once, and repeated for as long as the worker lives
all others                       repeats it for as long as the worker lives; raises `StoreUnavailable` at its limit
===============================  ===================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import math
import os
import random
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attrs import evolve

from kontext_async.decisions.resend import backoff
from kontext_async.errors import SessionClosed, StoreError, StoreUnavailable
from kontext_async.settings import find_spool_folder
from kontext_async.shared_timeout import SharedTimeout
from kontext_async.store.availability import Availability, Part
from kontext_async.store.boot_clock import boot_time
from kontext_async.store.calls import call_store
from kontext_async.store.group_commit import BACKOFF, GroupCommitter
from kontext_async.store.heartbeat import Heartbeat
from kontext_async.store.planner import Planner
from kontext_async.store.row_watcher import RowWatcher
from kontext_async.store.rows import Account, StepResult
from kontext_async.store.spool import Spool
from kontext_async.store.states import TRANSITIONS, advance
from kontext_async.store.step_queue import BEFORE_CREATE, QueuedStep
from kontext_async.store.steps import Accepted, Intended, Verdict, Withdrawn
from kontext_async.store.unwritten_ids import UnwrittenIds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from kontext_async.settings import StoreSettings
    from kontext_async.store.base import Store
    from kontext_async.store.rows import NewRow, Row, Run
    from kontext_async.store.steps import Step

__all__ = ["Worker", "account_name"]

T = TypeVar("T")

APPLIED = StepResult(verdict=Verdict.APPLIED)


def account_name(api_key: str, salt: bytes) -> str:
    """Return the name of the account of an API key: a hash that is keyed with the salt of the store."""
    return hmac.new(salt, api_key.encode(), hashlib.sha256).hexdigest()[:16]


class _Parts:
    """The parts of a started worker. Each owns its tasks."""

    def __init__(self, worker: Worker, spool: Spool, *, registered_at: float) -> None:
        store, settings, number = worker.store, worker.settings, worker.number
        self.committer = GroupCommitter(store, number, time_limit=settings.connect, availability=worker.availability)
        self.ids = UnwrittenIds(spool, worker.availability)
        self.planner = Planner(
            lambda run, rows, execution: store.plan(run, rows, worker=number, execution=execution),
            settings.connect,
            self._withdraw,
        )
        self._number = number
        self.watcher = RowWatcher(store.fetch, settings.connect)
        self.heartbeat = Heartbeat(
            lambda: store.beat(number, settings.lease),
            settings,
            registered_at=registered_at,
            time=worker.time,
            availability=worker.availability,
            on_beat=self._on_beat,
        )
        self._availability = worker.availability

    def _withdraw(self, new: NewRow, row: Row) -> None:
        """Free a row whose first attempt began, and whose caller has left."""
        if new.has_begun(row, self._number):
            self.committer.add(row.id, Withdrawn(attempt=row.attempt), is_noted=True)

    def _on_beat(self) -> None:
        self.committer.restore_reserve()
        if self.committer.is_idle:
            self._availability.recovered(Part.STEPS)  # no step is left that could show it


class Worker:
    """One incarnation of a session at a store. Its UUID is made at `start`.

    Args:
        store: The store, which is not open yet. The worker opens and closes it.
        settings: The lease, the time limits and the folder of the spool.
        time: Seconds that also count while this process is stopped.

    Attributes:
        store: The store.
        settings: The settings.
        number: The number of the worker. Known after `start`.
        account: The number of the account that pays. Known after `start`.
        availability: The failures of the store.
        on_failure: Called with the error when the store can no longer be used.
        on_recovery: Called when it can be used again.
    """

    def __init__(self, store: Store, settings: StoreSettings, *, time: Callable[[], float] = boot_time) -> None:
        self.store = store
        self.settings = settings
        self.time = time
        self.number = 0
        self.account = 0
        self.availability = Availability(store.name)
        self.on_failure = self.availability.on_failure
        self.on_recovery = self.availability.on_recovery
        self._step_timeout = SharedTimeout(settings.step)
        self._process = os.getpid()
        self._begun_at = 0.0
        self._runs: dict[str, Run] = {}
        self._opening = asyncio.Lock()
        self._parts: _Parts | None = None
        self._spool: Spool | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def failure(self) -> StoreError | None:
        """Why the store cannot be used now; None if it can. After a full disk, there must be space again."""
        return self.availability.failure

    @property
    def lost(self) -> int:
        """The number of noted steps that came too late: another worker or attempt has the row."""
        return self._parts.committer.lost if self._parts else 0

    @property
    def unwritten_task_ids(self) -> list[str]:
        """The IDs of paid tasks, or their references, that neither the store nor the spool could take yet."""
        return self._parts.ids.task_ids if self._parts else []

    async def start(self, *, gateway: str, base_url: str, api_key: str, account: str | None) -> None:
        """Open the store, register the worker and its account, and adopt the spools of dead workers on this host.

        Args:
            gateway: The name of the gateway's dialect.
            base_url: The base URL, without a query.
            api_key: The API key. The store gets no more than a keyed hash of it.
            account: The name of the account; None makes one from the key.

        Raises:
            StoreUnusable: The store cannot be used.
            StoreUnavailable: It cannot be reached.
            SessionClosed: The worker was started before.
        """
        if self._spool or self._closing:
            raise SessionClosed("the worker was started before; create a new one")
        self._process = os.getpid()
        token = uuid.uuid4()
        try:
            await self.store.open()
            registered_at = self.time()
            self.number = await self._call(self.store.add_worker(token.bytes, self.settings.lease))
            name = account or account_name(api_key, self.store.salt)
            self.account = await self._call(
                self.store.account(Account(gateway=gateway, base=base_url, name=name)),
            )
            self._spool = Spool(Path(find_spool_folder(self.settings.spool)), self.store.identity, token.hex)
            adopted = await self._spool.open()
        except BaseException:
            await self.aclose()
            raise
        self._parts = _Parts(self, self._spool, registered_at=registered_at)
        for spooled in adopted:
            step = Accepted(
                attempt=spooled.attempt, task_id=spooled.task_id, reference=spooled.reference, at=spooled.at
            )
            item = self._parts.committer.add(spooled.row, step, is_noted=True)
            self._parts.ids.adopt(item)

    async def aclose(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 # a limit for its steps
        """Write the remaining steps, end the life of the worker, and close the store.

        It may be called more than once; cancelling it does not stop the closing. What the store does not take within
        `timeout` seconds is lost, except for IDs of paid tasks, which are spooled.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(timeout), name="kontext_async close")
        await asyncio.wait([self._closing])

    def ensure_same_process(self) -> None:
        """Refuse a worker that was started before a fork: both processes would be the same worker.

        Raises:
            SessionClosed: This process is another one.
        """
        if os.getpid() != self._process:
            raise SessionClosed("the session belongs to the process that started it; create one after the fork")

    def is_fresh(self) -> bool:
        """Return True if the last successful beat was sent at most half a lease ago."""
        return self._started().heartbeat.is_fresh()

    async def run(self, name: str, *, create: bool = True, executes: bool = False) -> Run | None:
        """Return a run by its name. Its amount spent may be old.

        Args:
            name: The name.
            create: Create the run if it does not exist; otherwise return None for an unknown name.
            executes: Begin another execution.

        Raises:
            StoreUnavailable: The store cannot be reached within `StoreSettings.step` seconds.
        """
        self._ensure_open()
        if not executes and name in self._runs:
            return self._runs[name]
        return await self._repeat(lambda: self._open_run(name, create=create, executes=executes))

    async def _open_run(self, name: str, *, create: bool, executes: bool) -> Run | None:
        """Open a run, one caller after the other: the first request of each of many callers needs it at one time."""
        async with self._opening:
            if not executes and name in self._runs:
                return self._runs[name]
            found = await self._call(self.store.open_run(name, create=create, executes=executes))
            if found:
                self._runs[name] = found
            return found

    async def plan(self, run: int, rows: Sequence[NewRow], *, execution: int | None = None) -> list[Row]:
        """Return the rows of keys, in order; create the missing ones as planned. Concurrent calls share statements.

        Args:
            run: The number of the run.
            rows: The requests; their keys must differ.
            execution: The number of the execution that reads these requests; None outside bulk runs.

        Raises:
            StoreUnavailable: The store cannot be reached within `StoreSettings.step` seconds; nothing was sent.
        """
        planner = self._started().planner
        return await self._repeat(lambda: planner.plan(run, rows, execution))

    def first_attempt(self) -> Intended:
        """Return the first attempt of a new row. No two of them begin at one time."""
        self._begun_at = max(time.time(), math.nextafter(self._begun_at, math.inf))
        return Intended(attempt=1, account=self.account, at=self._begun_at)

    async def begin(self, run: int, new: NewRow) -> Row:
        """Return the row of a key, which is created with its first attempt if it is missing.

        `NewRow.has_begun` shows whether the attempt began. If the caller leaves, it is withdrawn.

        Args:
            run: The number of the run.
            new: The request, with its first attempt.

        Raises:
            StoreUnavailable: The store cannot be reached within `StoreSettings.step` seconds; nothing was sent.
            StoreUnusable: The store cannot be used.
        """
        await self._wait_until_fresh(self.settings.step)
        try:
            with self._step_timeout:
                [row] = await self._started().planner.plan(run, [new], None)
        except TimeoutError:
            raise self._unavailable(self.settings.step, "nothing was sent") from None
        return row

    async def record(self, row: Row, step: Step, *, timeout: float | None = None) -> StepResult:  # noqa: ASYNC109
        """Write a step with the next group, and return what became of it when it is durable.

        The result has the row after the step if it was `APPLIED` or `REPEATED`, else the row as it is now. An
        `Accepted` that is durable in the spool only counts as applied.

        Args:
            row: The row as the caller knows it.
            step: The step.
            timeout: Seconds; None is `StoreSettings.step`.

        Raises:
            StoreUnavailable: The store cannot be reached. Before a create request, nothing was sent and the step is
                given up; after it, the step stays queued. Never for `Accepted`.
            StoreUnusable: The store can never be reached, before a create request.
        """
        return await self._with_row(row, step, await self.write(row, step, timeout=timeout))

    async def write(self, row: Row, step: Step, *, timeout: float | None = None) -> StepResult:  # noqa: ASYNC109
        """Write a step as `record` does. The result may have no row, above all if the step was taken."""
        limit = self.settings.step if timeout is None else timeout
        if isinstance(step, Accepted):
            return await self._write_accepted(row, step, limit)
        if isinstance(step, BEFORE_CREATE):
            return await self._write_before_create(row, step, limit)
        item = self._started().committer.add(row.id, step)
        with contextlib.suppress(TimeoutError), self._timeout(limit):
            await item.wait()
        if item.outcome is None:
            raise self._unavailable(limit, "the step stays queued, and is repeated while this process lives")
        return item.result()

    def note(self, row: Row, step: Step) -> QueuedStep:
        """Write a step with the next group, without waiting. Steps of one row keep their order.

        Returns:
            The step, whose outcome nobody needs to wait for, or to look at.

        Raises:
            SessionClosed: The worker has ended.
        """
        parts = self._started()
        item = parts.committer.add(row.id, step, is_noted=True)
        if isinstance(step, Accepted):
            parts.ids.add(item)
        return item

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109 # the steps stay queued
        """Return when all earlier steps are written.

        Raises:
            StoreUnavailable: They are not within `timeout` seconds. They stay queued.
        """
        await self._started().committer.flush(timeout)

    async def changed(self, row: Row) -> Row | None:
        """Wait until a row changes in the store, and return it; None if it is gone. There is no time limit.

        It changed if its state, attempt, owner or task differs from the given ones, or its owner is dead.

        Raises:
            SessionClosed: The worker has ended.
        """
        return await self._started().watcher.changed(row)

    def _started(self) -> _Parts:
        if self._parts is None:
            raise SessionClosed("the store was not opened, or is closed")
        return self._parts

    def _ensure_open(self) -> None:
        if self._parts is None or self._closing:
            raise SessionClosed("the store was not opened, or is closed")

    async def _call(self, call: Awaitable[T]) -> T:
        return await call_store(call, self.settings.connect)

    async def _repeat(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the store until it responds, for up to `StoreSettings.step` seconds. Each call limits itself."""
        failures, seen = 0, "it did not respond"
        try:
            with self._step_timeout:
                while True:
                    try:
                        return await call()
                    except StoreUnavailable as error:
                        failures, seen = failures + 1, str(error)
                    await asyncio.sleep(backoff(failures, BACKOFF, random.random()))  # noqa: S311 # no secret
        except TimeoutError:
            raise StoreUnavailable(
                f"the store could not be reached within {self.settings.step:g} s; nothing was sent: {seen}"
            ) from None

    async def _write_before_create(self, row: Row, step: Step, limit: float) -> StepResult:
        parts = self._started()
        if isinstance(step, Intended):
            limit -= await self._wait_until_fresh(limit)
        item = parts.committer.add(row.id, step)
        try:
            with self._timeout(limit):
                await item.wait()
        except TimeoutError:
            parts.committer.give_up(item)
            raise self._unavailable(limit, "nothing was sent") from None
        except BaseException:
            parts.committer.give_up(item)
            raise
        return item.result()

    async def _wait_until_fresh(self, limit: float) -> float:
        """Wait until this worker is certainly alive for the others, and return how many seconds that took."""
        heartbeat = self._started().heartbeat
        if heartbeat.is_fresh():
            return 0.0
        now = asyncio.get_running_loop().time
        started = now()
        if not await heartbeat.wait_until_fresh(limit):
            raise self._unavailable(limit, "the lease may have ended; nothing was sent")
        return now() - started

    async def _write_accepted(self, row: Row, step: Accepted, limit: float) -> StepResult:
        parts = self._started()
        try:
            item = parts.committer.add(row.id, step)
        except SessionClosed:  # its ID is unwritten for good
            item, limit = QueuedStep(row.id, step), 0.0
        parts.ids.add(item)
        try:
            with self._timeout(limit):
                await item.wait_until_durable()
        except TimeoutError:
            return APPLIED  # the worker keeps the ID until the store or the spool takes it
        return item.result() if item.is_written else APPLIED

    def _timeout(self, limit: float) -> SharedTimeout:
        """Return the timeout that all steps share, or one for a step with another limit."""
        return self._step_timeout if limit == self.settings.step else SharedTimeout(limit)

    async def _with_row(self, row: Row, step: Step, result: StepResult) -> StepResult:
        """Complete a result with its row."""
        if result.row is not None:
            return result
        after = self._after(row, step) if result.verdict in (Verdict.APPLIED, Verdict.REPEATED) else None
        if after is None:
            with contextlib.suppress(StoreError):
                after = (await self._call(self.store.fetch([row.id]))).get(row.id)
        return evolve(result, row=after)

    def _after(self, row: Row, step: Step) -> Row | None:
        is_legal = type(step) in TRANSITIONS[row.state]
        return advance(row, step, self.number) if is_legal else None

    def _unavailable(self, limit: float, consequence: str) -> StoreUnavailable:
        reason = f": {self.failure}" if self.failure else ""
        return StoreUnavailable(f"the store did not take a step within {limit:g} s; {consequence}{reason}")

    async def _close(self, timeout: float) -> None:  # noqa: ASYNC109 # as in `aclose`
        if parts := self._parts:
            await parts.planner.aclose()
            await parts.watcher.aclose()
            await parts.committer.aclose(timeout)
            await parts.ids.aclose()
            await parts.heartbeat.aclose()
        elif self._spool:
            await self._spool.aclose()
        if self.number:
            with contextlib.suppress(StoreError):
                await call_store(self.store.remove_worker(self.number), min(1.0, self.settings.connect))
        with contextlib.suppress(StoreError):
            await self._call(self.store.aclose())

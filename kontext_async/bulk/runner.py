"""One execution of a run: reads the requests of one input, starts an item for each, and yields their outcomes.

The work runs in one asyncio task with its own task group; the user's iterator only waits for it. The number of requests
that were read and not yet yielded is bounded. Requests that other workers of a shared run have in hand are deferred
until the input is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
from attrs import define, evolve, field, frozen

from kontext_async.bulk.deferred import DeferredRequests
from kontext_async.bulk.errors import RunStopped
from kontext_async.bulk.input import InvalidInput
from kontext_async.bulk.item import Item
from kontext_async.bulk.models import BulkOutcome, BulkProgress
from kontext_async.bulk.records import InputRequest, new_row, outcome_of
from kontext_async.bulk.states import Action
from kontext_async.engine.outcome_queue import OutcomeQueue
from kontext_async.engine.row_journal import LeaseExpired, OverLimit, RowTaken
from kontext_async.errors import ConfigurationError, GatewayOutage, KontextError, StoreError, StoreUnavailable
from kontext_async.store.rows import Selection
from kontext_async.store.steps import Orphaned, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from anyio.abc import TaskGroup

    from kontext_async.bulk.admission import Admission
    from kontext_async.bulk.deferred import Deferred
    from kontext_async.bulk.directory import RunDirectory
    from kontext_async.bulk.input import InputReader
    from kontext_async.bulk.item_runner import ItemRunner
    from kontext_async.bulk.models import RunCounts
    from kontext_async.bulk.outages import OutageWatch
    from kontext_async.bulk.states import Policy, Viewer
    from kontext_async.bulk.stop_switch import StopSwitch
    from kontext_async.session import KontextSession
    from kontext_async.store.rows import Row, Run
    from kontext_async.store.worker import Worker

__all__ = ["Runner"]

ResultT = TypeVar("ResultT")

WINDOW_PER_SLOT = 2
"""Requests per slot that are read ahead: one in flight, and one that is being saved or ready to follow."""

SMALLEST_WINDOW = 64

LOOK_AGAIN = 0.1
LOOK_AGAIN_AT_MOST = 1.0
"""Seconds between two looks at requests that other workers have in hand; the pause doubles up to the second figure."""

RECORDED = 16
"""The completed requests before a submission from which the session learns how long tasks take: enough for a schedule,
and few beside the tasks of this execution."""

LEASE_PAUSE = 0.2
"""Seconds for which a worker whose lease may have passed waits for its next beat."""

STORE_ERRORS_APART = 0.5
"""Seconds between two attempts to read a store that cannot be reached."""


@frozen(kw_only=True)
class _Chunk:
    """Requests that were read and planned together.

    Attributes:
        read: The requests and the invalid inputs, in order.
        rows: The rows of the requests, by position.
        intact: The numbers of the saved rows whose images are intact.
    """

    read: list[InputRequest | InvalidInput]
    rows: dict[int, Row]
    intact: set[int]


@define(eq=False, kw_only=True)
class Runner:
    """Executes the requests of one input.

    Attributes:
        session: The session that submits the requests.
        worker: The worker at the store.
        run: The run, with the number of this execution.
        directory: The run's directory.
        items: Executes single requests.
        admission: Admits requests to the money of the run.
        policy: The requests of earlier runs to resubmit.
        viewer: What this worker is at the store.
        counts: The figures of the run.
        switch: Stops the run.
        outages: Follows the outages of the session.
        moved: Is set whenever an item ends, when the store can be used again, and when the run stops.
    """

    session: KontextSession
    worker: Worker
    run: Run
    directory: RunDirectory
    items: ItemRunner
    admission: Admission
    policy: Policy
    viewer: Viewer
    counts: RunCounts
    switch: StopSwitch
    outages: OutageWatch
    moved: asyncio.Event
    _outcomes: OutcomeQueue[BulkOutcome] = field(init=False)
    _deferred: DeferredRequests = field(factory=DeferredRequests, init=False)
    _recorded: deque[Row] = field(factory=partial(deque, maxlen=RECORDED), init=False)
    _random: Random = field(factory=Random, init=False)
    _submitting: set[Item] = field(factory=set, init=False)
    _working: int = field(default=0, init=False)
    _all: anyio.CancelScope = field(factory=anyio.CancelScope, init=False)
    _input_error: Exception | None = field(default=None, init=False)
    _give_up: asyncio.TimerHandle | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._outcomes = OutcomeQueue(self._window)
        self.switch.on_trip.append(self._on_trip)

    async def outcomes(self, reader: InputReader) -> AsyncGenerator[BulkOutcome, None]:
        """Yield the outcomes of the input, in order of completion.

        Raises:
            Exception: The error that the input raised, after the outcomes of all requests read before it.
        """
        owner = asyncio.get_running_loop().create_task(self._own(reader), name="kontext_async bulk run")
        try:
            while (outcome := await self._outcomes.get()) is not None:
                yield outcome
        finally:
            self._all.cancel()
            while not owner.done():
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([owner])

    def progress(self) -> BulkProgress:
        """Return the current figures."""
        counts = self.counts
        return BulkProgress(
            read=counts.read,
            done=counts.done,
            skipped=counts.skipped,
            in_flight=self._working,
            failed=counts.uncertain + counts.failed.total(),
            spent=counts.spent,
        )

    def stop(self, grace: float) -> None:
        """Stop submitting and reading; tasks in flight have `grace` seconds to complete and be saved."""
        reason = RunStopped("the run was stopped before all requests were submitted; run it again to resume")
        self.switch.trip(reason, reads_on=False)
        now = asyncio.get_running_loop().time()  # a signal handler runs in no task, where anyio knows no loop
        self._all.deadline = min(self._all.deadline, now + grace)

    def _window(self) -> int:
        return max(SMALLEST_WINDOW, WINDOW_PER_SLOT * self.session.settings.limits.max_in_flight)

    def _on_trip(self) -> None:
        self.moved.set()
        self.outages.end_waits()
        for item in tuple(self._submitting):
            item.call_off()

    async def _own(self, reader: InputReader) -> None:
        self.worker.on_failure.add(self._on_store_failure)
        self.worker.on_recovery.add(self._on_store_recovery)
        ceiling = self.session._engine.on_new_ceiling  # noqa: SLF001 # the run works with the session's engine
        ceiling.add(self._outcomes.check_room)
        self.outages.start()
        error: Exception | None = None
        try:
            with self._all:
                async with anyio.create_task_group() as group:
                    await self._feed(reader, group)
        except Exception as raised:  # noqa: BLE001 # the iterator raises it
            error = raised
        finally:
            self.outages.close()
            ceiling.discard(self._outcomes.check_room)
            self.worker.on_failure.discard(self._on_store_failure)
            self.worker.on_recovery.discard(self._on_store_recovery)
            self._on_store_recovery()
            self._deferred.close()
            self._judge_end()
            self._outcomes.end(error or self._input_error or self.switch.failure)

    def _judge_end(self) -> None:
        """Correct the reason: an outage after the last submission stopped nothing, and a request left over has one."""
        remaining = self.counts.read > self.counts.ended
        if isinstance(self.switch.reason, GatewayOutage) and not remaining:
            self.switch.reason = None
        elif remaining:
            self.switch.reason = self.switch.reason or self.switch.left

    async def _feed(self, reader: InputReader, group: TaskGroup) -> None:
        try:
            try:
                await self._read(reader, group)
                if self.switch.is_reading:
                    await self._start_orphans(group)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 # the user's iterable may raise anything; the iterator raises it
                self._input_error = error
            await self._finish_deferred(group)
        except StoreError as error:
            self.switch.trip(error)

    async def _read(self, reader: InputReader, group: TaskGroup) -> None:
        """Start the requests of the input. The next chunk is read and planned while one is started."""
        loop = asyncio.get_running_loop()
        ahead = loop.create_task(self._prepare(reader), name="kontext_async bulk input")
        try:
            while self.switch.is_reading and (chunk := await ahead):
                ahead = loop.create_task(self._prepare(reader), name="kontext_async bulk input")
                await self._start_chunk(chunk, group)
        finally:
            ahead.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([ahead])
            if not ahead.cancelled():
                ahead.exception()  # the run ends for another reason

    async def _prepare(self, reader: InputReader) -> _Chunk | None:
        """Read and plan the next requests of the input; return None at its end."""
        await self._wait_for_store()
        read = await reader.next()
        if not read:
            return None
        rows = await self._plan([each for each in read if isinstance(each, InputRequest)])
        return _Chunk(read=read, rows=rows, intact=await self._intact(rows.values()))

    async def _start_chunk(self, chunk: _Chunk, group: TaskGroup) -> None:
        for each in chunk.read:
            if not self.switch.is_reading:
                return
            await self._outcomes.reserve()
            self.counts.read += 1
            if isinstance(each, InvalidInput):
                self._put(BulkOutcome(index=each.position, request=each.request, error=each.error))
            else:
                row = chunk.rows[each.position]
                await self._start_row(each, row, group, self.viewer, files_intact=row.id in chunk.intact)

    async def _plan(self, entries: list[InputRequest]) -> dict[int, Row]:
        """Return the rows of requests by their positions; plan those that are new."""
        if not entries:
            return {}
        old_keys = [entry.old_key for entry in entries if entry.old_key]
        known = await self._repeat(lambda: self.worker.store.find(self.run.id, old_keys)) if old_keys else {}
        new = [new_row(entry, key=entry.old_key if entry.old_key in known else None) for entry in entries]
        rows = await self.worker.plan(self.run.id, new, execution=self.run.execution)
        return dict(zip((entry.position for entry in entries), rows, strict=True))

    async def _intact(self, rows: Iterable[Row]) -> set[int]:
        """Return the numbers of the saved rows whose images are intact, as far as they are in this directory."""
        saved = [row for row in rows if row.state is State.SAVED]
        if not saved:
            return set()
        return await anyio.to_thread.run_sync(lambda: {row.id for row in saved if self.directory.has_images(row)})

    async def _start_row(
        self, entry: InputRequest, row: Row, group: TaskGroup, viewer: Viewer, *, files_intact: bool
    ) -> None:
        """Take the action for a row of a request. A place among the open outcomes is reserved for it."""
        action = self.policy.action(row, viewer, files_intact=files_intact)
        if action is Action.SWEEP:
            row = await self._sweep(row)
            action = self.policy.action(row, viewer, files_intact=files_intact)
        match action:
            case Action.SUBMIT:
                await self._start_submission(Item(entry=entry, row=row), group)
            case Action.FETCH:
                self._start(group, self.items.fetch, Item(entry=entry, row=row, from_earlier_run=True))
            case Action.WAIT | Action.SWEEP:
                await self._defer(entry, row)
            case Action.REFUSE:
                self._put(self._skipped(entry, row, await self._refusal(row)))
            case Action.SKIP | Action.REPORT:
                self._recorded.append(row)
                self._put(self._skipped(entry, row))

    def _learn(self) -> None:
        """Let the session learn from the requests of earlier executions how long tasks take."""
        while self._recorded:
            row = self._recorded.popleft()
            if row.seconds:
                self.session._engine.poll_loop.learn(row.model, row.images, row.seconds)  # noqa: SLF001 # see _own

    async def _start_submission(self, item: Item, group: TaskGroup) -> None:
        self._learn()
        request = item.request
        item.reservation = None if request is None else await self.admission.admit(request)
        if item.reservation is None:
            self._outcomes.release()
        else:
            self._start(group, self._submit, item)

    async def _submit(self, item: Item) -> BulkOutcome:
        """Submit an item; admit it again whenever the store does not."""
        while True:
            self._submitting.add(item)
            try:
                return await self.items.submit(item)
            except OverLimit:
                await self.admission.read_commitments()
                await self.admission.wait_for_money()
            except LeaseExpired:
                await anyio.sleep(LEASE_PAUSE)
            finally:
                self._submitting.discard(item)
            request = item.request
            item.reservation = None if request is None else await self.admission.admit(request)
            if item.reservation is None:
                raise RunStopped("the request was not submitted and is not billed")

    async def _sweep(self, row: Row) -> Row:
        """Record that the attempt of a dead worker is uncertain, and return the row as it is now."""
        result = await self.worker.record(row, Orphaned(attempt=row.attempt))
        return row if result.row is None else result.row

    async def _start_orphans(self, group: TaskGroup) -> None:
        """Resume the paid requests that are missing from this input, and that no other worker follows."""
        paid = frozenset({State.ACCEPTED, State.COMPLETED})
        selection = Selection(run=self.run.id, states=paid, execution_below=self.run.execution, unowned=True)
        last = 0
        while rows := await self._page(selection, last):
            for row in rows:
                if self.viewer.is_payer(row):
                    await self._outcomes.reserve()
                    self._start(group, self._fetch_orphan, Item(entry=None, row=row, from_earlier_run=True))
            last = rows[-1].id

    async def _fetch_orphan(self, item: Item) -> BulkOutcome:
        outcome = await self.items.fetch(item)
        self.counts.orphans += outcome.ok
        raise _Unlisted

    async def _defer(self, entry: InputRequest, row: Row) -> None:
        self._outcomes.release()
        await self._deferred.add(entry, row.id)

    async def _finish_deferred(self, group: TaskGroup) -> None:
        """Come back to the requests that other workers had in hand, until each has an outcome.

        Planned ones are submitted, even if another worker prefers them; those of dead workers are taken over.
        """
        viewer = evolve(self.viewer, takes_planned=True)
        pause = LOOK_AGAIN
        while self.switch.is_reading and (len(self._deferred) or self._working):
            waiting, self._deferred = self._deferred, DeferredRequests()
            try:
                async for batch in waiting.batches(self._random):
                    await self._start_deferred(batch, group, viewer)
            finally:
                waiting.close()
            if len(self._deferred):
                await self._pause(pause)
                pause = min(2 * pause, LOOK_AGAIN_AT_MOST)
            elif self._working:  # one of these may yet be deferred
                self.moved.clear()
                await self.moved.wait()

    async def _pause(self, seconds: float) -> None:
        """Wait for some seconds, or until the run stops."""
        with anyio.move_on_after(seconds):
            while self.switch.is_reading:
                self.moved.clear()
                await self.moved.wait()

    async def _start_deferred(self, batch: list[Deferred], group: TaskGroup, viewer: Viewer) -> None:
        await self._wait_for_store()
        found = await self._repeat(lambda: self.worker.store.fetch([number for _, number in batch]))
        intact = await self._intact(found.values())
        for entry, number in batch:
            if not self.switch.is_reading:
                return
            await self._outcomes.reserve()
            row = found.get(number)
            if row is None:
                self._put(_gone(entry))
            else:
                await self._start_row(entry, row, group, viewer, files_intact=row.id in intact)

    def _start(self, group: TaskGroup, execute: Callable[[Item], Awaitable[BulkOutcome]], item: Item) -> None:
        self._working += 1
        group.start_soon(self._work, execute, item)

    async def _work(self, execute: Callable[[Item], Awaitable[BulkOutcome]], item: Item) -> None:
        try:
            self._put(await execute(item))
        except (RunStopped, _Unlisted):
            self._outcomes.release()
        except StoreError as error:
            self.switch.trip(error)
            self._outcomes.release()
        except RowTaken:
            await self._give_way(item)
        finally:
            self._working -= 1
            self.moved.set()

    async def _give_way(self, item: Item) -> None:
        """Leave a request to the worker that has taken its row, and look at the row again later."""
        if item.entry is None:
            self._outcomes.release()
        else:
            await self._defer(item.entry, item.row)

    def _skipped(self, entry: InputRequest, row: Row, error: KontextError | None = None) -> BulkOutcome:
        return outcome_of(
            row if row.position == entry.position else evolve(row, position=entry.position),
            entry.request,
            directory=self.directory.path,
            folder=self.directory.folder,
            error=error,
            from_earlier_run=True,
            skipped=True,
        )

    async def _refusal(self, row: Row) -> ConfigurationError:
        """Return the reason why a row of another account or gateway is left alone."""
        accounts = await self._repeat(self.worker.store.accounts)
        theirs = accounts.get(row.account or 0)
        named = f"the account {theirs.name!r} at {theirs.base}" if theirs else "another account"
        return ConfigurationError(
            f"the request is paid by {named}, and this session uses another one: "
            "use a session for that gateway and account, or another run"
        )

    def _put(self, outcome: BulkOutcome) -> None:
        self.counts.add(outcome)
        self._outcomes.put(outcome)

    async def _page(self, selection: Selection, after: int) -> list[Row]:
        return await self._repeat(lambda: self.worker.store.page(selection, after=after))

    async def _repeat(self, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Call the store until it can be reached, as long as a step may be repeated.

        Raises:
            StoreError: The store cannot be used.
        """
        end = anyio.current_time() + self.session.settings.store.step
        while True:
            try:
                return await call()
            except StoreUnavailable:
                if self.switch.reason or anyio.current_time() + STORE_ERRORS_APART > end:
                    raise
                await anyio.sleep(STORE_ERRORS_APART)

    async def _wait_for_store(self) -> None:
        """Wait while the store cannot be reached: nothing is read then."""
        while self.worker.failure and self.switch.is_reading:
            self.moved.clear()
            await self.moved.wait()

    def _on_store_failure(self, error: StoreError) -> None:
        if self._give_up is None:
            seconds = self.session.settings.store.step
            self._give_up = asyncio.get_running_loop().call_later(seconds, self.switch.trip, error)

    def _on_store_recovery(self) -> None:
        if self._give_up:
            self._give_up.cancel()
            self._give_up = None
        self.moved.set()


def _gone(entry: InputRequest) -> BulkOutcome:
    error = KontextError("the request was deleted from the store during the run; run it again")
    return BulkOutcome(index=entry.position, request=entry.request, fingerprint=entry.fingerprint, error=error)


class _Unlisted(Exception):
    """The outcome of a request that is missing from the input is not yielded."""

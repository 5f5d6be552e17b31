"""Requests whose rows are in a store: the row decides whether a request is submitted, awaited, followed or returned.

All callers of one key share one flight: a task of its own, which looks into the store, submits the request where it is
this session's turn, and ends with an accepted task, or with the recorded result. After that the task is followed as
any other one. Its completion is recorded when the poll loop reports it, for every waiter.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import anyio
from attrs import evolve

from kontext_async.decisions.shares import UNBOUNDED
from kontext_async.engine.flight import Flight, FlightResult, Followed, StoreCall
from kontext_async.engine.owned_tasks import OwnedTasks
from kontext_async.engine.row_journal import LeaseExpired, RowJournal, RowTaken
from kontext_async.engine.submission import Submission
from kontext_async.engine.task_record import TaskRecord, read_reference
from kontext_async.errors import (
    InvalidRequest,
    KontextError,
    Overloaded,
    RequestRejected,
    SubmissionUncertain,
    TaskCancelled,
    TaskFailed,
    TaskNotFound,
)
from kontext_async.events import Completed as CompletedEvent, Failed as FailedEvent
from kontext_async.gateways import plain_reference
from kontext_async.models import Generation
from kontext_async.protocol import fingerprint
from kontext_async.shared_timeout import SharedTimeout
from kontext_async.store.access import Access, check_key, check_row, decide_access
from kontext_async.store.digest import request_digest
from kontext_async.store.records import (
    error_from_row,
    error_to_dict,
    generation_from_dict,
    generation_to_dict,
    new_row,
)
from kontext_async.store.rows import Selection
from kontext_async.store.steps import (
    Completed,
    Expired,
    Failed,
    Forgotten,
    Orphaned,
    Received,
    Resubmitted,
    State,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kontext_async.decisions.shares import Queueing
    from kontext_async.engine.context import Context
    from kontext_async.engine.poll_loop import PollLoop
    from kontext_async.engine.scheduler import Scheduler
    from kontext_async.engine.task_record import Result
    from kontext_async.engine.uploads import RequestImages, UploadLimiter
    from kontext_async.models import KontextRequest
    from kontext_async.store.rows import Account, NewRow, Row
    from kontext_async.store.worker import Worker

__all__ = ["StoredCalls"]

LEASE_PAUSE = 0.2
"""Seconds before a session that was stopped looks at a row again: its next beat is due by then."""

WRITE_SECONDS = 5.0
"""The longest that a completed image waits for its step to be written. It is handed out then; the step stays queued."""


RECOVERABLE = frozenset({State.INTENT, State.UNCERTAIN, State.ACCEPTED, State.COMPLETED})


class StoredCalls:
    """Submits, follows and returns requests by the rows of a store."""

    def __init__(
        self,
        worker: Worker,
        scheduler: Scheduler,
        uploads: UploadLimiter,
        poll_loop: PollLoop,
        *,
        account: Account,
        context: Context,
    ) -> None:
        self.worker = worker
        self._scheduler = scheduler
        self._uploads = uploads
        self._poll_loop = poll_loop
        self._account = account
        self._clock = context.clock
        self._patience = context.settings.timeouts.cancel
        self._tasks = OwnedTasks(context.crash)
        self._write_timeout = SharedTimeout(WRITE_SECONDS)
        self._flights: dict[tuple[str, str], Flight] = {}
        self._followed: dict[str, list[Followed]] = {}
        context.hub.subscribe(_ignore, CompletedEvent, heeds=self._heed_completed)
        context.hub.subscribe(self._on_failed, FailedEvent)

    async def submit(
        self,
        request: KontextRequest,
        call: StoreCall,
        on_flight: Callable[[Flight], object] | None = None,
        queueing: Queueing = UNBOUNDED,
    ) -> TaskRecord:
        """Return the task of a request: submitted now, accepted earlier, or completed already.

        Args:
            request: The request.
            call: What the caller says about its row.
            on_flight: Is called with the flight that the caller waits for.
            queueing: The terms on which the request waits for a slot.

        Raises:
            KontextError: As for `KontextSession.submit`.
        """
        if call.key is not None:
            check_key(call.key)
        check_key(call.run, "run")
        self.worker.ensure_same_process()
        with await self._uploads.open_images(request.input_images) as images:
            given = fingerprint(request, images.images)
            digest = request_digest(request, images.images, fingerprint=given)
            while True:
                flight = self._flight(Flight(request, digest, given, call, queueing), images)
                if flight.is_called_off:  # its callers have left; its steps end before another one begins
                    await flight.wait()
                    continue
                if on_flight:
                    on_flight(flight)
                result = await self._join(flight)
                if isinstance(result, TaskRecord):
                    return result
                if isinstance(result, Overloaded) and flight.queueing != queueing:
                    continue  # those were the terms of another caller
                if flight.call.covers(call) or not isinstance(result, SubmissionUncertain | TaskFailed | TaskNotFound):
                    raise result

    async def receive(self, task: TaskRecord, result: Result) -> None:
        """Record that a caller has the result of a task; an error that ends a wait alone is none.

        Waits until the result itself is written, for a bounded time: no result is handed out before it is on disk.
        """
        followed = task.receipt
        if not isinstance(followed, Followed) or not isinstance(result, Generation | TaskFailed | TaskNotFound):
            return
        task.receipt = None
        if followed.written and followed.written.outcome is None:
            with suppress(TimeoutError), self._write_timeout:
                await followed.written.wait()
        self._note_received(followed)

    def follow(self, row: Row, request: KontextRequest | None, *, is_private: bool = False) -> TaskRecord:
        """Return the task of an accepted or completed row, and poll it unless its result is known."""
        reference = read_reference(row.reference)
        record = TaskRecord(row.task_id or "", self._clock.time(), request=request, reference=reference)
        if row.state is State.ACCEPTED or row.result is None:  # version 1 recorded no results
            followed = self._remember(row, row.task_id or "", is_private=is_private)
            record = self._poll_loop.track(record, at_once=True)
        else:
            followed = Followed(row, is_private)
            record.result = generation_from_dict(row.result, request)
        record.receipt = followed
        return record

    async def recover(self, run: str | None) -> AsyncIterator[tuple[str, str, State, TaskRecord | None]]:
        """Yield the key, the run, the state and the task of paid work that nobody works on and nobody has received."""
        await self.worker.flush(WRITE_SECONDS)
        names = await self.worker.store.run_names()
        number = next((each for each, name in names.items() if name == run), None)
        if run is not None and number is None:
            return
        selection = Selection(
            run=number, states=RECOVERABLE, account=self.worker.account, unreceived=True, unowned=True
        )
        after = 0
        while rows := await self.worker.store.page(selection, after=after):
            after = rows[-1].id
            for row in rows:
                if found := await self._recovered(row):
                    yield found.key, names[found.run], found.state, self._task_of(found)
        for second in await self.worker.store.second_tasks(number):
            if second.received_at is None and second.account in (None, self.worker.account):
                reference = read_reference(second.reference)
                task = TaskRecord(second.task_id, self._clock.time(), reference=reference)
                yield second.key, second.run, second.state, task

    async def forget(self, before: float, run: str | None) -> int:
        """Delete the rows of a run that ended before a time, in Unix seconds, and return their number."""
        number: int | None = None
        if run is not None:
            known = await self.worker.run(run, create=False)
            if known is None:
                return 0
            number = known.id
        await self.worker.flush(WRITE_SECONDS)
        return await self.worker.store.forget(before, run=number)

    async def aclose(self) -> None:
        """Call off the flights that are left, and close the worker. The scheduler is closed already."""
        for flight in self._flights.values():
            flight.call_off()
        await self._tasks.wait()
        await self.worker.aclose()

    async def _recovered(self, row: Row) -> Row | None:
        """Return a row as it is once the intent of a dead worker is swept; None if another worker was faster."""
        if row.state is not State.INTENT:
            return row
        result = await self.worker.record(row, Orphaned(attempt=row.attempt))
        return result.row if result.row and result.row.state is State.UNCERTAIN else None

    def _task_of(self, row: Row) -> TaskRecord | None:
        return None if row.task_id is None else self.follow(row, None)

    def _flight(self, new: Flight, images: RequestImages) -> Flight:
        """Return the flight of a key, or start a new one."""
        call = new.call
        name = (call.run, call.key if call.key is not None else uuid.uuid4().hex)
        flight = self._flights.get(name)
        if flight is None:
            flight = self._flights[name] = new
            images.acquire()
            work = self._fly(flight, name, images)
            flight.task = self._tasks.start(work, partial(self._land, flight, name, images))
        elif flight.digest != new.digest:
            raise InvalidRequest("key", call.key, "this key was used for another request")
        return flight

    async def _join(self, flight: Flight) -> FlightResult:
        """Wait for a flight. When the last caller leaves, it is called off; an accepted task is still recorded."""
        flight.callers += 1
        try:
            result = await flight.wait()
        except asyncio.CancelledError:
            flight.callers -= 1
            if not flight.callers and flight.result is None:
                flight.call_off()
                with anyio.move_on_after(self._patience, shield=True):
                    await flight.wait()
            if not flight.callers and isinstance(flight.result, TaskRecord):
                self._poll_loop.abandon(flight.result, "the caller was cancelled while it submitted the request")
            raise
        return result.copy() if isinstance(result, KontextError) else result

    async def _fly(self, flight: Flight, name: tuple[str, str], images: RequestImages) -> None:
        try:
            flight.result = await self._submit_by_row(flight, name, images)
        except KontextError as error:
            flight.result = error

    def _land(self, flight: Flight, name: tuple[str, str], images: RequestImages, _: asyncio.Task[None]) -> None:
        """End a flight whose task has ended, perhaps before its first step."""
        del self._flights[name]
        images.release()
        result = flight.result or flight.cancelled_error(self._account.gateway)
        if not isinstance(result, TaskRecord):
            self._end_private(flight)
        flight.end(result)

    async def _submit_by_row(self, flight: Flight, name: tuple[str, str], images: RequestImages) -> FlightResult:
        """Do what the row says, until there is a task or an error."""
        result: FlightResult | None = None
        while result is None:
            if flight.row is None and (flight.call.key is None or self._scheduler.has_room(flight.request.model)):
                result = await self._submit(flight, await self._first_journal(flight, name), images)
            else:
                result = await self._look_at_row(flight, name, images)
        return result

    async def _look_at_row(self, flight: Flight, name: tuple[str, str], images: RequestImages) -> FlightResult | None:
        """Do what the row says now. Return None if it must be looked at again."""
        row = flight.row = flight.row or await self._plan(flight, name)
        await self._check(flight, row)
        access = decide_access(
            row,
            resent_attempt=flight.resent_attempt,
            resend_uncertain=flight.call.resend_uncertain,
            retry_failed=flight.call.retry_failed,
        )
        match access:
            case Access.SUBMIT:
                journal = RowJournal(self.worker, row, on_accepted=self._remembering(flight))
                return await self._submit(flight, journal, images)
            case Access.WAIT:
                flight.row = await self.worker.changed(row)
            case Access.SWEEP:
                flight.row = (await self.worker.record(row, Orphaned(attempt=row.attempt))).row
            case Access.RESUBMIT:
                flight.resent_attempt = row.attempt
                flight.row = (await self.worker.record(row, _resubmitted(row))).row
            case Access.FOLLOW | Access.RETURN:
                return self.follow(row, flight.request, is_private=flight.call.key is None)
            case Access.RAISE:
                plain = plain_reference(self._account.gateway, row.task_id) if row.task_id else None
                return error_from_row(row, flight.request, plain_reference=plain)
        return None

    async def _plan(self, flight: Flight, name: tuple[str, str]) -> Row:
        return (await self.worker.plan(await self._run_number(name[0]), [_new_row(flight, name)]))[0]

    async def _first_journal(self, flight: Flight, name: tuple[str, str]) -> RowJournal:
        """Return the journal of a request that can be sent at once: its row is created with its first attempt.

        Where the row exists after all, it is looked at.
        """
        run, new = await self._run_number(name[0]), _new_row(flight, name)
        return RowJournal(self.worker, None, new=new, run=run, on_accepted=self._remembering(flight))

    async def _run_number(self, name: str) -> int:
        run = await self.worker.run(name)
        if run is None:  # it is created where it does not exist
            raise KontextError("the run could not be created")
        return run.id

    async def _check(self, flight: Flight, row: Row) -> None:
        theirs = self._account
        if row.account not in (None, self.worker.account):
            theirs = (await self.worker.store.accounts())[row.account or 0]
        check_row(row, flight.digest, self._account, theirs)

    async def _submit(self, flight: Flight, journal: RowJournal, images: RequestImages) -> FlightResult | None:
        """Submit the request once. Return None if the row must be looked at again."""
        flight.submission = Submission(
            flight.request, journal, flight.fingerprint, queueing=flight.queueing, webhook=flight.call.webhook
        )
        try:
            task = await self._scheduler.submit_opened(flight.submission, images)
        except RowTaken as taken:
            flight.row, flight.submission = taken.row, None
            return None
        except LeaseExpired:
            flight.row, flight.submission = None, None
            await anyio.sleep(LEASE_PAUSE)
            return None
        except KontextError as error:
            flight.row = journal.known_row
            if flight.row and isinstance(error, RequestRejected | InvalidRequest):
                self._note_failed(flight.row, error)
            return error
        task.receipt = journal.followed
        return task

    def _remembering(self, flight: Flight) -> Callable[[Row, str], Followed]:
        """Return what a journal does once the gateway has accepted the task.

        It does not refer to the flight, which has the journal: Python's collector would have to find that cycle.
        """
        return partial(self._remember, is_private=flight.call.key is None)

    def _remember(self, row: Row, task_id: str, *, is_private: bool) -> Followed:
        """Record the result of a task in its row once there is one."""
        known = self._followed.setdefault(task_id, [])
        followed = next((each for each in known if each.row.id == row.id), None)
        if followed is None:
            followed = Followed(row, is_private)
            known.append(followed)
        return followed

    def _heed_completed(self, generation: Generation) -> bool:
        """Record the generation of a task, when the poll loop reports it; no event needs to be made for that."""
        for place, followed in enumerate(self._followed.pop(generation.task_id, ())):
            step = _completed_step(followed.row, generation)
            if place:  # the gateway gave one task to several requests: it bills one
                step = evolve(step, cost=Decimal(0))
            followed.written = self.worker.note(followed.row, step)
        return False

    def _on_failed(self, event: FailedEvent) -> None:
        """Record the failure of a task, when the poll loop reports it."""
        error = event.error
        if not isinstance(error, TaskFailed | TaskNotFound):
            return
        for followed in self._followed.pop(event.task_id or "", ()):
            if isinstance(error, TaskNotFound) and followed.row.account is None:
                continue  # version 1 does not say where the row was paid for
            followed.written = self.worker.note(followed.row, _failed_step(followed.row, error))

    def _note_failed(self, row: Row, error: KontextError) -> None:
        self.worker.note(row, Failed(attempt=row.attempt, error=error_to_dict(error), at=time.time()))

    def _note_received(self, followed: Followed) -> None:
        attempt = followed.row.attempt
        step = Forgotten(attempt=attempt) if followed.is_private else Received(attempt=attempt, at=time.time())
        self.worker.note(followed.row, step)

    def _end_private(self, flight: Flight) -> None:
        """Delete the row of a request that nobody else knows, unless it may be billed."""
        row = flight.row
        if row is not None and flight.call.key is None and row.state not in (State.INTENT, State.UNCERTAIN):
            self.worker.note(row, Forgotten(attempt=row.attempt))


def _new_row(flight: Flight, name: tuple[str, str]) -> NewRow:
    return new_row(flight.request, key=name[1], digest=flight.digest)


def _resubmitted(row: Row) -> Resubmitted:
    """Return the step that frees a row for another attempt. The earlier one may be billed, if its cost is unknown."""
    may_be_billed = row.state is State.UNCERTAIN or (row.state is State.EXPIRED and row.cost is None)
    count = row.uncertain_attempts + may_be_billed
    return Resubmitted(attempt=row.attempt, uncertain_attempts=count, reserved=row.reserved)


def _completed_step(row: Row, generation: Generation) -> Completed:
    return Completed(
        attempt=row.attempt,
        task_id=generation.task_id,
        result=generation_to_dict(generation),
        cost=generation.usage.cost,
        seconds=generation.elapsed,
        at=time.time(),
    )


def _failed_step(row: Row, error: TaskFailed | TaskNotFound) -> Failed:
    kind = Expired if isinstance(error, TaskNotFound) else Failed
    cost = error.cost if isinstance(error, TaskCancelled) else None
    return kind(attempt=row.attempt, task_id=error.task_id, error=error_to_dict(error), cost=cost, at=time.time())


def _ignore(_: CompletedEvent) -> None:
    """Do nothing: the completion was heeded before its event was made."""

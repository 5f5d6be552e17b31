"""Executes one request: submits it, or resumes a paid one, and saves its images. Each step is durable before the next.

If the store fails, tasks that are already paid for are still awaited and saved, and the run ends with the error of the
store.
"""

from __future__ import annotations

import errno
import hashlib
import time
from decimal import Decimal
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, field

from kontext_async.bulk.errors import RunStopped
from kontext_async.bulk.item import Item, ItemJournal
from kontext_async.bulk.outages import lasts
from kontext_async.bulk.records import outcome_of
from kontext_async.bulk.states import Consequence, consequence_of
from kontext_async.cancellation import Cancellation
from kontext_async.decisions.money import is_money
from kontext_async.engine.row_journal import NotSubmitted, RowTaken
from kontext_async.errors import (
    CostLimitReached,
    CostUnknown,
    DownloadFailed,
    GatewayOutage,
    GatewayUnavailable,
    KontextError,
    Overloaded,
    SessionError,
    StoreError,
    SubmissionUncertain,
    TaskCancelled,
    TaskFailed,
    TaskTimeout,
)
from kontext_async.store.records import error_to_dict, generation_to_dict
from kontext_async.store.states import advance
from kontext_async.store.steps import Adopted, Completed, Expired, Failed, FilesLost, Resubmitted, Saved, State, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.bulk.directory import RunDirectory
    from kontext_async.bulk.filenames import FilenameAllocator
    from kontext_async.bulk.input import DuplicateCounter
    from kontext_async.bulk.models import BulkOutcome, RunCounts
    from kontext_async.bulk.outages import OutageWatch
    from kontext_async.bulk.stop_switch import StopSwitch
    from kontext_async.decisions.budget import Budget
    from kontext_async.models import Generation
    from kontext_async.session import GenerationTask, KontextSession, Share
    from kontext_async.store.rows import Row
    from kontext_async.store.steps import Step
    from kontext_async.store.worker import Worker

__all__ = ["ItemRunner"]

DOWNLOADS_AT_ONCE = 32
NOTHING = Decimal(0)

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ELOOP})
"""The errors of a disk on which no other image can be saved either."""


STOPPING = (SessionError, Overloaded, CostLimitReached, CostUnknown)
"""Errors after which the session submits nothing more. `Overloaded` says here that it drains."""


@define(eq=False, kw_only=True)
class ItemRunner:
    """Executes single requests of a run.

    Attributes:
        session: The session, which follows the tasks and saves the images.
        share: The share of the session that submits the requests.
        worker: Records each step.
        directory: The directory of the images and of the results.
        filenames: Allocates the paths of the images.
        budget: Accounts for the money.
        limit: USD that the workers of the run may spend together; None if there is no limit, or no other worker.
        counts: The figures of this run.
        switch: Stops the run.
        outages: Follows the outages of the session.
        billed: Counts the task IDs that were billed.
    """

    session: KontextSession
    share: Share
    worker: Worker
    directory: RunDirectory
    filenames: FilenameAllocator
    budget: Budget
    limit: Decimal | None
    counts: RunCounts
    switch: StopSwitch
    outages: OutageWatch
    billed: DuplicateCounter
    _downloads: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(DOWNLOADS_AT_ONCE), init=False)

    async def submit(self, item: Item) -> BulkOutcome:
        """Submit a request that the budget has admitted, wait for its task, and save its images.

        Raises:
            RunStopped: The request was not submitted, or is left to the next run.
            NotSubmitted: The store does not let this worker submit the request now.
        """
        try:
            await self._resubmit(item)
            task = await self._submit(item)
        except NotSubmitted:
            item.release()
            raise
        except Exception as error:  # noqa: BLE001 # one request must not end the run
            return await self._fail(item, to_tree(error, item.row))
        if task is None:  # the run stops
            item.release()
            raise RunStopped("the request was not submitted and is not billed")
        return await self._follow(item, task)

    async def fetch(self, item: Item) -> BulkOutcome:
        """Resume a task that was paid for earlier, and save its images.

        Raises:
            RunStopped: The request is left to the next run.
            RowTaken: Another worker has changed the row.
        """
        await self._adopt(item)
        if item.row.state is State.ACCEPTED:
            item.reservation = self.budget.resume(item.row.kind)
        elif item.row.state is State.SAVED:
            await self._record(item, FilesLost(attempt=item.row.attempt))
        try:
            task = self.session.attach(_refer(item.row))
        except Exception as error:  # noqa: BLE001 # as in `submit`
            return await self._fail(item, to_tree(error, item.row))
        return await self._follow(item, task)

    async def _adopt(self, item: Item) -> None:
        """Take over the task of a dead worker, so that one worker alone polls it and saves its images."""
        row = item.row
        if row.state not in (State.ACCEPTED, State.COMPLETED) or row.owner == self.worker.number:
            return
        if row.account is not None:  # that of a row of version 1 is known once its task is found
            await self._record(item, Adopted(attempt=row.attempt, account=self.worker.account))

    async def _resubmit(self, item: Item) -> None:
        """Plan an uncertain, failed or expired request again."""
        row = item.row
        if row.state is not State.PLANNED:
            is_uncertain = row.state is State.UNCERTAIN or (row.state is State.EXPIRED and row.cost is None)
            uncertain = row.uncertain_attempts + is_uncertain
            reserved = self._price(row, uncertain)
            await self._record(item, Resubmitted(attempt=row.attempt, uncertain_attempts=uncertain, reserved=reserved))
        item.uncertain_attempts = item.row.uncertain_attempts

    async def _submit(self, item: Item) -> GenerationTask | None:
        """Submit a request; return None if the run has stopped before the gateway accepted it."""
        task: GenerationTask | None = None
        journal = item.journal = ItemJournal(
            worker=self.worker,
            row=item.row,
            fingerprint=item.entry.sent_fingerprint if item.entry else None,
            on_intent=partial(self._on_intent, item),
            switch=self.switch,
            scope=anyio.CancelScope(),
        )
        try:
            with journal.scope:
                task = await self._submit_through_outages(item, journal)
        finally:
            item.row, item.journal = journal.row, None
        if task is None and item.row.task_id is not None:
            return self.session.attach(_refer(item.row))
        return task

    async def _submit_through_outages(self, item: Item, journal: ItemJournal) -> GenerationTask:
        assert item.request is not None  # noqa: S101 # only requests of the input are submitted
        while True:
            try:
                return await self.share.submit(item.request, journal=journal)
            except GatewayOutage:
                self.switch.check()
                if not await self.outages.wait():
                    raise

    def _on_intent(self, item: Item) -> tuple[Decimal | None, Decimal | None]:
        """Return the amount to reserve for a row in the store, and the limit of all workers."""
        self.switch.check()
        uncertain = item.journal.row.uncertain_attempts if item.journal else 0
        self.budget.unpriced[item.row.kind] += max(uncertain - item.uncertain_attempts, 0)
        item.uncertain_attempts = uncertain
        amount = item.reservation.amount if item.reservation else None
        return (None if amount is None else amount * (1 + uncertain)), self.limit

    async def _follow(self, item: Item, task: GenerationTask) -> BulkOutcome:
        """Wait for a paid task, and save its images."""
        while True:
            openings = self.outages.openings
            try:
                await self._wait_and_save(item, task)
                return self._outcome(item)
            except RowTaken:
                item.release()
                raise
            except Exception as cause:  # noqa: BLE001 # as in `submit`
                error = to_tree(cause, item.row)
                if error.task_id is not None:
                    error.with_task(task.id, str(task.reference))
            if not await self._can_repeat(error, openings):
                return await self._fail(item, error, task)
            task = self.session.attach(task.reference)

    async def _wait_and_save(self, item: Item, task: GenerationTask) -> None:
        generation = await _wait(task)
        path, is_billed = await anyio.to_thread.run_sync(self._prepare, item.row, task.id)
        try:
            if item.row.state is not State.COMPLETED or item.row.task_id != task.id:
                await self._complete(item, generation, path, cost=_cost_of(generation, is_billed=is_billed))
            async with self._downloads:
                await self._save(item, generation, path)
        finally:
            self.filenames.release(path)

    def _prepare(self, row: Row, task_id: str) -> tuple[Path, bool]:
        """Return a path for the image of a task, and True if another request was given the same task. Blocks."""
        path = self.filenames.allocate(row)
        (earlier,) = self.billed.count([hashlib.sha256(task_id.encode(errors="surrogatepass")).digest()])
        return path, earlier > 0

    async def _complete(self, item: Item, generation: Generation, path: Path, *, cost: Decimal | None) -> None:
        """Record the result of a task, its cost, and the name that its image will have."""
        row, task_id = item.row, generation.task_id
        self.budget.record_currency(generation.usage.currency)
        self._settle(item, cost)
        await self._record_end(
            item,
            Completed(
                attempt=row.attempt,
                task_id=task_id,
                result=generation_to_dict(generation),
                cost=cost,
                seconds=None if item.from_earlier_run else generation.elapsed,
                at=time.time(),
                reserved=self._price(row, row.uncertain_attempts),
                folder=self.directory.folder,
                files=((self._relative(path), 0),),
            ),
        )

    async def _save(self, item: Item, generation: Generation, path: Path) -> None:
        """Download the images, and record them."""
        paths = await self.session.save(generation, path, durable=True)
        files = await anyio.to_thread.run_sync(self._sizes, paths)
        again = item.row.completion is not None
        step = Saved(
            attempt=item.row.attempt,
            folder=self.directory.folder,
            files=files,
            completion=self.directory.next_completion(),
            at=time.time(),
        )
        try:
            await self._record(item, step)
        except RowTaken:  # another worker saved the images of a dead one's task, too, and came first
            await anyio.to_thread.run_sync(_remove, paths)
            raise
        self.directory.results.add(item.row, again=again)

    async def _fail(self, item: Item, error: KontextError, task: GenerationTask | None = None) -> BulkOutcome:
        """Record an error, as far as it is one of the request."""
        cost = None if task is None else _cost_of_failed(task, error)
        self._end_reservation(item, error, cost)
        if isinstance(error, StoreError):
            self.switch.trip(error)
        if isinstance(error, RunStopped | StoreError) and item.row.task_id is None:
            raise RunStopped(str(error)) from error
        consequence = consequence_of(error, item.row)
        self._stop_if_hopeless(error)
        if consequence is Consequence.OPEN:
            self.switch.left = error
            raise RunStopped(str(error)) from error
        if consequence in (Consequence.FAILED, Consequence.EXPIRED):
            kind = Failed if consequence is Consequence.FAILED else Expired
            await self._end(item, kind, error, cost, task.id if task else item.row.task_id)
        return self._outcome(item, error)

    async def _end(
        self, item: Item, kind: type[Failed], error: KontextError, cost: Decimal | None, task_id: str | None
    ) -> None:
        """Record that a request failed for good."""
        row = item.row
        again = row.completion is not None
        cost = cost if row.cost is None else row.cost
        uncertain = row.uncertain_attempts + (kind is Expired and cost is None)
        await self._record_end(
            item,
            kind(
                attempt=row.attempt,
                task_id=task_id,
                error=error_to_dict(error),
                cost=cost,
                at=time.time(),
                reserved=self._price(row, uncertain),
                folder=self.directory.folder,
                completion=self.directory.next_completion(),
            ),
        )
        self.directory.results.add(item.row, again=again)

    async def _record_end(self, item: Item, step: Completed | Failed) -> None:
        """Record the end of a task, as `_record` does.

        Raises:
            RowTaken: It is a second task of the row, which another worker has in hand, or as `_record`.
        """
        await self._record(item, step)
        if step.task_id is not None and item.row.task_id != step.task_id:
            raise RowTaken(item.row)

    async def _record(self, item: Item, step: Step) -> None:
        """Record a step. If the store fails, submitting stops, and this task continues.

        Raises:
            RowTaken: Another worker has the row, and the step changed nothing.
        """
        try:
            result = await self.worker.record(item.row, step, timeout=self.session.settings.store.step)
        except StoreError as error:
            self.switch.trip(error)
            item.row = advance(item.row, step, self.worker.number)
            return
        if result.verdict is Verdict.LOST:
            raise RowTaken(result.row)
        item.row = item.row if result.row is None else result.row

    def _settle(self, item: Item, cost: Decimal | None) -> None:
        if item.reservation and item.reservation.is_open:
            item.reservation.settle(cost)
        if not item.from_earlier_run:
            self.counts.spent += cost or 0

    def _end_reservation(self, item: Item, error: KontextError, cost: Decimal | None) -> None:
        """Account for a request that ended with an error."""
        if item.reservation is None or not item.reservation.is_open:
            return
        is_paid = item.row.task_id is not None
        if cost is not None:
            item.reservation.settle(cost)
            self.counts.spent += cost
        elif isinstance(error, SubmissionUncertain | TaskCancelled) or (is_paid and not isinstance(error, TaskFailed)):
            item.reservation.leave_uncertain()
        else:
            item.reservation.release()

    async def _can_repeat(self, error: KontextError, openings: int) -> bool:
        """Return True if an outage is to blame for an error of a paid task, and it is over now."""
        in_outage = self.outages.is_open or self.outages.openings != openings
        passing = isinstance(error, GatewayUnavailable | DownloadFailed) and error.retryable and not _is_on_disk(error)
        if not in_outage or not passing or self.switch.reason:
            return False
        try:
            return await self.outages.wait()
        except KontextError:  # the session has ended
            return False

    def _stop_if_hopeless(self, error: KontextError) -> None:
        """Stop submitting after a refused key, an empty balance or a full disk: more requests would fail too."""
        if _is_on_disk(error) or lasts(error) or isinstance(error, STOPPING):
            self.switch.trip(error)

    def _price(self, row: Row, count: int) -> Decimal | None:
        """Return what a number of tasks of a row's kind may cost; None for none, or if the price is unknown."""
        price = self.budget.prices.get(row.kind)
        return None if price is None or not count else price * count

    def _relative(self, path: Path) -> str:
        return str(PurePosixPath(*path.relative_to(self.directory.path).parts))

    def _sizes(self, paths: list[Path]) -> tuple[tuple[str, int], ...]:
        return tuple((self._relative(path), path.stat().st_size) for path in paths)

    def _outcome(self, item: Item, error: KontextError | None = None) -> BulkOutcome:
        return outcome_of(
            item.row,
            item.request,
            directory=self.directory.path,
            folder=self.directory.folder,
            error=error,
            from_earlier_run=item.from_earlier_run,
        )


def to_tree(error: Exception, row: Row) -> KontextError:
    """Return an error of the tree for any error: what nobody foresaw fails one request, and not the run."""
    if isinstance(error, KontextError):
        return error
    seen = f"unexpected {type(error).__name__}"  # not its text, which nobody redacted
    made: KontextError
    if row.task_id is not None:
        reason = f"{seen}: {error.strerror}" if isinstance(error, OSError) else seen
        made = DownloadFailed(url="", reason=reason, task_id=row.task_id)
    elif row.state in (State.INTENT, State.UNCERTAIN):
        made = SubmissionUncertain(request=None, fingerprint=row.digest.hex(), seen=seen)
    else:
        made = KontextError(f"the request was not submitted: {seen}")
    made.__cause__ = error
    return made


def _refer(row: Row) -> str:
    return row.reference or row.task_id or ""


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _is_on_disk(error: KontextError) -> bool:
    """Return True if an image could not be written, and the next one cannot be written either."""
    cause = error.__cause__
    if not isinstance(error, DownloadFailed) or not isinstance(cause, OSError):
        return False
    return isinstance(cause, PermissionError | FileNotFoundError | NotADirectoryError) or cause.errno in DISK_ERRORS


def _cost_of(generation: Generation, *, is_billed: bool) -> Decimal | None:
    """Return the cost of a task; 0 if another request of this run was given the same task: it is billed once."""
    cost = generation.usage.cost
    if is_billed:
        return NOTHING
    return cost if cost is not None and is_money(cost) else None


async def _wait(task: GenerationTask) -> Generation:
    """Wait for a task. One that was cancelled because it took too long has failed, and is not left open."""
    try:
        return await task.wait()
    except TaskTimeout as timeout:
        if timeout.cancelled is None or timeout.cancelled.cancellation is not Cancellation.IN_TIME:
            raise
    return await task.wait()


def _cost_of_failed(task: GenerationTask, error: KontextError) -> Decimal | None:
    """Return the cost of a failed task; None if the gateway did not report one."""
    usage = task.last_status.usage if isinstance(error, TaskFailed) and task.last_status else None
    return usage.cost if usage and usage.cost is not None and is_money(usage.cost) else None

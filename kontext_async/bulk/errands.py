"""Executes one request: submits it, or resumes a paid one. Each step is durable before the next one.

If the journal fails, tasks that are already paid for are still awaited and saved, and the run ends with the journal's
error.
"""

from __future__ import annotations

import errno
import json
import time
from decimal import Decimal
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from attrs import define, field

from kontext_async.bulk.budget import is_money
from kontext_async.bulk.errors import JournalFailed, RunStopped
from kontext_async.bulk.outages import lasts
from kontext_async.bulk.outcomes import BulkOutcome
from kontext_async.bulk.records import error_to_dict
from kontext_async.bulk.states import State, is_open_after, state_after
from kontext_async.bulk.submission import RowJournal
from kontext_async.errors import (
    DownloadFailed,
    GatewayOutage,
    GatewayUnavailable,
    KontextError,
    SessionError,
    SubmissionUncertain,
    TaskFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kontext_async.bulk.budget import Budget
    from kontext_async.bulk.entries import JournalRow
    from kontext_async.bulk.journal import Journal
    from kontext_async.bulk.outages import OutageWatch
    from kontext_async.bulk.outcomes import RunCounts
    from kontext_async.bulk.results import Results
    from kontext_async.bulk.targets import Targets
    from kontext_async.events import Downloaded
    from kontext_async.models import Generation, KontextRequest
    from kontext_async.session import GenerationTask, KontextSession

__all__ = ["Errands"]

DOWNLOADS_AT_ONCE = 32

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ELOOP})
"""The errors of a disk on which no other image can be saved either."""


@define(eq=False, kw_only=True)
class Errands:
    """Executes single requests of a run.

    Attributes:
        session: The session that submits the requests.
        directory: The directory of the images.
        journal: Records each step.
        results: Receives each final result.
        budget: Accounts for the money.
        tally: The figures of this run.
        targets: Chooses the paths of the images.
        halt: Is called with an error after which nothing more may be submitted.
        refusal: Returns the reason why nothing more is submitted; None while requests are submitted.
        left_open: Is called with an error that leaves a request to the next run.
        outages: Follows the outages of the session.
        unjournaled_task_ids: IDs of paid tasks that the journal could not record.
    """

    session: KontextSession
    directory: Path
    journal: Journal
    results: Results
    budget: Budget
    tally: RunCounts
    targets: Targets
    halt: Callable[[KontextError], object]
    refusal: Callable[[], KontextError | None]
    left_open: Callable[[KontextError], object]
    outages: OutageWatch
    unjournaled_task_ids: list[str] = field(factory=list)
    _downloads: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(DOWNLOADS_AT_ONCE))
    _sizes: dict[Path, int] = field(factory=dict)
    _billed: set[int] = field(factory=set)

    def record_size(self, event: Downloaded) -> None:
        """Record the size of a saved image. Subscribe it to the session's `Downloaded` events."""
        if event.path and event.path.is_relative_to(self.directory):
            self._sizes[event.path] = event.size

    def check_submitting(self) -> None:
        """Check that requests may still be submitted.

        Raises:
            RunStopped: They may not.
        """
        if reason := self.refusal():
            raise RunStopped(f"the request was not submitted and is not billed: {reason}")

    async def submit(self, request: KontextRequest, row: JournalRow, scope: anyio.CancelScope) -> BulkOutcome:
        """Submit a request, and save its images. The budget has already admitted it.

        Args:
            request: The request.
            row: The row of the request.
            scope: The scope that is cancelled if the request must not be submitted; it has no effect once the request
                is being sent.

        Raises:
            RunStopped: The request was not submitted.
        """
        self._write_off(row)
        task: GenerationTask | None = None
        try:
            with scope:
                task = await self._submit_through_outages(request, RowJournal(self, row, scope))
        except Exception as error:  # noqa: BLE001 # one request must not end the run
            return await self._failed(request, row, in_tree(error, row))
        if task is None and row.task_id is None:  # the scope was cancelled
            self.budget.unpaid(row.kind)
            raise RunStopped("the request was not submitted and is not billed")
        return await self._finish(request, row, task or self.session.attach(row.task_id or ""))

    async def _submit_through_outages(self, request: KontextRequest, hook: RowJournal) -> GenerationTask:
        while True:
            try:
                return await self.session.submit(request, journal=hook)
            except GatewayOutage:
                self.check_submitting()
                if not await self.outages.wait():
                    raise

    async def fetch(self, request: KontextRequest | None, row: JournalRow) -> BulkOutcome:
        """Resume a request that an earlier run paid for, and save its images."""
        if row.state is State.ACCEPTED:
            self.budget.take_up(row.kind)
        elif row.state is State.SAVED:  # its file is missing or damaged
            row.state = State.COMPLETED
            self.journal.note(row.id, state=row.state)
        try:
            task = self.session.attach(row.task_id or "")
        except Exception as error:  # noqa: BLE001 # as in `submit`
            return await self._failed(request, row, in_tree(error, row), earlier=True)
        return await self._finish(request, row, task, earlier=True)

    async def step(self, row: JournalRow, **changes: Any) -> None:
        """Record a step of a paid task. If the journal fails, submitting stops, and this task continues."""
        try:
            await self.journal.commit(row.id, **changes)
        except JournalFailed as error:
            if row.task_id and "task_id" in changes:
                self.unjournaled_task_ids.append(row.task_id)
            self.halt(error)

    async def _finish(
        self, request: KontextRequest | None, row: JournalRow, task: GenerationTask, *, earlier: bool = False
    ) -> BulkOutcome:
        while True:
            openings = self.outages.openings
            try:
                await self._wait_and_save(row, task, earlier=earlier)
                return self._outcome(request, row, earlier=earlier)
            except Exception as cause:  # noqa: BLE001 # as in `submit`
                error = in_tree(cause, row)
            if not await self._can_repeat(error, openings):
                return await self._failed(request, row, error, earlier=earlier, cost=_cost_of_failed(task, error))
            task = self.session.attach(row.task_id or "")

    async def _wait_and_save(self, row: JournalRow, task: GenerationTask, *, earlier: bool) -> None:
        generation = await task.wait()
        target = await anyio.to_thread.run_sync(self.targets.reserve, row)
        try:
            await self._has_result(row, generation, target, earlier=earlier)
            async with self._downloads:
                await self._save(row, generation, target)
        finally:
            self.targets.release(target)

    async def _can_repeat(self, error: KontextError, openings: int) -> bool:
        """Return True if an outage is to blame for an error of a paid task, and it is over now."""
        in_outage = self.outages.is_open or self.outages.openings != openings
        passing = isinstance(error, GatewayUnavailable | DownloadFailed) and error.retryable and not _is_on_disk(error)
        if not in_outage or not passing or self.refusal():
            return False
        try:
            return await self.outages.wait()
        except KontextError:  # the session has ended
            return False

    async def _has_result(self, row: JournalRow, generation: Generation, target: Path, *, earlier: bool) -> None:
        """Record the result and the path of a completed task, unless an earlier run did. The known cost stays."""
        if row.state is not State.ACCEPTED:
            return
        row.state = State.COMPLETED
        row.cost = self._cost_of(generation)
        self.budget.learn_currency(generation.usage.currency)
        row.seconds = None if earlier else generation.elapsed
        self.budget.paid(row.kind, row.cost)
        if not earlier:
            self.tally.spent += row.cost or 0
        row.files = ((self._relative(target), 0),)
        images = [{"url": image.url, "type": image.type, "job_id": image.job_id} for image in generation.images]
        cost = None if row.cost is None else str(row.cost)
        await self.step(
            row, state=row.state, cost=cost, seconds=row.seconds, result=json.dumps(images), files=json.dumps(row.files)
        )

    def _cost_of(self, generation: Generation) -> Decimal | None:
        """Return the cost of a task; 0 if another request of this run was given the same task: it is billed once."""
        cost = generation.usage.cost
        key = hash(generation.task_id)
        if key in self._billed:
            return Decimal(0)
        self._billed.add(key)
        return cost if cost is not None and is_money(cost) else None

    async def _save(self, row: JournalRow, generation: Generation, target: Path) -> None:
        again = row.completion is not None
        paths = await self.session.save(generation, target, durable=True)
        row.state = State.SAVED
        row.files = tuple((self._relative(path), self._sizes.pop(path)) for path in paths)
        row.error = None
        await self._complete(row, again=again, files=json.dumps(row.files))

    def _relative(self, path: Path) -> str:
        return str(PurePosixPath(*path.relative_to(self.directory).parts))

    async def _failed(
        self,
        request: KontextRequest | None,
        row: JournalRow,
        error: KontextError,
        *,
        earlier: bool = False,
        cost: Decimal | None = None,
    ) -> BulkOutcome:
        self._account_for(row, error, cost)
        if isinstance(error, RunStopped | JournalFailed) and row.task_id is None:
            raise error if isinstance(error, RunStopped) else RunStopped(str(error))
        if is_open_after(error):
            self.journal.note(row.id, error=json.dumps(error_to_dict(error)))
            self._halt_if_hopeless(error)
            self.left_open(error)
            raise RunStopped(str(error)) from error
        row.state = state_after(error, row.state)
        row.error = error_to_dict(error)
        known = json.dumps(row.error)
        if row.state in (State.FAILED, State.EXPIRED):
            row.cost = cost if row.cost is None else row.cost
            spent = None if row.cost is None else str(row.cost)
            await self._complete(row, again=row.completion is not None, error=known, cost=spent)
        else:
            await self.step(row, state=row.state, error=known)
        self._halt_if_hopeless(error)
        return self._outcome(request, row, error=error, earlier=earlier)

    def _account_for(self, row: JournalRow, error: KontextError, cost: Decimal | None) -> None:
        if row.state is State.INTENT and isinstance(error, SubmissionUncertain):
            self.budget.uncertain(row.kind)
        elif row.state in (State.PLANNED, State.INTENT) or (
            row.state is State.ACCEPTED and isinstance(error, TaskFailed) and cost is None
        ):
            self.budget.unpaid(row.kind)
        elif row.state is State.ACCEPTED and cost is not None:
            self.budget.paid(row.kind, cost)
            self.tally.spent += cost
        elif row.state is State.ACCEPTED:
            self.budget.uncertain(row.kind)

    async def _complete(self, row: JournalRow, *, again: bool, **changes: Any) -> None:
        row.completed_at = time.time()
        row.completion = self.journal.next_completion()
        changes.setdefault("error", None)
        await self.step(row, state=row.state, completed_at=row.completed_at, completion=row.completion, **changes)
        self.results.add(row, again=again)

    def _write_off(self, row: JournalRow) -> None:
        """Keep the cost of the earlier task of this request as spent, and reset the row for the next task."""
        if row.task_id is None:
            return
        row.sunk += row.cost or 0
        row.doubtful += row.cost is None and row.state is State.EXPIRED
        row.task_id = row.cost = row.seconds = row.accepted_at = None
        row.files = ()
        row.state = State.PLANNED
        cleared = dict.fromkeys(("task_id", "cost", "seconds", "accepted_at", "result", "files"))
        self.journal.note(row.id, state=row.state, sunk=str(row.sunk), doubtful=row.doubtful, **cleared)

    def _halt_if_hopeless(self, error: KontextError) -> None:
        """Stop submitting after a refused key, an empty balance or a full disk: more requests would fail too."""
        if _is_on_disk(error) or lasts(error) or isinstance(error, SessionError):
            self.halt(error)

    def _outcome(
        self,
        request: KontextRequest | None,
        row: JournalRow,
        *,
        error: KontextError | None = None,
        earlier: bool = False,
    ) -> BulkOutcome:
        return BulkOutcome(
            index=row.position,
            request=request,
            fingerprint=row.fingerprint,
            task_id=row.task_id,
            files=tuple(self.directory / name for name, _ in row.files) if row.state is State.SAVED else (),
            cost=row.cost,
            seconds=row.seconds,
            error=error,
            from_earlier_run=earlier,
        )


def in_tree(error: Exception, row: JournalRow) -> KontextError:
    """Return an error of the tree for any error: what nobody foresaw fails one request, and not the run."""
    if isinstance(error, KontextError):
        return error
    seen = f"unexpected {type(error).__name__}"  # not its text, which nobody redacted
    made: KontextError
    if row.task_id is not None:
        reason = f"{seen}: {error.strerror}" if isinstance(error, OSError) else seen
        made = DownloadFailed(url="", reason=reason, task_id=row.task_id)
    elif row.state is State.INTENT:
        made = SubmissionUncertain(request=None, fingerprint=row.fingerprint, seen=seen)
    else:
        made = KontextError(f"the request was not submitted: {seen}")
    made.__cause__ = error
    return made


def _is_on_disk(error: KontextError) -> bool:
    """Return True if an image could not be written, and the next one cannot be written either."""
    cause = error.__cause__
    if not isinstance(error, DownloadFailed) or not isinstance(cause, OSError):
        return False
    return isinstance(cause, PermissionError | FileNotFoundError | NotADirectoryError) or cause.errno in DISK_ERRORS


def _cost_of_failed(task: GenerationTask, error: KontextError) -> Decimal | None:
    """Return the cost of a failed task; None if the gateway did not report one."""
    usage = task.last_status.usage if isinstance(error, TaskFailed) and task.last_status else None
    return usage.cost if usage and usage.cost is not None and is_money(usage.cost) else None

"""Executes one request: submits it, or resumes a paid one. Each step is durable before the next one.

If the journal fails, tasks that are already paid for are still awaited and saved, and the run ends with the journal's
error.
"""

from __future__ import annotations

import json
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from attrs import define, field

from kontext_async.bulk.errors import JournalFailed, RunStopped
from kontext_async.bulk.outcomes import BulkOutcome
from kontext_async.bulk.records import error_to_dict
from kontext_async.bulk.states import State, state_after
from kontext_async.bulk.submission import RowJournal
from kontext_async.errors import (
    AuthenticationFailed,
    DownloadFailed,
    KontextError,
    PermissionDenied,
    SessionClosed,
    SubmissionUncertain,
    TaskFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal
    from pathlib import Path

    from kontext_async.bulk.budget import Budget
    from kontext_async.bulk.entries import JournalRow
    from kontext_async.bulk.journal import Journal
    from kontext_async.bulk.outcomes import RunCounts
    from kontext_async.bulk.results import Results
    from kontext_async.bulk.targets import Targets
    from kontext_async.events import Downloaded
    from kontext_async.models import Generation, KontextRequest
    from kontext_async.session import GenerationTask, KontextSession

__all__ = ["Errands"]

DOWNLOADS_AT_ONCE = 32


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
    unjournaled_task_ids: list[str] = field(factory=list)
    _downloads: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(DOWNLOADS_AT_ONCE))
    _sizes: dict[str, dict[Path, int]] = field(factory=dict)

    def record_size(self, event: Downloaded) -> None:
        """Record the size of a saved image. Subscribe it to the session's `Downloaded` events."""
        if event.path and event.task_id in self._sizes:
            self._sizes[event.task_id][event.path] = event.size

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
        hook = RowJournal(self, row)
        task: GenerationTask | None = None
        try:
            with scope:
                task = await self.session.submit(request, journal=hook)
        except KontextError as error:
            return await self._failed(request, row, error)
        if task is None and row.task_id is None:  # the scope was cancelled
            self.budget.unpaid(row.kind)
            raise RunStopped("the request was not submitted and is not billed")
        return await self._finish(request, row, task or self.session.attach(row.task_id or ""))

    async def fetch(self, request: KontextRequest | None, row: JournalRow) -> BulkOutcome:
        """Resume a request that an earlier run paid for, and save its images."""
        if row.state is State.ACCEPTED:
            self.budget.take_up(row.kind)
        elif row.state is State.SAVED:  # its file is missing or damaged
            row.state = State.COMPLETED
        try:
            task = self.session.attach(row.task_id or "")
        except KontextError as error:
            return await self._failed(request, row, error, earlier=True)
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
        try:
            generation = await task.wait()
            target = await anyio.to_thread.run_sync(self.targets.reserve, row)
            try:
                await self._has_result(row, generation, target, earlier=earlier)
                async with self._downloads:
                    await self._save(row, generation, target)
            finally:
                self.targets.release(target)
        except KontextError as error:
            return await self._failed(request, row, error, earlier=earlier, cost=_cost_of_failed(task, error))
        return self._outcome(request, row, earlier=earlier)

    async def _has_result(self, row: JournalRow, generation: Generation, target: Path, *, earlier: bool) -> None:
        """Record the result and the path of a completed task, unless an earlier run did. The known cost stays."""
        if row.state is not State.ACCEPTED:
            return
        row.state = State.COMPLETED
        row.cost = generation.usage.cost
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

    async def _save(self, row: JournalRow, generation: Generation, target: Path) -> None:
        again = row.completion is not None
        sizes = self._sizes.setdefault(generation.task_id, {})
        try:
            await self.session.save(generation, target, durable=True)
        finally:
            del self._sizes[generation.task_id]
        row.state = State.SAVED
        row.files = tuple((self._relative(path), size) for path, size in sizes.items())
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
        """Stop submitting after a rejected API key, an empty balance or a full disk: more requests would fail too."""
        on_disk = isinstance(error, DownloadFailed) and isinstance(error.__cause__, OSError)
        if on_disk or isinstance(error, AuthenticationFailed | PermissionDenied | SessionClosed):
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


def _cost_of_failed(task: GenerationTask, error: KontextError) -> Decimal | None:
    """Return the cost of a failed task; None if the gateway did not report one."""
    usage = task.last_status.usage if isinstance(error, TaskFailed) and task.last_status else None
    return usage.cost if usage else None

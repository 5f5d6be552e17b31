"""What is done with one request: pay for it, or take up what is paid; each step durable before the next.

A journal that fails keeps nothing from being saved that is paid for: the picture is fetched all the same, and the run
ends with the journal's error.
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
from kontext_async.bulk.records import error_record
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
from kontext_async.events import Downloaded

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal
    from pathlib import Path

    from kontext_async.bulk.budget import Budget
    from kontext_async.bulk.entries import Row
    from kontext_async.bulk.journal import Journal
    from kontext_async.bulk.outcomes import Tally
    from kontext_async.bulk.results import Results
    from kontext_async.bulk.targets import Targets
    from kontext_async.events import Event
    from kontext_async.models import Generation, KontextRequest
    from kontext_async.session import GenerationTask, KontextSession

__all__ = ["Errands"]

DOWNLOADS_AT_ONCE = 32


@define(eq=False, kw_only=True)
class Errands:
    """Does what is to be done with single requests.

    Attributes:
        session: What runs them.
        directory: Where the pictures go.
        journal: What is told of each step.
        results: What is told of each end.
        budget: What is told of the money.
        tally: What this run has spent.
        targets: Where pictures may be put.
        halt: Called with an error after which nothing more may be submitted.
        refusal: Says why nothing more is submitted; None while something is.
        unwritten: The ids of tasks that are paid for and that the journal could not take down.
    """

    session: KontextSession
    directory: Path
    journal: Journal
    results: Results
    budget: Budget
    tally: Tally
    targets: Targets
    halt: Callable[[KontextError], object]
    refusal: Callable[[], KontextError | None]
    unwritten: list[str] = field(factory=list)
    _downloads: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(DOWNLOADS_AT_ONCE))
    _sizes: dict[str, dict[Path, int]] = field(factory=dict)

    def heard(self, event: Event) -> None:
        """Take down the size of a picture that was saved. A listener to the session's events."""
        if isinstance(event, Downloaded) and event.path and event.task_id in self._sizes:
            self._sizes[event.task_id][event.path] = event.size

    def check_submitting(self) -> None:
        """Whether something may still be submitted.

        Raises:
            RunStopped: No.
        """
        if reason := self.refusal():
            raise RunStopped(f"it was not submitted: {reason}")

    async def submit(self, request: KontextRequest, row: Row, scope: anyio.CancelScope) -> BulkOutcome:
        """Pay for a request, and save its pictures. Its place in the budget is taken already.

        Args:
            request: The request.
            row: Its row.
            scope: What is cancelled when the request shall not be submitted any more: it stops doing so once it is
                on the wire.

        Raises:
            RunStopped: It was not submitted.
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
            raise RunStopped("it was not submitted")
        return await self._finish(request, row, task or self.session.attach(row.task_id or ""))

    async def fetch(self, request: KontextRequest | None, row: Row) -> BulkOutcome:
        """Take up a request that an earlier run has paid for, and save its pictures."""
        if row.state is State.ACCEPTED:
            self.budget.take_up(row.kind)
        elif row.state is State.SAVED:  # its file is missing or damaged
            row.state = State.FINISHED
        try:
            task = self.session.attach(row.task_id or "")
        except KontextError as error:
            return await self._failed(request, row, error, earlier=True)
        return await self._finish(request, row, task, earlier=True)

    async def step(self, row: Row, **changes: Any) -> None:
        """Write a step of something that is paid for. A journal that fails ends submitting, and not this."""
        try:
            await self.journal.commit(row.id, **changes)
        except JournalFailed as error:
            if row.task_id and "task_id" in changes:
                self.unwritten.append(row.task_id)
            self.halt(error)

    async def _finish(
        self, request: KontextRequest | None, row: Row, task: GenerationTask, *, earlier: bool = False
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

    async def _has_result(self, row: Row, generation: Generation, target: Path, *, earlier: bool) -> None:
        """Take down what it came to, and where it will be. What was known before, the cost above all, stays."""
        if row.state is not State.ACCEPTED:
            return
        row.state = State.FINISHED
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

    async def _save(self, row: Row, generation: Generation, target: Path) -> None:
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
        row: Row,
        error: KontextError,
        *,
        earlier: bool = False,
        cost: Decimal | None = None,
    ) -> BulkOutcome:
        self._account_for(row, error, cost)
        if isinstance(error, RunStopped | JournalFailed) and row.task_id is None:
            raise error if isinstance(error, RunStopped) else RunStopped(str(error))
        row.state = state_after(error, row.state)
        row.error = error_record(error)
        known = json.dumps(row.error)
        if row.state in (State.FAILED, State.EXPIRED):
            row.cost = cost if row.cost is None else row.cost
            spent = None if row.cost is None else str(row.cost)
            await self._complete(row, again=row.completion is not None, error=known, cost=spent)
        else:
            await self.step(row, state=row.state, error=known)
        self._halt_if_hopeless(error)
        return self._outcome(request, row, error=error, earlier=earlier)

    def _account_for(self, row: Row, error: KontextError, cost: Decimal | None) -> None:
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

    async def _complete(self, row: Row, *, again: bool, **changes: Any) -> None:
        row.completed_at = time.time()
        row.completion = self.journal.next_completion()
        changes.setdefault("error", None)
        await self.step(row, state=row.state, completed_at=row.completed_at, completion=row.completion, **changes)
        self.results.add(row, again=again)

    def _write_off(self, row: Row) -> None:
        """What earlier tasks of this request cost is spent, whatever becomes of the next one."""
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
        """A refused key, an empty balance or a disk that takes nothing: more of the same would be no better."""
        on_disk = isinstance(error, DownloadFailed) and isinstance(error.__cause__, OSError)
        if on_disk or isinstance(error, AuthenticationFailed | PermissionDenied | SessionClosed):
            self.halt(error)

    def _outcome(
        self, request: KontextRequest | None, row: Row, *, error: KontextError | None = None, earlier: bool = False
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
            earlier=earlier,
        )


def _cost_of_failed(task: GenerationTask, error: KontextError) -> Decimal | None:
    """What a task cost although it failed, where the gateway said that."""
    usage = task.last_status.usage if isinstance(error, TaskFailed) and task.last_status else None
    return usage.cost if usage else None

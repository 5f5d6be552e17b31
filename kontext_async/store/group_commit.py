"""Group commit: steps that come together are written in one transaction, and nobody is informed before it is durable.

A group that fails is repeated without end, each time a smaller one: a step that the database does not take cannot keep
the others back for long. What a caller may give up is in `kontext_async.store.step_queue`.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from kontext_async.decisions.resend import backoff
from kontext_async.errors import SessionClosed, StoreError, StoreUnavailable, StoreUnusable
from kontext_async.settings import Retries
from kontext_async.store.availability import Part
from kontext_async.store.calls import call_store
from kontext_async.store.rows import RowStep, StepResult
from kontext_async.store.step_queue import BEFORE_CREATE, QueuedStep, StepQueue
from kontext_async.store.steps import Intended, Verdict, Withdrawn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kontext_async.store.availability import Availability
    from kontext_async.store.base import Store
    from kontext_async.store.steps import Step

__all__ = ["GroupCommitter", "gather_seconds"]

SHORTEST = 0.004
LONGEST = 0.1
PER_STEP = 0.004
LARGEST = 500
"""Steps of a group, so that a long queue does not become a statement that takes longer than its time limit."""

BACKOFF = Retries(backoff_initial=0.1, backoff_max=2.0)
WRITTEN = (Verdict.APPLIED, Verdict.REPEATED)
REMOVED = StepResult(verdict=Verdict.LOST)
"""The outcome of a step that was given up before it was sent to the store."""


def gather_seconds(previous: int) -> float:
    """Return the seconds for which steps wait for others, by the number of steps of the previous group.

    Under load there are about 10 transactions per second, for any number of tasks; each costs as much as 20 steps.
    """
    return min(LONGEST, max(SHORTEST, PER_STEP * previous))


class GroupCommitter:
    """Collects steps and writes them in groups. Create it in a running event loop.

    Args:
        store: The store.
        worker: The number of the worker.
        time_limit: Seconds for one group.
        availability: Receives failures and recoveries.

    Attributes:
        lost: The number of noted steps that came too late.
    """

    def __init__(
        self,
        store: Store,
        worker: int,
        *,
        time_limit: float,
        availability: Availability,
    ) -> None:
        self.lost = 0
        self._store = store
        self._worker = worker
        self._time_limit = time_limit
        self._availability = availability
        self._queue = StepQueue()
        self._news = asyncio.Event()
        self._gathering = asyncio.Lock()
        self._limit = LARGEST
        self._previous = 0
        self._failures = 0
        self._resume_at = 0.0
        self._disk_full: StoreError | None = None
        self._is_restore_due = False
        self._is_closed = False
        self._is_closing = False
        self._loop = asyncio.get_running_loop()
        self._writers = [
            self._loop.create_task(self._write_groups(), name=f"kontext_async store {number}")
            for number in range(store.concurrency)
        ]

    @property
    def is_idle(self) -> bool:
        """True if no step waits, and the disk is not full."""
        return not self._queue and self._disk_full is None

    def add(self, row: int, step: Step, *, is_noted: bool = False) -> QueuedStep:
        """Add a step to the queue. It is repeated without end, unless it is given up.

        Raises:
            SessionClosed: The worker has ended.
        """
        if self._is_closed:
            raise SessionClosed("the store is closed: the step was not written")
        item = QueuedStep(row, step, is_noted=is_noted)
        self._queue.add(item)
        self._news.set()
        return item

    def give_up(self, item: QueuedStep) -> None:
        """Give up a step before a create request: its caller left, and sends nothing.

        If an `Intended` may have been written, it is repeated until that is known, and then withdrawn. A bare
        `Withdrawn` could hit the same attempt of another worker.
        """
        if item.is_given_up:
            return
        item.is_given_up = True
        if item.outcome is not None:
            if isinstance(item.step, Intended) and not self._is_closed and _is_written(item.outcome):
                self.add(item.row, Withdrawn(attempt=item.step.attempt), is_noted=True)
        elif (not item.tries or not isinstance(item.step, Intended)) and self._queue.remove(item):
            item.settle(REMOVED)

    def restore_reserve(self) -> None:
        """Try soon to reserve disk space again, if it was released. Steps before a create request wait for it."""
        if self._disk_full:
            self._is_restore_due = True
            self._news.set()

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109 # the steps stay queued
        """Return when all earlier steps are written.

        Raises:
            StoreUnavailable: They are not within `timeout` seconds. They stay queued.
        """
        try:
            async with asyncio.timeout(timeout):
                for item in list(self._queue):
                    await item.wait()
        except TimeoutError:
            raise StoreUnavailable(f"the store did not take all steps within {timeout:g} s; they stay queued") from None

    async def aclose(self, timeout: float) -> None:  # noqa: ASYNC109 # as above
        """Write the remaining steps, for up to `timeout` seconds, and stop. Other steps fail."""
        self._is_closing = True
        self._news.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while item := next((item for item in self._queue if item.outcome is None), None):
                    await item.wait()
        self._is_closed = True
        for writer in self._writers:
            writer.cancel()
        await asyncio.wait(self._writers)
        _refuse(self._queue, StoreUnavailable("the store was closed before the step was written"))

    async def _write_groups(self) -> None:
        while True:
            async with self._gathering:
                await self._news.wait()
                await asyncio.sleep(self._pause())
                group = self._queue.take(self._limit)
                if not self._queue.has_ready:
                    self._news.clear()
            if self._is_restore_due:
                await self._restore_reserve()
            if group:
                await self._write_group(group)

    def _pause(self) -> float:
        gathering = 0.0 if self._is_closing else gather_seconds(self._previous)
        return max(gathering, self._resume_at - self._loop.time())

    async def _write_group(self, group: list[QueuedStep]) -> None:
        self._previous = len(group)
        try:
            again = await self._write(group)
        except BaseException:
            self._queue.finish(group, group)
            raise
        self._queue.finish(group, again)
        if self._queue.has_ready:
            self._news.set()

    async def _write(self, group: list[QueuedStep]) -> list[QueuedStep]:
        """Write a group, and return the steps that follow or are repeated.

        If the disk is full, steps of paid tasks use the reserve; those before a create request do not.
        """
        again: list[QueuedStep] = []
        if self._disk_full:
            group, again = self._without_creates(group, self._disk_full)
        if not group:
            self._resume_at = self._loop.time() + BACKOFF.backoff_initial
            return again
        results = await self._try(group)
        if isinstance(results, StoreError) and await self._has_released_reserve_for(group):
            self._disk_full = results
            group, again = self._without_creates(group, results)
            results = await self._try(group)
        if isinstance(results, StoreError):
            return self._repeat(group, results) + again
        self._note_success()
        settled = [self._settle(item, result) for item, result in zip(group, results, strict=True)]
        return [item for item in settled if item] + again

    async def _try(self, group: list[QueuedStep]) -> list[StepResult] | StoreError:
        for item in group:
            item.tries += 1
        try:
            steps = [RowStep(row=item.row, step=item.step) for item in group]
            results = await call_store(self._store.apply(self._worker, steps), self._time_limit)
        except StoreError as error:
            return error
        if len(results) != len(group):
            return StoreUnavailable(f"the store returned {len(results)} results for {len(group)} steps")
        return results

    async def _has_released_reserve_for(self, group: list[QueuedStep]) -> bool:
        is_paid = any(not isinstance(item.step, BEFORE_CREATE) for item in group)
        return is_paid and await anyio.to_thread.run_sync(self._store.release_reserve)

    async def _restore_reserve(self) -> None:
        self._is_restore_due = False
        if await anyio.to_thread.run_sync(self._store.restore_reserve):
            self._disk_full = None
            self._availability.recovered(Part.STEPS)

    def _without_creates(self, group: list[QueuedStep], error: StoreError) -> tuple[list[QueuedStep], list[QueuedStep]]:
        """Fail the steps before a create request: the reserve is not for them. Return the others, and what is left."""
        self._availability.failed(Part.STEPS, error)
        refused = [item for item in group if isinstance(item.step, BEFORE_CREATE)]
        return [item for item in group if item not in refused], self._abandon(refused, error)

    def _repeat(self, group: list[QueuedStep], error: StoreError) -> list[QueuedStep]:
        """Record the failure of a group, and return what is repeated."""
        now = self._loop.time()
        if now >= self._resume_at:  # not a group that was in flight when another one failed
            self._failures += 1
            self._resume_at = now + backoff(self._failures, BACKOFF, random.random())  # noqa: S311 # no secret
        self._limit = max(1, len(group) // 2)
        self._availability.failed(Part.STEPS, error)
        again = []
        for item in group:
            if not isinstance(item.step, BEFORE_CREATE):
                again.append(item)
            elif isinstance(error, StoreUnusable) or item.is_given_up:
                again += self._abandon([item], error)
            else:
                again.append(item)
        return again

    def _abandon(self, items: list[QueuedStep], error: StoreError) -> list[QueuedStep]:
        """Fail the callers of steps before a create request, and return the steps that are repeated nevertheless."""
        _refuse(items, error)
        again = []
        for item in items:
            if isinstance(item.step, Intended):
                twin = QueuedStep(item.row, item.step, is_noted=True, tries=item.tries, is_given_up=True)
                again.append(twin)
        return again

    def _note_success(self) -> None:
        self._limit = min(LARGEST, self._limit * 2)
        self._failures = 0
        self._resume_at = 0.0
        if not self._disk_full:
            self._availability.recovered(Part.STEPS)

    def _settle(self, item: QueuedStep, result: StepResult) -> QueuedStep | None:
        """Hand a result to its caller. If the caller gave up an `Intended` that was written, return its withdrawal."""
        if result.verdict is Verdict.REPEATED and isinstance(item.step, Intended) and item.tries == 1:
            result = StepResult(verdict=Verdict.LOST)  # another caller of this worker wrote it, and sends the request
        if item.is_noted and result.verdict is Verdict.LOST:
            self.lost += 1
        if item.outcome is None:
            item.settle(result)
        if item.is_given_up and isinstance(item.step, Intended) and result.verdict in WRITTEN:
            return QueuedStep(item.row, Withdrawn(attempt=item.step.attempt), is_noted=True)
        return None


def _refuse(items: Iterable[QueuedStep], error: StoreError) -> None:
    for item in items:
        item.is_given_up = True
        if item.outcome is None:
            item.settle(error.copy())


def _is_written(result: StepResult | StoreError) -> bool:
    return isinstance(result, StepResult) and result.verdict in WRITTEN

"""One execution of a durable run: reads the requests of one input and yields outcomes as they complete.

The work runs in one asyncio task with its own task group; the user's iterator only waits for it. The number of requests
that were read and not yet yielded is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from kontext_async.bulk.budget import Admission, price_kind
from kontext_async.bulk.entries import InputRequest
from kontext_async.bulk.errors import CostUnknown, JournalFailed, RunStopped
from kontext_async.bulk.intake import InvalidInput
from kontext_async.bulk.outages import OutageWatch
from kontext_async.bulk.outcomes import BulkOutcome, BulkProgress, RunCounts
from kontext_async.bulk.states import Action, State
from kontext_async.bulk.targets import is_present
from kontext_async.bulk.telling import skipped
from kontext_async.errors import CostLimitReached, GatewayOutage, KontextError, PermissionDenied, SessionError
from kontext_async.events import Downloaded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from anyio.abc import TaskGroup

    from kontext_async.bulk.budget import Budget
    from kontext_async.bulk.entries import JournalRow
    from kontext_async.bulk.errands import Errands
    from kontext_async.bulk.intake import InputReader
    from kontext_async.bulk.journal import Journal
    from kontext_async.bulk.outages import OnOutage
    from kontext_async.bulk.states import Policy
    from kontext_async.models import KontextRequest
    from kontext_async.session import KontextSession

__all__ = ["Execution"]

WINDOW_PER_SLOT = 2
"""Requests per slot that are read ahead: one in flight, and one that is being saved or ready to follow."""

SMALLEST_WINDOW = 64

RECOVERING_ERRORS = (CostLimitReached, CostUnknown, GatewayOutage, PermissionDenied)
"""After these errors nothing is submitted, and reading continues, so that paid requests of the input are resumed."""


class Execution:
    """Executes the requests of one input.

    Args:
        session: The session that submits the requests.
        directory: The run's directory.
        journal: The open journal.
        budget: The cost limit and the money spent.
        policy: The requests of earlier runs to resubmit.
        in_flight: The maximum number of tasks in flight.
        on_outage: What to do in an outage.
        outage_timeout: The seconds of one outage after which the run stops; None waits without a limit.

    Attributes:
        tally: The figures of the run.
        stopped: The reason why requests are left to the next run; None if none are.
        outages: Follows the outages of the session.
    """

    def __init__(
        self,
        *,
        session: KontextSession,
        directory: Path,
        journal: Journal,
        budget: Budget,
        policy: Policy,
        in_flight: int,
        on_outage: OnOutage,
        outage_timeout: float | None,
    ) -> None:
        self._session = session
        self._directory = directory
        self._journal = journal
        self._budget = budget
        self._policy = policy
        self.tally = RunCounts()
        self.stopped: KontextError | None = None
        self.outages = OutageWatch(session=session, on_outage=on_outage, timeout=outage_timeout, halt=self.halt)
        self._failure: Exception | None = None
        self._reading = True
        self._window = asyncio.Semaphore(max(SMALLEST_WINDOW, WINDOW_PER_SLOT * in_flight))
        self._working = 0
        self._ready: deque[BulkOutcome] = deque()
        self._news = asyncio.Event()
        self._moved = asyncio.Event()
        self._waiting: dict[anyio.CancelScope, JournalRow] = {}
        self._all = anyio.CancelScope()
        self._ended = False
        self._priced: set[tuple[str, int]] = set()
        self._left: KontextError | None = None

    async def outcomes(self, intake: InputReader, errands: Errands) -> AsyncGenerator[BulkOutcome, None]:
        """Yield the outcomes of the input, in order of completion.

        Raises:
            Exception: The error that the input raised, after the outcomes of all requests read before it.
        """
        owner = asyncio.get_running_loop().create_task(self._own(intake, errands), name="kontext_async bulk run")
        try:
            while (outcome := await self._next()) is not None:
                yield outcome
            if self._failure:
                raise self._failure
        finally:
            self._all.cancel()
            while not owner.done():
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([owner])

    def progress(self) -> BulkProgress:
        """Return the current figures."""
        tally = self.tally
        return BulkProgress(
            read=tally.read,
            done=tally.done,
            skipped=tally.skipped,
            in_flight=self._working,
            failed=tally.uncertain + tally.failed.total(),
            spent=tally.spent,
        )

    def refusal(self) -> KontextError | None:
        """Return the reason why nothing more is submitted; None while requests are submitted."""
        return self.stopped

    def leave(self, error: KontextError) -> None:
        """Record an error that leaves a request to the next run. The report names it if nothing stopped the run."""
        self._left = error

    def halt(self, reason: KontextError) -> None:
        """Stop submitting. Paid tasks keep running, and are resumed where that is still possible."""
        self.stopped = self.stopped or reason
        self._reading = self._reading and isinstance(reason, RECOVERING_ERRORS)
        if isinstance(reason, JournalFailed | SessionError):
            self._failure = self._failure or reason
        self._moved.set()
        self.outages.end_waits()
        for scope, row in tuple(self._waiting.items()):
            if row.state is State.PLANNED:
                scope.cancel()

    def stop(self, grace: float) -> None:
        """Stop submitting and reading; tasks in flight have `grace` seconds to complete and be saved."""
        self._reading = False
        self.halt(RunStopped("the run was stopped before all requests were submitted; run it again to resume"))
        self._all.deadline = min(self._all.deadline, anyio.current_time() + grace)

    async def _next(self) -> BulkOutcome | None:
        while not self._ready:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        self._window.release()
        return self._ready.popleft()

    async def _own(self, intake: InputReader, errands: Errands) -> None:
        unsubscribe = self._session.subscribe(errands.record_size, Downloaded)
        self.outages.start()
        try:
            with self._all:
                async with anyio.create_task_group() as group:
                    await self._feed(intake, errands, group)
        except Exception as error:  # noqa: BLE001 # the iterator raises it
            self._failure = error
        finally:
            self.outages.close()
            unsubscribe()
            self._judge_end()
            self._ended = True
            self._news.set()

    def _judge_end(self) -> None:
        """Correct the reason: an outage after the last submission stopped nothing, and a request left over has one."""
        remaining = self.tally.read > self.tally.ended
        if isinstance(self.stopped, GatewayOutage) and not remaining:
            self.stopped = None
        elif remaining:
            self.stopped = self.stopped or self._left

    async def _feed(self, intake: InputReader, errands: Errands, group: TaskGroup) -> None:
        try:
            while self._reading and (chunk := await intake.next()):
                await self._start_chunk(chunk, errands, group)
            if self._reading:
                await self._start_orphans(errands, group)
        except JournalFailed as error:
            self.halt(error)
        except Exception as error:  # noqa: BLE001 # the user's iterable may raise anything; the iterator raises it
            self._failure = error

    async def _start_chunk(self, chunk: list[InputRequest | InvalidInput], errands: Errands, group: TaskGroup) -> None:
        entries = [each for each in chunk if isinstance(each, InputRequest)]
        rows = dict(zip((each.position for each in entries), await self._journal.take(entries), strict=True))
        present = await anyio.to_thread.run_sync(self._present, list(rows.values()))
        for each in chunk:
            if not self._reading:
                return
            await self._window.acquire()
            self.tally.read += 1
            if isinstance(each, InvalidInput):
                self._hand_out(BulkOutcome(index=each.position, request=each.request, error=each.error))
                continue
            row = rows[each.position]
            action = self._policy.action(row.state, files_present=row.id in present)
            if action is Action.SUBMIT:
                await self._submit(each.request, row, errands, group)
            elif action is Action.FETCH:
                self._start(group, errands.fetch, each.request, row)
            else:
                self._hand_out(skipped(self._directory, each.request, row))

    def _present(self, rows: list[JournalRow]) -> set[int]:
        return {row.id for row in rows if row.state is State.SAVED and is_present(self._directory, row)}

    async def _submit(self, request: KontextRequest, row: JournalRow, errands: Errands, group: TaskGroup) -> None:
        if not await self._admitted(request):
            self._window.release()
            return
        scope = anyio.CancelScope()
        self._waiting[scope] = row

        async def submit(request: KontextRequest, row: JournalRow) -> BulkOutcome:
            try:
                return await errands.submit(request, row, scope)
            finally:
                self._waiting.pop(scope, None)

        self._start(group, submit, request, row)

    async def _admitted(self, request: KontextRequest) -> bool:
        """Wait until the budget admits or rejects one more request, and return True if it admits it."""
        kind = price_kind(request)
        if self._budget.limit is not None and kind not in self._priced:
            self._priced.add(kind)
            await self._estimate_price(request)
        while self.stopped is None:
            self._moved.clear()
            admission = self._budget.admit(kind)
            if admission is Admission.GRANTED:
                return True
            if admission is Admission.WAIT:
                await self._moved.wait()
            elif admission is Admission.UNKNOWN:
                self.halt(cost_unknown(self._budget.foreign))
            else:
                limit = self._budget.limit or self._budget.spent
                self.halt(CostLimitReached(spent=self._budget.committed, limit=limit))
        return False

    async def _estimate_price(self, request: KontextRequest) -> None:
        """Request a cost estimate; if the gateway has none, the first completed request shows the price."""
        try:
            estimate = await self._session.estimate(request)
        except KontextError:
            return
        self._budget.learn_currency(estimate.currency)
        self._budget.learn(price_kind(request), estimate.cost)

    async def _start_orphans(self, errands: Errands, group: TaskGroup) -> None:
        """Resume the paid requests that are missing from this input."""
        async for row in self._journal.orphans():
            await self._window.acquire()
            self._start(group, self._fetch_orphan(errands), None, row)

    def _fetch_orphan(self, errands: Errands) -> Callable[[None, JournalRow], Awaitable[BulkOutcome]]:
        async def fetch(_: None, row: JournalRow) -> BulkOutcome:
            outcome = await errands.fetch(None, row)
            self.tally.orphans += outcome.ok
            raise _Unlisted(outcome)

        return fetch

    def _start(
        self,
        group: TaskGroup,
        errand: Callable[..., Awaitable[BulkOutcome]],
        request: KontextRequest | None,
        row: JournalRow,
    ) -> None:
        self._working += 1
        group.start_soon(self._work, errand, request, row)

    async def _work(
        self, errand: Callable[..., Awaitable[BulkOutcome]], request: KontextRequest | None, row: JournalRow
    ) -> None:
        try:
            self._hand_out(await errand(request, row))
        except (RunStopped, _Unlisted):
            self._window.release()
        finally:
            self._working -= 1
            self._moved.set()

    def _hand_out(self, outcome: BulkOutcome) -> None:
        self.tally.add(outcome)
        self._ready.append(outcome)
        self._news.set()


def cost_unknown(currency: str | None) -> CostUnknown:
    """Return the reason why a cost limit stops a run whose costs are unknown, or are in another currency."""
    fault = f"bills in {currency!r} and not in USD" if currency else "does not report what images cost"
    return CostUnknown(f"the gateway {fault}, so the cost limit cannot be enforced: no further requests are submitted")


class _Unlisted(Exception):
    """Carries the outcome of a request that is missing from the input, and has no outcome in this run."""

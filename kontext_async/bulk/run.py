"""Durable runs: a directory of pictures from a list of requests, each paid for exactly once, whatever happens."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from kontext_async.bulk.budget import Budget
from kontext_async.bulk.errands import Errands
from kontext_async.bulk.errors import JournalFailed
from kontext_async.bulk.execution import Execution
from kontext_async.bulk.intake import Intake
from kontext_async.bulk.names import DEFAULT_TEMPLATE, NameTemplate
from kontext_async.bulk.outcomes import BulkProgress, BulkReport, Uncertain
from kontext_async.bulk.states import Policy
from kontext_async.bulk.targets import Targets
from kontext_async.errors import ConfigurationError, SessionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from decimal import Decimal
    from os import PathLike

    from kontext_async.bulk.entries import Row
    from kontext_async.bulk.intake import Requests
    from kontext_async.bulk.journal import Journal
    from kontext_async.bulk.outcomes import BulkOutcome
    from kontext_async.bulk.results import Results
    from kontext_async.session import KontextSession

__all__ = ["BulkRun", "check_extra"]


class BulkRun:
    """A run in a directory, which goes on where it was left when it is run again.

    The directory holds the pictures, ``results.jsonl``, ``index.html`` and the journal. It needs the extra ``bulk``.

    Args:
        session: What runs the requests; it must be open, and stays so.
        directory: Made when it is missing.
        name: How pictures are named: see `kontext_async.bulk.names.NameTemplate`.
        max_cost: USD that all runs in the directory may spend together; None for no limit.
        resend_uncertain: Submit requests again of which nobody knows whether they were accepted, which may pay twice.
        retry_failed: Submit requests again that failed, or whose pictures can be had no more.
        journal: A database's URL, as SQLAlchemy has it; None is SQLite in the directory.

    Raises:
        ConfigurationError: An argument cannot be used, or the extra ``bulk`` is missing.
    """

    def __init__(
        self,
        session: KontextSession,
        directory: str | PathLike[str],
        *,
        name: str = DEFAULT_TEMPLATE,
        max_cost: Decimal | None = None,
        resend_uncertain: bool = False,
        retry_failed: bool = False,
        journal: str | None = None,
    ) -> None:
        check_extra()
        if max_cost is not None and not (max_cost.is_finite() and max_cost > 0):
            raise ConfigurationError(f"max_cost must be a Decimal of USD above 0, not {max_cost}")
        self._session = session
        self._directory = Path(directory)
        self._names = NameTemplate(name)
        self._max_cost = max_cost
        self._policy = Policy(resend_uncertain=resend_uncertain, retry_failed=retry_failed)
        self._url = journal
        self._execution: Execution | None = None
        self._report: BulkReport | None = None
        self._stopping: float | None = None

    async def execute(self, requests: Requests) -> BulkReport:
        """Run everything.

        Raises:
            KontextError: As `outcomes`.
            Exception: What `requests` raised, after everything that had been read from it is done.
        """
        async with aclosing(self.outcomes(requests)) as outcomes:
            async for _ in outcomes:
                pass
        return self.report

    async def outcomes(self, requests: Requests) -> AsyncGenerator[BulkOutcome, None]:
        """Run everything, and hand out what becomes of each request, in order of completion.

        A request that is skipped has an outcome, too; one that is not submitted, because the run was stopped, has
        none. Leaving the iterator early (``aclose``, or ``contextlib.aclosing`` around it) stops at once; what is
        paid for is taken up by the next run.

        Args:
            requests: An iterable or async iterable of prompts, mappings or requests, of any length. A plain one is
                read in worker threads.

        Raises:
            RunRefused: Another run is at work there, or the directory or the journal cannot be used.
            JournalFailed: The journal could not be read or written on; what was in flight was waited for and saved.
            SessionClosed: The session is not running.
            Exception: What `requests` raised, after the outcomes of everything that had been read from it.
        """
        if self._session.is_closed:
            raise SessionClosed("the session is not running")
        self._report = None
        began = time.monotonic()
        limits = self._session.settings.limits
        async with AsyncExitStack() as stack:
            journal, results = await self._open(stack)
            standing = await journal.standing()
            budget = Budget(limit=self._max_cost, spent=standing.spent, owed=standing.owed)
            for kind, cost in standing.costs:
                budget.learn(kind, cost)
            execution = self._execution = Execution(
                session=self._session,
                directory=self._directory,
                journal=journal,
                budget=budget,
                policy=self._policy,
                in_flight=limits.max_in_flight,
            )
            if self._stopping is not None:
                execution.stop(self._stopping)
            errands = self._errands(execution, journal, results, budget)
            work = execution.outcomes(Intake(requests, limits.max_image_bytes), errands)
            try:
                async with aclosing(work):
                    async for outcome in work:
                        yield outcome
            finally:
                with anyio.CancelScope(shield=True):
                    await self._finish(journal, results, execution, errands, time.monotonic() - began)

    @property
    def report(self) -> BulkReport:
        """What became of the run, once its outcomes have come to their end.

        Raises:
            UsageError: They have not.
        """
        if self._report is None:
            raise ConfigurationError("there is no report before the run has come to its end")
        return self._report

    def progress(self) -> BulkProgress:
        """The figures of this moment."""
        return self._execution.progress() if self._execution else BulkProgress()

    def stop(self, grace: float = 30.0) -> None:
        """Submit nothing more, and end when what is in flight is finished and saved, or after `grace` seconds."""
        self._stopping = grace
        if self._execution:
            self._execution.stop(grace)

    async def _open(self, stack: AsyncExitStack) -> tuple[Journal, Results]:
        await anyio.to_thread.run_sync(_preload)
        from kontext_async.bulk.opening import opened  # noqa: PLC0415 # it needs the extra

        return await stack.enter_async_context(opened(self._directory, url=self._url))

    def _errands(self, execution: Execution, journal: Journal, results: Results, budget: Budget) -> Errands:
        return Errands(
            session=self._session,
            directory=self._directory,
            journal=journal,
            results=results,
            budget=budget,
            tally=execution.tally,
            targets=Targets(self._directory, self._names),
            halt=execution.halt,
            refusal=execution.refusal,
        )

    async def _finish(
        self, journal: Journal, results: Results, execution: Execution, errands: Errands, seconds: float
    ) -> None:
        """Sum up, and write what people look at."""
        from kontext_async.bulk.sheet import write_sheet  # noqa: PLC0415 # it needs the extra

        tally = execution.tally
        rows: list[Row] = []
        spent = tally.spent
        try:
            rows = await journal.uncertain()
            spent = (await journal.standing()).spent
            await results.finish(journal)
            await write_sheet(self._directory, journal)
        except JournalFailed as error:
            execution.halt(error)
        self._report = BulkReport(
            finished=tally.finished,
            fetched=tally.fetched,
            skipped=tally.skipped,
            failed=dict(tally.failed),
            doubted=tally.doubted,
            left=tally.read - tally.ended,
            total=tally.read,
            uncertain=tuple(
                Uncertain(index=row.position, fingerprint=row.fingerprint, prompt=row.prompt) for row in rows
            ),
            orphans=tally.orphans,
            unwritten=tuple(errands.unwritten),
            spent=tally.spent,
            saved=tally.saved,
            spent_in_all=spent,
            seconds=seconds,
            stopped=execution.stopped,
        )


def _preload() -> None:
    """Import what takes its time, off the event loop."""
    from kontext_async.bulk import opening, sheet  # noqa: F401, PLC0415 # they need the extra


def check_extra() -> None:
    """Durable runs need a database and a template engine.

    Raises:
        ConfigurationError: They are not installed.
    """
    wanted = {"sqlalchemy": "SQLAlchemy", "aiosqlite": "aiosqlite", "jinja2": "Jinja2"}
    if missing := [name for module, name in wanted.items() if find_spec(module) is None]:
        needed = " and ".join(missing)
        raise ConfigurationError(f"durable runs need {needed}: pip install 'kontext_async[bulk]'")

"""Durable runs: a directory of images from a list of requests, each billed once, even if a run is interrupted."""

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
from kontext_async.bulk.intake import InputReader
from kontext_async.bulk.names import DEFAULT_TEMPLATE, NameTemplate
from kontext_async.bulk.outcomes import BulkProgress, BulkReport, UncertainRequest
from kontext_async.bulk.paths import absolute_url
from kontext_async.bulk.states import Policy
from kontext_async.bulk.targets import Targets
from kontext_async.errors import ConfigurationError, SessionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from decimal import Decimal
    from os import PathLike

    from kontext_async.bulk.entries import JournalRow
    from kontext_async.bulk.intake import Requests
    from kontext_async.bulk.journal import Journal
    from kontext_async.bulk.outages import OnOutage
    from kontext_async.bulk.outcomes import BulkOutcome
    from kontext_async.bulk.results import Results
    from kontext_async.session import KontextSession

__all__ = ["BulkRun", "check_extra"]


class BulkRun:
    """A durable run: generates the images of a list of requests into a directory, and pays for each request once.

    A run that was interrupted, even by a crash, resumes if the same requests are executed again with the same
    directory: completed requests are skipped, accepted tasks are awaited, and only the rest is submitted.

    The directory contains the images, ``results.jsonl``, ``index.html`` (a contact sheet) and the journal. Durable runs
    need the extra ``bulk``: ``pip install 'kontext_async[bulk]'``.

    Args:
        session: The session that submits the requests. It must be running; the run does not close it.
        directory: The run's directory; created if it does not exist.
        filename_template: The template of the image names: see `kontext_async.bulk.names.NameTemplate`.
        max_cost: USD that all runs in the directory may spend together; None for no limit.
        resend_uncertain: Resubmit uncertain requests. They may be billed twice.
        retry_failed: Resubmit failed and expired requests. Each new task is billed.
        journal: The URL of the journal's database, in the form of SQLAlchemy; None is SQLite in the directory.
        on_outage: What the run does when the session stops submitting because of an outage (`Outages`): ``wait``
            submits the rest when the outage is over, ``stop`` ends the run when the tasks in flight are saved. Requests
            that were not submitted remain for the next run; none fails. A refused key, an empty balance and a refused
            certificate stop the run in any case.
        outage_timeout: Seconds of one outage after which a waiting run stops; None waits without a limit.

    Relative paths, also those of input images, are relative to the working directory at construction.

    Raises:
        ConfigurationError: An argument is invalid, or the extra ``bulk`` is not installed.
    """

    def __init__(
        self,
        session: KontextSession,
        directory: str | PathLike[str],
        *,
        filename_template: str = DEFAULT_TEMPLATE,
        max_cost: Decimal | None = None,
        resend_uncertain: bool = False,
        retry_failed: bool = False,
        journal: str | None = None,
        on_outage: OnOutage = "wait",
        outage_timeout: float | None = None,
    ) -> None:
        check_extra()
        if on_outage not in ("wait", "stop"):
            raise ConfigurationError(f"on_outage must be 'wait' or 'stop', not {on_outage!r}")
        if outage_timeout is not None and not outage_timeout > 0:
            raise ConfigurationError(f"outage_timeout must be a number of seconds above 0, not {outage_timeout!r}")
        if max_cost is not None and not (max_cost.is_finite() and max_cost > 0):
            raise ConfigurationError(f"max_cost must be a Decimal of USD above 0, not {max_cost}")
        self._session = session
        self._folder = Path.cwd()
        self._directory = self._folder / directory
        self._names = NameTemplate(filename_template)
        self._max_cost = max_cost
        self._policy = Policy(resend_uncertain=resend_uncertain, retry_failed=retry_failed)
        self._url = absolute_url(journal)
        self._on_outage: OnOutage = on_outage
        self._outage_timeout = outage_timeout
        self._execution: Execution | None = None
        self._report: BulkReport | None = None
        self._stopping: float | None = None

    async def execute(self, requests: Requests) -> BulkReport:
        """Run all requests and return the report.

        Args:
            requests: See `outcomes`.

        Returns:
            The report. Failed requests do not raise; they are counted in `BulkReport.failed`.

        Raises:
            RunRefused: See `outcomes`.
            JournalFailed: See `outcomes`.
            SessionError: The session is not running.
            Exception: The error that `requests` raised, after all requests read before it are done.
        """
        async with aclosing(self.outcomes(requests)) as outcomes:
            async for _ in outcomes:
                pass
        return self.report

    async def outcomes(self, requests: Requests) -> AsyncGenerator[BulkOutcome, None]:
        """Run all requests and yield the outcome of each one, in order of completion.

        A skipped request has an outcome too. A request that was not submitted because the run stopped has none. If the
        caller leaves the iterator early (``aclose``, or ``contextlib.aclosing`` around it), the run ends at once; the
        next run resumes the tasks that are already paid for.

        Args:
            requests: An iterable or async iterable of prompts, mappings or requests, of any length. A plain iterable is
                read in worker threads.

        Yields:
            One outcome per request.

        Raises:
            RunRefused: Another run is using the directory, or the directory or the journal cannot be used. Nothing was
                submitted.
            JournalFailed: The journal could not be read or written. Tasks in flight were awaited and saved.
            SessionError: The session is not running.
            Exception: The error that `requests` raised, after the outcomes of all requests read before it.
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
                on_outage=self._on_outage,
                outage_timeout=self._outage_timeout,
            )
            if self._stopping is not None:
                execution.stop(self._stopping)
            errands = self._errands(execution, journal, results, budget)
            work = execution.outcomes(InputReader(requests, limits.max_image_bytes, self._folder), errands)
            try:
                async with aclosing(work):
                    async for outcome in work:
                        yield outcome
            finally:
                with anyio.CancelScope(shield=True):
                    await self._finish(journal, results, execution, errands, time.monotonic() - began)

    @property
    def report(self) -> BulkReport:
        """The report of the run, available after its outcomes ended.

        Raises:
            ConfigurationError: The run has not ended.
        """
        if self._report is None:
            raise ConfigurationError("there is no report before the run has ended")
        return self._report

    def progress(self) -> BulkProgress:
        """Return the current figures of the run."""
        return self._execution.progress() if self._execution else BulkProgress()

    def stop(self, grace: float = 30.0) -> None:
        """Stop submitting, and end the run when all tasks in flight are saved, or after `grace` seconds.

        The next run resumes the tasks that are still running then; they are not billed again.

        Args:
            grace: Seconds to wait for the tasks in flight.
        """
        self._stopping = grace
        if self._execution:
            self._execution.stop(grace)

    async def _open(self, stack: AsyncExitStack) -> tuple[Journal, Results]:
        await anyio.to_thread.run_sync(_preload)
        from kontext_async.bulk.opening import open_run_directory  # noqa: PLC0415 # it needs the extra

        return await stack.enter_async_context(open_run_directory(self._directory, url=self._url))

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
            left_open=execution.leave,
            outages=execution.outages,
        )

    async def _finish(
        self, journal: Journal, results: Results, execution: Execution, errands: Errands, seconds: float
    ) -> None:
        """Build the report, and write ``results.jsonl`` and the contact sheet."""
        from kontext_async.bulk.sheet import write_sheet  # noqa: PLC0415 # it needs the extra

        tally = execution.tally
        rows: list[JournalRow] = []
        spent = tally.spent
        try:
            await journal.flush()
            rows = await journal.uncertain()
            spent = (await journal.standing()).spent
            await results.finish(journal)
            await write_sheet(self._directory, journal)
        except JournalFailed as error:
            execution.halt(error)
        self._report = BulkReport(
            completed=tally.completed,
            recovered=tally.recovered,
            skipped=tally.skipped,
            failed=dict(tally.failed),
            uncertain_in_input=tally.uncertain,
            remaining=tally.read - tally.ended,
            total=tally.read,
            uncertain=tuple(
                UncertainRequest(index=row.position, fingerprint=row.fingerprint, prompt=row.prompt) for row in rows
            ),
            orphans=tally.orphans,
            unjournaled_task_ids=tuple(errands.unjournaled_task_ids),
            spent=tally.spent,
            cost_avoided=tally.cost_avoided,
            total_spent=spent,
            seconds=seconds,
            stopped=execution.stopped,
        )


def _preload() -> None:
    """Import the slow modules off the event loop."""
    from kontext_async.bulk import opening, sheet  # noqa: F401, PLC0415 # they need the extra


def check_extra() -> None:
    """Check that the packages of the extra ``bulk`` are installed: a database and a template engine.

    Raises:
        ConfigurationError: At least one package is missing; the message names it and the command that installs it.
    """
    wanted = {"sqlalchemy": "SQLAlchemy", "aiosqlite": "aiosqlite", "jinja2": "Jinja2"}
    if missing := [name for module, name in wanted.items() if find_spec(module) is None]:
        needed = " and ".join(missing)
        raise ConfigurationError(f"durable runs need {needed}: pip install 'kontext_async[bulk]'")

"""Durable runs: directories of images from a list of requests, each billed once, even if a run is interrupted."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread
from attrs import frozen

from kontext_async.bulk.admission import Admission, open_budget
from kontext_async.bulk.directory import open_run_directory
from kontext_async.bulk.errors import ReportUnwritable, RunRefused
from kontext_async.bulk.filenames import DEFAULT_TEMPLATE, FilenameAllocator, FilenameTemplate
from kontext_async.bulk.input import DuplicateCounter, InputReader
from kontext_async.bulk.item_runner import ItemRunner
from kontext_async.bulk.models import BulkProgress, BulkReport, RunCounts, UncertainRequest
from kontext_async.bulk.outages import OutageWatch
from kontext_async.bulk.paths import absolute_url
from kontext_async.bulk.runner import Runner
from kontext_async.bulk.states import Policy, Viewer
from kontext_async.bulk.stop_switch import StopSwitch
from kontext_async.errors import ConfigurationError, SessionClosed, StoreError
from kontext_async.store.access import check_key
from kontext_async.store.rows import Selection
from kontext_async.store.steps import Orphaned, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from decimal import Decimal
    from os import PathLike

    from kontext_async.bulk.directory import RunDirectory
    from kontext_async.bulk.input import Requests
    from kontext_async.bulk.models import BulkOutcome
    from kontext_async.bulk.outages import OnOutage
    from kontext_async.session import KontextSession, Share
    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row, Run
    from kontext_async.store.worker import Worker

__all__ = ["BulkRun", "check_extra"]

FLUSH_SECONDS = 5.0
"""The longest wait, at the end of a run, for steps that the store has not taken yet."""

OWN_SHARE = "durable run"
"""The start of the names of the shares that runs have of their own."""

UNFINISHED = frozenset({State.INTENT, State.ACCEPTED, State.COMPLETED})


@frozen(kw_only=True)
class _Opened:
    """A run that is open: its directory, its worker at the store, and the run itself.

    Attributes:
        directory: The directory, locked.
        worker: The worker.
        run: The run, with the number of this execution.
        is_shared: True if other workers may execute the run at the same time.
    """

    directory: RunDirectory
    worker: Worker
    run: Run
    is_shared: bool


class BulkRun:
    """A durable run: generates the images of a list of requests into a directory, and pays for each request once.

    A run that was interrupted, even by a crash, resumes if the same requests are executed again with the same
    directory: completed requests are skipped, accepted tasks are awaited, and only the rest is submitted.

    The directory contains the images, ``results.jsonl``, ``index.html`` (a contact sheet) and the store. With a store
    elsewhere, a run may be executed by several processes and machines at once, each with a directory of its own: they
    share the requests of the same input, and each may come and go.

    Durable runs need the extra ``bulk``: ``pip install 'kontext_async[bulk]'``.

    Args:
        session: The session that submits the requests. It must be running; the run does not close it.
        directory: The run's directory; created if it does not exist.
        filename_template: The template of the image names: see `kontext_async.bulk.filenames.FilenameTemplate`.
        max_cost: USD that all executions and workers of the run may spend together; None for no limit.
        resend_uncertain: Resubmit uncertain requests of earlier executions. They may be billed twice.
        retry_failed: Resubmit failed and expired requests of earlier executions. Each new task is billed.
        store: The store of the run: a URL, as for `KontextSession`, or a `kontext_async.store.base.Store`. None is the
            session's own store, or, if it has none, SQLite in the directory.
        run: The name of the run in its store: 1 to 512 printable characters. None is the run that the directory belongs
            to already; a new run in a store of its own needs a name.
        on_outage: What the run does when the session stops submitting because of an outage (`Outages`): ``wait``
            submits the rest when the outage is over, ``stop`` ends the run when the tasks in flight are saved. Requests
            that were not submitted remain for the next run; none fails. A refused key, an empty balance and a refused
            certificate stop the run in any case.
        outage_timeout: Seconds of one outage after which a waiting run stops; None waits without a limit.
        share: The share of the session that submits the requests, such as ``session.share("nightly", priority=-1)``.
            None is a share of the run's own.

    Relative paths, also those of input images, are relative to the working directory at construction.

    Raises:
        ConfigurationError: An argument is invalid, or the extra ``bulk`` is not installed.
    """

    _executing: ClassVar[WeakKeyDictionary[Worker, set[str]]] = WeakKeyDictionary()
    """The names of the runs that are being executed, by worker: one worker executes a run once at a time."""

    def __init__(
        self,
        session: KontextSession,
        directory: str | PathLike[str],
        *,
        filename_template: str = DEFAULT_TEMPLATE,
        max_cost: Decimal | None = None,
        resend_uncertain: bool = False,
        retry_failed: bool = False,
        store: str | Store | None = None,
        run: str | None = None,
        on_outage: OnOutage = "wait",
        outage_timeout: float | None = None,
        share: Share | None = None,
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
        self._filenames = FilenameTemplate(filename_template)
        self._max_cost = max_cost
        self._resend_uncertain = resend_uncertain
        self._retry_failed = retry_failed
        self._store = absolute_url(store) if isinstance(store, str) else store
        self._run = None if run is None else check_key(run, "run")
        self._on_outage: OnOutage = on_outage
        self._outage_timeout = outage_timeout
        self._share = share
        self._runner: Runner | None = None
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
            ConfigurationError: See `outcomes`.
            StoreError: See `outcomes`.
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

        A worker of a shared run also waits for the requests that other workers have in hand, and takes over those of
        workers that die.

        Args:
            requests: An iterable or async iterable of prompts, mappings or requests, of any length. A plain iterable is
                read in worker threads.

        Yields:
            One outcome per request.

        Raises:
            RunRefused: Another run is using the directory, or the directory cannot be used. Nothing was submitted.
            ConfigurationError: The run needs a name, or the URL of the store is invalid. Nothing was submitted.
            StoreUnusable: The store cannot be used.
            StoreUnavailable: The store could not be read or written for `StoreSettings.step` seconds. Tasks in flight
                were awaited and saved.
            SessionError: The session is not running.
            Exception: The error that `requests` raised, after the outcomes of all requests read before it.
        """
        if self._session.is_closed:
            raise SessionClosed("the session is not running")
        self._report = None
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            opened = await self._open(stack)
            runner = self._runner = await self._make_runner(opened, stack)
            if self._stopping is not None:
                runner.stop(self._stopping)
            reader = InputReader(requests, self._session.settings.limits.max_image_bytes, self._folder)
            stack.callback(reader.close)
            outcomes = runner.outcomes(reader)
            try:
                async with aclosing(outcomes):
                    async for outcome in outcomes:
                        yield outcome
            finally:
                with anyio.CancelScope(shield=True):
                    await self._finish(opened, runner, began)

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
        return self._runner.progress() if self._runner else BulkProgress()

    def stop(self, grace: float = 30.0) -> None:
        """Stop submitting, and end the run when all tasks in flight are saved, or after `grace` seconds.

        The next run resumes the tasks that are still running then; they are not billed again.

        Args:
            grace: Seconds to wait for the tasks in flight.
        """
        self._stopping = grace
        if self._runner:
            self._runner.stop(grace)

    async def _open(self, stack: AsyncExitStack) -> _Opened:
        """Lock the directory, open the store, and begin an execution of the run."""
        await anyio.to_thread.run_sync(_preload)
        directory = await stack.enter_async_context(open_run_directory(self._directory))
        stored = self._session._engine.stored  # noqa: SLF001 # the run works with the session's engine
        is_own = self._store is None and stored is None
        if self._store is None and stored is not None:
            worker = stored.worker
        else:
            store = await anyio.to_thread.run_sync(self._find_store, directory)
            worker = await self._session._engine.start_worker(store)  # noqa: SLF001 # as above
            stack.push_async_callback(_close, worker)
        name = await directory.find_run(worker.store, self._run)
        stack.enter_context(self._exclude(worker, name))
        run = await worker.run(name, executes=True)
        if run is None:
            raise RunRefused(f"the store has no run {name!r}; nothing was submitted")
        await directory.join(worker.store, run)
        if is_own:
            await _end_predecessors(worker, run)
        return _Opened(directory=directory, worker=worker, run=run, is_shared=not is_own)

    def _find_store(self, directory: RunDirectory) -> Store:
        settings = self._session.settings.store
        if self._store is None:
            return directory.own_store(settings)
        if isinstance(self._store, str):
            from kontext_async.store.urls import store_from_url  # noqa: PLC0415 # it needs the extra

            return store_from_url(self._store, settings)
        return self._store

    @contextmanager
    def _exclude(self, worker: Worker, name: str) -> Iterator[None]:
        """Keep two executions of one session from taking each other's rows for their own."""
        names = self._executing.setdefault(worker, set())
        if name in names:
            raise RunRefused(f"this session executes the run {name!r} already; nothing was submitted")
        names.add(name)
        try:
            yield
        finally:
            names.discard(name)

    async def _make_runner(self, opened: _Opened, stack: AsyncExitStack) -> Runner:
        session, worker, directory = self._session, opened.worker, opened.directory
        budget = await open_budget(worker, opened.run.id, self._max_cost, is_shared=opened.is_shared)
        switch, counts, moved = StopSwitch(), RunCounts(), asyncio.Event()
        outages = OutageWatch(session=session, on_outage=self._on_outage, timeout=self._outage_timeout, switch=switch)
        billed = DuplicateCounter()
        stack.callback(billed.close)
        share = self._share or session.share(f"{OWN_SHARE} {opened.run.id} of worker {worker.number}")
        items = ItemRunner(
            session=session,
            share=share._patient(),  # noqa: SLF001 # the run bounds its own requests
            worker=worker,
            directory=directory,
            filenames=FilenameAllocator(directory.path, directory.folder, self._filenames),
            budget=budget,
            limit=self._max_cost if opened.is_shared else None,
            counts=counts,
            switch=switch,
            outages=outages,
            billed=billed,
        )
        admission = Admission(
            session=session,
            worker=worker,
            run=opened.run.id,
            budget=budget,
            switch=switch,
            is_shared=opened.is_shared,
            moved=moved,
        )
        return Runner(
            session=session,
            worker=worker,
            run=opened.run,
            directory=directory,
            items=items,
            admission=admission,
            policy=Policy(resend_uncertain=self._resend_uncertain, retry_failed=self._retry_failed, began=time.time()),
            viewer=Viewer(
                worker=worker.number,
                account=worker.account,
                folder=directory.folder,
                takes_planned=not opened.is_shared,
            ),
            counts=counts,
            switch=switch,
            outages=outages,
            moved=moved,
        )

    async def _finish(self, opened: _Opened, runner: Runner, began: float) -> None:
        """Write ``results.jsonl`` and the contact sheet, and build the report."""
        worker, directory, run = opened.worker, opened.directory, opened.run
        counts, switch = runner.counts, runner.switch
        rows: list[Row] = []
        total_spent = counts.spent
        try:
            if worker.failure:
                raise worker.failure
            await worker.flush(FLUSH_SECONDS)
            rows = await _uncertain_rows(worker, run)
            total_spent = (await worker.store.summary(run.id)).spent
            await directory.results.finish(worker.store, run.id, directory.folder)
            if not opened.is_shared:
                write_contact_sheet = await anyio.to_thread.run_sync(_load_contact_sheet)
                await write_contact_sheet(directory, worker.store, run.id)
        except (StoreError, ReportUnwritable) as error:
            switch.trip(error)
        self._report = BulkReport(
            completed=counts.completed,
            recovered=counts.recovered,
            skipped=counts.skipped,
            failed=dict(counts.failed),
            uncertain_in_input=counts.uncertain,
            remaining=counts.read - counts.ended,
            total=counts.read,
            uncertain=tuple(
                UncertainRequest(index=row.position or 0, fingerprint=row.digest.hex(), prompt=row.prompt)
                for row in rows
            ),
            orphans=counts.orphans,
            unjournaled_task_ids=tuple(worker.unwritten_task_ids),
            spent=counts.spent,
            cost_avoided=counts.cost_avoided,
            total_spent=total_spent,
            seconds=time.monotonic() - began,
            stopped=switch.reason,
        )


async def _close(worker: Worker) -> None:
    with anyio.CancelScope(shield=True):
        await worker.aclose()


async def _end_predecessors(worker: Worker, run: Run) -> None:
    """End the life of earlier workers at the store in the directory: its lock says that they are dead."""
    owners: set[int] = set()
    last = 0
    while rows := await worker.store.page(Selection(run=run.id, states=UNFINISHED), after=last):
        owners |= {row.owner for row in rows if row.owner is not None and row.owner_alive}
        last = rows[-1].id
    for owner in owners - {worker.number}:
        await worker.store.remove_worker(owner)


async def _uncertain_rows(worker: Worker, run: Run) -> list[Row]:
    """Return the uncertain requests of a run. Those that dead workers were sending become uncertain first."""
    dead = Selection(run=run.id, states=frozenset({State.INTENT}), unowned=True)
    while rows := await worker.store.page(dead):
        for row in rows:
            await worker.record(row, Orphaned(attempt=row.attempt))
    uncertain: list[Row] = []
    selection = Selection(run=run.id, states=frozenset({State.UNCERTAIN}))
    while rows := await worker.store.page(selection, after=uncertain[-1].id if uncertain else 0):
        uncertain += rows
    return uncertain


def _preload() -> None:
    """Import the slow modules of the store off the event loop."""
    from kontext_async.store import urls  # noqa: F401, PLC0415 # it needs the extra


def _load_contact_sheet() -> Callable[[RunDirectory, Store, int], Awaitable[object]]:
    """Import the contact sheet, with its template engine, off the event loop: a worker of a shared run needs none."""
    from kontext_async.bulk.contact_sheet import write_contact_sheet  # noqa: PLC0415 # it needs the extra

    return write_contact_sheet


def check_extra() -> None:
    """Check that the packages of the extra ``bulk`` are installed: a database and a template engine.

    Raises:
        ConfigurationError: At least one package is missing; the message names it and the command that installs it.
    """
    wanted = {"sqlalchemy": "SQLAlchemy", "aiosqlite": "aiosqlite", "jinja2": "Jinja2"}
    if missing := [name for module, name in wanted.items() if find_spec(module) is None]:
        needed = " and ".join(missing)
        raise ConfigurationError(f"durable runs need {needed}: pip install 'kontext_async[bulk]'")

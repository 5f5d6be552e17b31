"""Predicts the submissions and the cost of a run. Nothing is submitted or billed, and the directory stays as it is.

The store in the directory is read from a copy, because opening it may migrate it. A store of its own is opened as a run
opens it, which creates or migrates its tables; no row of the run is written.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import evolve, field, frozen

from kontext_async.bulk.directory import JOURNAL, RunDirectory, new_store
from kontext_async.bulk.errors import RunRefused
from kontext_async.bulk.input import InputReader
from kontext_async.bulk.lock import DirectoryLock
from kontext_async.bulk.models import RunPlan
from kontext_async.bulk.paths import reason_of
from kontext_async.bulk.records import InputRequest
from kontext_async.bulk.states import Action, Policy, Viewer
from kontext_async.decisions.budget import price_kind
from kontext_async.errors import KontextError, StoreError
from kontext_async.images import MAX_IMAGE_BYTES
from kontext_async.settings import StoreSettings
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from kontext_async.bulk.input import InvalidInput, Requests
    from kontext_async.decisions.budget import PriceKind
    from kontext_async.models import KontextRequest
    from kontext_async.session import KontextSession
    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row

__all__ = ["plan_run"]


async def plan_run(
    requests: Requests,
    directory: Path,
    *,
    session: KontextSession | None = None,
    settings: StoreSettings | None = None,
    store: Store | None = None,
    run: str | None = None,
    resend_uncertain: bool = False,
    retry_failed: bool = False,
    on_progress: Callable[[int], object] | None = None,
) -> RunPlan:
    """Predict a run. Nothing is submitted or billed, and no row is written.

    Args:
        requests: As for `BulkRun.outcomes`.
        directory: The run's directory; it is not created.
        session: The session that requests cost estimates; None uses only the prices of earlier runs.
        settings: The settings of the store; None uses those of the session, or the defaults.
        store: The store, not opened yet; None is the one in the directory.
        run: The name of the run; None as for `BulkRun`.
        resend_uncertain: As for `BulkRun`.
        retry_failed: As for `BulkRun`.
        on_progress: Called with the number of requests read so far, a few times a second.

    Returns:
        The prediction.

    Raises:
        RunRefused: The run could not start.
        ConfigurationError: The run needs a name.
        StoreError: The store cannot be used.
    """
    settings = settings or (session.settings.store if session else StoreSettings())
    policy = Policy(resend_uncertain=resend_uncertain, retry_failed=retry_failed)
    intake = InputReader(requests, session.settings.limits.max_image_bytes if session else MAX_IMAGE_BYTES)
    try:
        async with _open_known_run(Path.cwd() / directory, settings, store, run) as known:
            planner = _Planner(known, policy, session)
            await planner.start()
            while chunk := await intake.next():
                await planner.add(chunk)
                if on_progress:
                    on_progress(planner.plan.total)
    finally:
        intake.close()
    return planner.plan


@frozen(kw_only=True)
class _KnownRun:
    """A run as far as a store knows it. Without a store, or without a run in it, nothing is known.

    Attributes:
        directory: The run's directory.
        store: The store, open; None for none.
        run: The number of the run in the store; None for none.
    """

    directory: RunDirectory
    store: Store | None = None
    run: int | None = None

    async def find(self, entries: Sequence[InputRequest]) -> list[Row | None]:
        """Return the row of each request; None for those that are new."""
        if self.store is None or self.run is None:
            return [None] * len(entries)
        old_keys = [entry.old_key for entry in entries if entry.old_key]
        found = await self.store.find(self.run, [*(entry.key for entry in entries), *old_keys])
        return [found.get(entry.key) or found.get(entry.old_key or "") for entry in entries]


@frozen
class _Planner:
    """Adds the requests of an input to the plan, in chunks."""

    _known: _KnownRun
    _policy: Policy
    _session: KontextSession | None
    plan: RunPlan = field(factory=RunPlan, init=False)
    _estimated: set[PriceKind] = field(factory=set, init=False)

    async def start(self) -> None:
        """Begin with what the run has spent, and the prices that it has seen."""
        if self._known.store and self._known.run is not None:
            summary = await self._known.store.summary(self._known.run)
            self.plan.spent = summary.spent
            self.plan.prices.update(summary.costs)

    async def add(self, chunk: Sequence[InputRequest | InvalidInput]) -> None:
        """Add one chunk of the input."""
        entries = [each for each in chunk if isinstance(each, InputRequest)]
        self.plan.total += len(chunk)
        self.plan.invalid += len(chunk) - len(entries)
        rows = await self._known.find(entries)
        for entry, action in zip(entries, await anyio.to_thread.run_sync(self._actions, rows), strict=True):
            _count(self.plan, action, entry.request)
            if action is Action.SUBMIT:
                await self._estimate_price(entry.request)

    def _actions(self, rows: Sequence[Row | None]) -> list[Action | State]:
        """Return the action for each row; its state, if the run would only report it."""
        return [Action.SUBMIT if row is None else self._action(row) for row in rows]

    def _action(self, row: Row) -> Action | State:
        viewer = Viewer(folder=self._known.directory.folder)
        files_intact = row.state is State.SAVED and self._known.directory.has_images(row)
        action = self._policy.action(row, viewer, files_intact=files_intact)
        if action is Action.SWEEP:
            row = evolve(row, state=State.UNCERTAIN)
            action = self._policy.action(row, viewer, files_intact=False)
        return row.state if action is Action.REPORT else action

    async def _estimate_price(self, request: KontextRequest) -> None:
        """Learn the price of a kind from the gateway, once."""
        kind = price_kind(request)
        if self._session is None or kind in self._estimated:
            return
        self._estimated.add(kind)
        try:
            estimate = await self._session.estimate(request)
        except KontextError:
            return
        if estimate.cost is not None:
            self.plan.prices[kind] = estimate.cost


def _count(plan: RunPlan, action: Action | State, request: KontextRequest) -> None:
    match action:
        case Action.SUBMIT:
            plan.to_submit += 1
            plan.kinds[price_kind(request)] += 1
        case Action.FETCH:
            plan.to_recover += 1
        case Action.SKIP:
            plan.to_skip += 1
        case Action.WAIT:
            plan.elsewhere += 1
        case State.UNCERTAIN:
            plan.uncertain += 1
        case _:
            plan.failed += 1


@asynccontextmanager
async def _open_known_run(
    path: Path, settings: StoreSettings, store: Store | None, name: str | None
) -> AsyncGenerator[_KnownRun, None]:
    directory = await anyio.to_thread.run_sync(RunDirectory, path)
    if store is None and not directory.has_run:
        yield _KnownRun(directory=directory)
        return
    async with AsyncExitStack() as stack:
        source = store
        if source is None:
            source = await stack.enter_async_context(_copy_own_store(directory, settings))
        stack.push_async_callback(_close, source)
        await source.open()
        found = await source.open_run(await directory.find_run(source, name), create=False)
        if found and directory.has_run:
            await directory.find_folder(source, found.name)
        yield _KnownRun(directory=directory, store=source, run=found.id if found else None)


async def _close(store: Store) -> None:
    with anyio.CancelScope(shield=True):
        await store.aclose()


@asynccontextmanager
async def _copy_own_store(directory: RunDirectory, settings: StoreSettings) -> AsyncGenerator[Store, None]:
    """Return a copy of the store in the directory, not opened yet. It is deleted at the end.

    Raises:
        RunRefused: A run is using the directory, the store is missing, or it cannot be copied.
    """
    await anyio.to_thread.run_sync(directory.own_store, settings)  # it checks that there is one
    scratch = await anyio.to_thread.run_sync(tempfile.TemporaryDirectory)
    try:
        copy = Path(scratch.name) / JOURNAL
        await anyio.to_thread.run_sync(_copy_files, directory.path / JOURNAL, copy)
        yield new_store(copy, settings)
    except StoreError as error:  # the user knows the original only
        raise type(error)(str(error).replace(scratch.name, str(directory.path))) from error
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(scratch.cleanup)


def _copy_files(journal: Path, copy: Path) -> None:
    """Copy a store's file and its log, while no run uses the directory."""
    lock = DirectoryLock(journal.parent).acquire()
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{journal}{suffix}", f"{copy}{suffix}")
    except OSError as error:
        raise RunRefused(f"{journal} cannot be copied to {copy}: {reason_of(error)}") from None
    finally:
        lock.release()

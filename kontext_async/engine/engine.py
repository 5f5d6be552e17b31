"""The engine's parts, and the owner task that runs them.

The owner task enters and leaves its anyio task group itself; everybody else only signals it. So a session can be
started in one task and closed in another, as pytest fixtures and web servers do. A task group held across a ``yield``
would fail with "exit cancel scope in a different task".
"""

from __future__ import annotations

import asyncio
import enum
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import anyio
import attrs

from kontext_async.base_errors import unwrap_group
from kontext_async.engine.canceller import Canceller
from kontext_async.engine.context import Context
from kontext_async.engine.downloader import Downloader
from kontext_async.engine.draining import wait_for_tasks
from kontext_async.engine.estimator import Estimator
from kontext_async.engine.event_hub import EventHub
from kontext_async.engine.flight import StoreCall
from kontext_async.engine.owned_tasks import OwnedTasks
from kontext_async.engine.poll_loop import PollLoop
from kontext_async.engine.request_log import SessionLog
from kontext_async.engine.scheduler import Scheduler
from kontext_async.engine.slot_pools import SlotPools
from kontext_async.engine.spending import Spending
from kontext_async.engine.stored_calls import StoredCalls
from kontext_async.engine.submission_gate import SubmissionGate
from kontext_async.engine.transport import Transport
from kontext_async.engine.uploads import UploadLimiter
from kontext_async.errors import (
    ConfigurationError,
    KontextError,
    Overloaded,
    SessionClosed,
    SessionCrashed,
    SessionError,
)
from kontext_async.events import (
    Abandoned,
    Accepted,
    Completed,
    Downloaded,
    Failed,
    StatusReceived,
    Submitting,
    Throttled,
)
from kontext_async.models import SessionStatistics
from kontext_async.store.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from decimal import Decimal
    from typing import Any

    import aiohttp
    from anyio.abc import TaskGroup

    from kontext_async.engine.clock import Clock
    from kontext_async.engine.submission import Submission
    from kontext_async.engine.task_record import TaskRecord
    from kontext_async.gateways import Gateway, Webhook
    from kontext_async.models import GeneratedImage
    from kontext_async.settings import Settings, StoreSettings
    from kontext_async.store.base import Store
    from kontext_async.store.rows import Account

__all__ = ["Engine"]


class Life(enum.Enum):
    """The states of an engine."""

    NEW = enum.auto()
    RUNNING = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()
    CRASHED = enum.auto()


class Signal(enum.Enum):
    """The signals that move an engine from one state to the next."""

    START = enum.auto()
    CLOSE = enum.auto()
    CRASH = enum.auto()
    END = enum.auto()


TRANSITIONS: dict[tuple[Life, Signal], Life] = {
    (Life.NEW, Signal.START): Life.RUNNING,
    (Life.NEW, Signal.CLOSE): Life.CLOSED,
    (Life.RUNNING, Signal.CLOSE): Life.CLOSING,
    (Life.RUNNING, Signal.CRASH): Life.CRASHED,
    (Life.RUNNING, Signal.END): Life.CLOSED,  # the loop cancels the owner task when it shuts down
    (Life.CLOSING, Signal.CRASH): Life.CRASHED,
    (Life.CLOSING, Signal.END): Life.CLOSED,
}
"""Any other signal changes nothing; `START` is then an error."""


class Engine:
    """Joins the engine's parts, and owns every task of theirs.

    Attributes:
        gateway: The dialect of the gateway.
        webhook: The address to which the gateway reports the ends of tasks, unless a call names another; None for none.
        on_end: Callbacks for the end of the engine, called with the error that its waiters get.
        on_new_ceiling: Callbacks for a change of `Limits.max_in_flight`.
        is_draining: True once it admits no further request.
        stored: The requests whose rows are in the session's store; None without a store, and before `start`.
    """

    def __init__(
        self,
        gateway: Gateway,
        api_key: str,
        settings: Settings,
        http: aiohttp.ClientSession | None,
        clock: Clock,
        *,
        store: Store | None = None,
        account: str | None = None,
        max_cost: Decimal | None = None,
        webhook: Webhook | None = None,
    ) -> None:
        gateway.check_webhook(webhook)
        self.settings = settings
        self.gateway = gateway
        self.webhook = webhook
        self._payer = partial(_start_worker, gateway=gateway, api_key=api_key, account=account)
        self._store = store
        self.clock = clock
        self.hub = EventHub()
        self._log = SessionLog(gateway.base_url)
        self.transport = Transport(gateway, api_key, settings, http)
        random = Random()  # noqa: S311 # jitter is no secret
        context = Context(
            settings=settings,
            clock=clock,
            random=random,
            hub=self.hub,
            start_soon=self.start_soon,
            crash=self._on_crash,
        )
        uploads = UploadLimiter(settings.limits)
        self.slots = SlotPools(gateway, settings.limits, settings.retries, clock, random)
        self.gate = SubmissionGate(self.transport, uploads, context, on_key_refused=self._on_key_refused)
        self.poll_loop = PollLoop(self.transport, self.gate, self.slots, context)
        self._context, self._uploads = context, uploads
        self.estimator = Estimator(self.transport, uploads, context)
        self.scheduler = Scheduler(
            self.transport,
            uploads,
            self.slots,
            self.gate,
            spending=Spending(max_cost, self.estimator, context),
            poll_loop=self.poll_loop,
            context=context,
        )
        self.canceller = Canceller(self.transport, self.poll_loop, context, self.start_task)
        self.poll_loop.cancel_expired = self.canceller.cancel_expired
        self.downloader = Downloader(self.transport, self.poll_loop, context)
        self.on_end: set[Callable[[SessionError], object]] = set()
        self.on_new_ceiling: set[Callable[[], object]] = set()
        self.is_draining = False
        self.stored: StoredCalls | None = None
        self._life = Life.NEW
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._tasks = OwnedTasks(self._on_crash)
        self._stop = asyncio.Event()
        self._crash: Exception | None = None

    @property
    def has_store(self) -> bool:
        """True if the session was given a store."""
        return self._store is not None

    @property
    def is_running(self) -> bool:
        """True from `start` until the engine closes or crashes."""
        return self._life is Life.RUNNING

    async def start(self) -> None:
        """Start the owner task, and return when everything is ready.

        Raises:
            SessionClosed: The engine was started or closed before.
            ConfigurationError: The user's `aiohttp.ClientSession` cannot be used.
        """
        if self._life is not Life.NEW:
            raise SessionClosed("the session was started before; create a new one")
        self._loop = _running_loop()
        if self._store:
            self.stored = await self._open_store(self._store)
        self.transport.open()
        ready = self._loop.create_future()
        self._signal(Signal.START)
        self._owner = self._loop.create_task(self._run(ready), name="kontext_async session")
        try:
            await asyncio.wait([ready, self._owner], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._signal(Signal.CLOSE)  # the caller has no session to close
            raise
        if not ready.done():  # the loop cancelled the owner task before its first step
            self._signal(Signal.END)
            await self.transport.aclose()
            raise self._end_error()
        self._log.start(self.hub, self.on_end)

    async def aclose(self) -> None:
        """Close the engine, and fail all waiters with `SessionClosed`, which carries the task ID.

        Waits up to `Timeouts.cancel` seconds for the responses to create requests in flight. It may be called from any
        task of the loop, and more than once; cancelling it does not stop the closing.

        Raises:
            SessionClosed: It is called on another event loop.
        """
        self._check_loop()
        self._signal(Signal.CLOSE)
        if self._owner is not None:
            await asyncio.wait([self._owner])

    async def drain(self, grace: float) -> tuple[str, ...]:
        """Admit no further request, and wait for the tasks in flight. Return the IDs of unfinished tasks.

        Raises:
            SessionError: The engine is not running.
        """
        self.ensure_running()
        self.is_draining = True
        self.slots.close(Overloaded("the session drains", retry_after=max(grace, 1.0)))
        self.gate.close()
        self.scheduler.end_pauses()
        await wait_for_tasks(self.slots, self.poll_loop, self._context, grace)
        unfinished = self.poll_loop.unfinished()
        self.poll_loop.fail_all(SessionClosed("the session drained, and the task keeps running on the gateway"))
        return unfinished

    async def submit(self, submission: Submission) -> TaskRecord:
        """Submit a request on behalf of one caller, through the store if the session has one.

        Raises:
            KontextError: The gateway or the store refused it, or its outcome is unknown.
        """
        self.gateway.check(submission.request)
        if self.stored and submission.journal is None:
            call = StoreCall(webhook=submission.webhook)
            return await self.stored.submit(submission.request, call, queueing=submission.queueing)
        return await self.scheduler.submit(submission)

    async def start_worker(self, store: Store) -> Worker:
        """Return a worker at a store, which pays with the account of this session. Close it after use.

        Raises:
            StoreError: The store cannot be used.
        """
        worker, _ = await self._payer(store, self.settings.store)
        return worker

    async def _open_store(self, store: Store) -> StoredCalls:
        worker, account = await self._payer(store, self.settings.store)
        return StoredCalls(
            worker, self.scheduler, self._uploads, self.poll_loop, account=account, context=self._context
        )

    def ensure_running(self) -> None:
        """Raise unless the engine can be used here and now.

        Raises:
            SessionClosed: The engine was not started, is closed, or belongs to another event loop.
            SessionCrashed: The engine's background work failed.
        """
        if self._life is Life.NEW:
            raise SessionClosed("the session was not started: use 'async with', or await start() first")
        self._check_loop()
        if self._life is not Life.RUNNING:
            raise self._end_error()
        if self._group is None:
            raise SessionClosed("the session is still starting: await start() first")

    def ensure_running_for(self, task_id: str | None, reference: str | None = None) -> None:
        """Raise as `ensure_running` does. The error names the task that the caller needs the engine for.

        Raises:
            SessionError: The engine cannot be used here and now.
        """
        try:
            self.ensure_running()
        except SessionError as error:
            if task_id is None:
                raise
            raise error.with_task(task_id, reference, may_be_charged=True) from error.__cause__

    def ensure_running_for_image(self, image: GeneratedImage) -> None:
        """Raise as `ensure_running` does. The error names the task of an image that the caller wants to download.

        Raises:
            SessionError: The engine cannot be used here and now.
        """
        self.ensure_running_for(image.task_id, self.downloader.refer(image))

    def set_max_in_flight(self, count: int) -> None:
        """Change the most unfinished tasks at once.

        Raises:
            ConfigurationError: The number is not allowed.
        """
        limits = attrs.evolve(self.settings.limits, max_in_flight=count)
        self.settings = attrs.evolve(self.settings, limits=limits)
        self.slots.set_limits(limits)
        for callback in tuple(self.on_new_ceiling):
            callback()

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Run a coroutine function as a child of the owner task.

        Raises:
            SessionError: The engine has ended.
        """
        if self._group is None:
            raise self._end_error()
        self._group.start_soon(work, *args)

    def start_task(
        self, work: Coroutine[Any, Any, None], on_end: Callable[[asyncio.Task[None]], object]
    ) -> asyncio.Task[None]:
        """Run a coroutine in a plain asyncio task of the engine. `on_end` is called with the task at its end."""
        return self._tasks.start(work, on_end)

    def statistics(self) -> SessionStatistics:
        """Return the current counts."""
        counts = self.hub.counts
        return SessionStatistics(
            queued=self.slots.queued,
            in_flight=self.slots.in_flight,
            limit=self.slots.limit,
            pending=self.poll_loop.pending,
            polls_in_flight=self.poll_loop.polls_in_flight,
            submitted=counts.count(Submitting),
            accepted=counts.count(Accepted),
            throttled=counts.count(Throttled),
            polls=counts.count(StatusReceived),
            completed=counts.count(Completed),
            failed=counts.count(Failed),
            uncertain=counts.uncertain,
            abandoned=counts.count(Abandoned),
            downloaded=counts.count(Downloaded),
            spent=counts.spent,
            circuit=self.gate.state.value,
        )

    def _on_key_refused(self, error: KontextError) -> None:
        self.poll_loop.fail_all(error)

    async def _run(self, ready: asyncio.Future[None]) -> None:
        """Own the task group until the engine closes or crashes: the body of the owner task."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                ready.set_result(None)
                await self._wait_for_end()
                group.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 # whatever failed, nobody may wait on a dead loop
            self._crash = unwrap_group(error)
            self._signal(Signal.CRASH)
        finally:
            self._signal(Signal.END)
            self._group = None
            self._fail_waiters()
            self.poll_loop.stop()
            try:
                await self._end_tasks()
            finally:
                self._fail_waiters()  # of tasks that were accepted meanwhile
                for callback in tuple(self.on_end):
                    callback(self._end_error())
            with anyio.CancelScope(shield=True):
                if self.stored:
                    await self.stored.aclose()
                await self.transport.aclose()

    async def _wait_for_end(self) -> None:
        """Wait until the engine is closed and has sent everything that it had begun to send."""
        await self._stop.wait()
        if self._crash is None:
            self._fail_waiters()
            await self.scheduler.drain(self.settings.timeouts.cancel)
        if self._crash is not None:
            raise self._crash

    def _on_crash(self, error: Exception) -> None:
        if self._crash is None:
            self._crash = error
        self._stop.set()

    async def _end_tasks(self) -> None:
        """Cancel the attempts and the tasks of batches, and wait for their ends."""
        self.scheduler.close(self._end_error())
        self._tasks.cancel()
        with anyio.CancelScope(shield=True):
            await self.scheduler.wait_closed()
            await self._tasks.wait()

    def _signal(self, signal: Signal) -> None:
        self._life = TRANSITIONS.get((self._life, signal), self._life)
        if self._life not in (Life.NEW, Life.RUNNING):
            self._stop.set()

    def _fail_waiters(self) -> None:
        self.slots.close(self._end_error())
        self.gate.close()
        self.scheduler.end_pauses()
        self.poll_loop.fail_all(self._end_error())

    def _end_error(self) -> SessionError:
        if self._crash is None:
            return SessionClosed("the session is closed")
        error = self.transport.redact(SessionCrashed(f"the session's background work failed: {self._crash!r}"))
        error.__cause__ = self._crash
        return error

    def _check_loop(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop and self._loop in (None, loop):
            return
        raise SessionClosed("the session belongs to another event loop; create one for each loop")


async def _start_worker(
    store: Store, settings: StoreSettings, *, gateway: Gateway, api_key: str, account: str | None
) -> tuple[Worker, Account]:
    """Start a worker at a store, and return it with the account that it pays with."""
    worker = Worker(store, settings)
    await worker.start(gateway=gateway.name, base_url=gateway.base_url, api_key=api_key, account=account)
    try:
        return worker, (await store.accounts())[worker.account]
    except BaseException:
        with anyio.CancelScope(shield=True):
            await worker.aclose()
        raise


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "a session needs a running asyncio event loop; it does not run under trio or without a loop"
        ) from None

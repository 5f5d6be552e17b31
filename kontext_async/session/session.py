"""The session: the class that users hold. It joins the parts of the engine and decides nothing else."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from kontext_async.engine.batch import Batch
from kontext_async.engine.clock import LoopClock, cancel_at
from kontext_async.engine.engine import Engine
from kontext_async.engine.task_record import TaskRecord
from kontext_async.errors import (
    ConfigurationError,
    InvalidRequest,
    KontextError,
)
from kontext_async.gateways import DEFAULT_GATEWAY, GatewayOptions, find_gateway, find_reference
from kontext_async.models import GeneratedImage, Generation, KontextRequest, RequestFields
from kontext_async.protocol import check_task_id
from kontext_async.session.call import Call, CallOptions
from kontext_async.session.task import GenerationTask, RecoveredTask, deadline_of
from kontext_async.settings import Settings, find_api_key, find_base_url, find_gateway_name
from kontext_async.store.access import check_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection
    from datetime import datetime
    from decimal import Decimal
    from os import PathLike
    from types import TracebackType
    from typing import Self, TypeVar, Unpack

    import aiohttp

    from kontext_async.engine.batch import Requests
    from kontext_async.engine.clock import Clock
    from kontext_async.engine.stored_calls import StoredCalls
    from kontext_async.engine.submission_journal import SubmissionJournal
    from kontext_async.events import Event
    from kontext_async.gateways import Reference
    from kontext_async.models import Estimate, Outcome, RequestLike, SessionStatistics
    from kontext_async.settings import Limits, Network, Outages, Polling, Retries, StoreSettings, Timeouts
    from kontext_async.store.base import Store

    EventT = TypeVar("EventT", bound=Event)
    OtherT = TypeVar("OtherT", bound=Event)

__all__ = ["KontextSession"]


class KontextSession:
    """One connection pool, one scheduler and one poll loop, shared by any number of concurrent callers.

    Use it with ``async with``, or call `start` and `aclose` from any tasks of one event loop.

    Args:
        api_key: The API key; None reads the gateway's own variable (``BFL_API_KEY`` for `bfl`, ``FIREWORKS_API_KEY``
            for `fireworks`, each for that gateway only), or else ``KONTEXT_API_KEY``.
        base_url: The gateway's address; None reads ``KONTEXT_BASE_URL``, and falls back to the gateway's own. The
            variable belongs to the gateway that ``KONTEXT_GATEWAY`` names, or else to ``vtrix``: a session with another
            `gateway` refuses it, so that no gateway sees the key of another.
        gateway: The gateway whose dialect is spoken: ``vtrix``, the same in its queue dialect (``vtrix-queue``), Black
            Forest Labs' own API (``bfl``), or Fireworks (``fireworks``); None reads ``KONTEXT_GATEWAY``, and falls back
            to ``vtrix``.
        trusted_hosts: Hosts of tasks that may see the key, beside the gateway's own: each as ``HOST`` or ``HOST:PORT``.
        single_cluster: True says that every server behind the base URL knows every task, so that an ID is enough.
        settings: The settings as one bundle.
        limits: How much at once; replaces `settings.limits`.
        timeouts: Deadlines; replaces `settings.timeouts`.
        polling: When to poll; replaces `settings.polling`.
        retries: What to retry; replaces `settings.retries`.
        outages: When to stop submitting; replaces `settings.outages`.
        network: Proxies, and networks that image URLs may lead to; replaces `settings.network`.
        store: Where paid work is known outside this process: the URL of a database, such as ``sqlite:///paid.db`` or
            ``postgresql://HOST/NAME``, or a `kontext_async.store.base.Store`; None keeps it in this process. Sessions,
            also of other processes and machines, that share a store pay for each key once.
        account: The name of the account that pays, in the store. It outlives the rotation of a key; None makes a name
            from the key.
        http: Your own `aiohttp.ClientSession`. The session uses it for everything and never closes it. Give its
            connector a ``keepalive_timeout`` of half a second: if the server closes an idle connection just as a
            create request goes out on it, the outcome of that request is unknown. Its own proxy counts. The addresses
            of image URLs are looked up and judged before each request: a hostile name server can change them after.
        clock: The clock behind every decision; tests may pass `kontext_async.testing.ManualClock`.

    Raises:
        ConfigurationError: The key is missing, or a URL or a setting is invalid.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        gateway: str | None = None,
        trusted_hosts: Collection[str] = (),
        single_cluster: bool = False,
        settings: Settings = Settings(),  # noqa: B008 # frozen
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        polling: Polling | None = None,
        retries: Retries | None = None,
        outages: Outages | None = None,
        network: Network | None = None,
        store: str | Store | None = None,
        account: str | None = None,
        http: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings = Settings(
            limits=settings.limits if limits is None else limits,
            timeouts=settings.timeouts if timeouts is None else timeouts,
            polling=settings.polling if polling is None else polling,
            retries=settings.retries if retries is None else retries,
            outages=settings.outages if outages is None else outages,
            network=settings.network if network is None else network,
            store=settings.store,
        )
        dialect = find_gateway(find_gateway_name(gateway, DEFAULT_GATEWAY))
        owner = find_gateway_name(None, DEFAULT_GATEWAY)
        base_url = find_base_url(base_url, dialect.default_base_url, gateway=dialect.name, owner=owner)
        key = find_api_key(api_key, variables=dialect.key_variables)
        self._engine = Engine(
            dialect(base_url, key, GatewayOptions(trusted_hosts=trusted_hosts, single_cluster=single_cluster)),
            key,
            settings,
            http,
            clock or LoopClock(),
            store=_find_store(store, settings.store),
            account=None if account is None else check_key(account, "account"),
        )

    async def start(self) -> Self:
        """Open the session; close it with `aclose`.

        Raises:
            SessionClosed: The session was started or closed before.
            ConfigurationError: The given `http` session cannot be used.
        """
        await self._engine.start()
        return self

    async def aclose(self) -> None:
        """Close the session. Pending waiters fail with `SessionClosed`, which carries the task ID.

        The tasks keep running on the gateway. The session waits up to `Timeouts.cancel` seconds for the responses to
        create requests in flight. It may be called more than once.
        """
        await self._engine.aclose()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def generate(
        self,
        request: RequestLike,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 # the clock is a port
        **options: Unpack[CallOptions],
    ) -> Generation:
        """Generate or edit one image: submit the request and wait until its task completes.

        Args:
            request: A prompt, a mapping of field names, or a `KontextRequest`.
            timeout: Seconds for the whole call. None waits for a slot without a limit, and for the task as long as
                `Timeouts.wait` allows.
            options: Fields that override those of `request`: `input_images`, `seed`, `aspect_ratio`, `output_format`,
                `prompt_upsampling`, `safety_tolerance`, `model` (see `KontextRequest`). With a store also `key`, the
                name of this request in the store, which is paid for once: every caller with the same key gets the same
                image; `run`, the name of the run in which the key is unique; `resend_uncertain=True`, which sends a
                request again that may have been accepted, and may be billed twice; `retry_failed=True`, which sends a
                failed or expired request again.

        Raises:
            InvalidRequest: A field is invalid, or the key was used for another request; nothing was sent.
            ConfigurationError: There is a key and no store, or the key belongs to another gateway or account.
            GatewayError: The gateway refused, was unreachable, or no slot became free within `timeout`.
            SubmissionUncertain: The gateway may have accepted the request.
            TaskFailed: The task ended without an image.
            TaskTimeout: The task is not finished. It keeps running; resume it with `attach`.
            StoreUnavailable: The store could not be written; nothing was sent.
            SessionError: The session is not running.
        """
        call = Call(self._engine, request, options)
        clock = self._engine.clock
        began = clock.time()
        with cancel_at(clock, deadline_of(clock, timeout)):
            task = GenerationTask(self._engine, await call.submit(), call.accept_body)
            return await task._wait_or_abandon()  # noqa: SLF001 # defined below
        return call.resolve_deadline(clock.time() - began)

    async def submit(
        self, request: RequestLike, *, journal: SubmissionJournal | None = None, **options: Unpack[CallOptions]
    ) -> GenerationTask:
        """Submit a request and return its task once the gateway has accepted it.

        Args:
            request: A prompt, a mapping of field names, or a `KontextRequest`.
            journal: Records each step of the submission before the next one is taken, instead of the session's store.
            options: Fields of the request, and what concerns the store, as in `generate`.

        Raises:
            KontextError: As in `generate`, except for the errors of the wait.
        """
        call = Call(self._engine, request, options, journal)
        return GenerationTask(self._engine, await call.submit(), call.accept_body)

    async def recover(self, run: str | None = None) -> AsyncGenerator[RecoveredTask, None]:
        """Yield the work in the store that was paid for, or may have been, and that nobody has received or works on.

        These are accepted, completed and uncertain requests of this gateway and account whose worker has ended, and
        second tasks of requests that were sent again. Waiting for a task receives it.

        Args:
            run: The name of a run; None for all runs.

        Raises:
            ConfigurationError: The session has no store.
            StoreError: The store cannot be read.
            SessionError: The session is not running.
        """
        self._engine.ensure_running()
        async for key, run_name, state, record in self._stored().recover(run):
            task = None if record is None else GenerationTask(self._engine, record)
            yield RecoveredTask(key, run_name, str(state), task)

    async def forget(self, *, before: datetime, run: str | None = None) -> int:
        """Delete completed, failed and expired requests from the store. What they cost stays known.

        Args:
            before: The time before which they ended.
            run: The name of a run; None for all runs except those of bulk runs.

        Returns:
            The number of deleted requests.

        Raises:
            InvalidRequest: The time has no time zone.
            ConfigurationError: The session has no store.
            StoreError: The store cannot be written.
        """
        if before.tzinfo is None:
            raise InvalidRequest("before", before, "it must be a datetime with a time zone")
        self._engine.ensure_running()
        return await self._stored().forget(before.timestamp(), run)

    def _stored(self) -> StoredCalls:
        if self._engine.stored is None:
            raise ConfigurationError("the session has no store: pass store= to it")
        return self._engine.stored

    async def estimate(self, request: RequestLike, **fields: Unpack[RequestFields]) -> Estimate:
        """Ask the gateway for the price of a request. Nothing is generated or billed.

        Args:
            request: A prompt, a mapping of field names, or a `KontextRequest`.
            fields: Fields that override those of `request`, as in `generate`.

        Raises:
            InvalidRequest: A field is invalid; nothing was sent.
            GatewayError: The gateway refused, was unreachable, or its response is unreadable.
            SessionError: The session is not running.
        """
        made = KontextRequest.of(request, **fields)
        self._engine.ensure_running()
        return await self._engine.estimator.estimate(made)

    async def balance(self) -> Decimal:
        """Return the balance of the account in USD, as the gateway states it. It costs nothing.

        Raises:
            ConfigurationError: The gateway does not state it: `fireworks`.
            GatewayError: The gateway refused, was unreachable, or its response is unreadable.
            SessionError: The session is not running.
        """
        self._engine.ensure_running()
        return await self._engine.estimator.balance()

    def attach(self, task_id: str | Reference) -> GenerationTask:
        """Resume a task that was submitted earlier, by this session or elsewhere. Sends nothing yet.

        Args:
            task_id: The task ID, or the task's reference as a value or as text.

        Raises:
            InvalidRequest: It is neither, is of another gateway, or is not enough to find the task.
            SessionError: The session is not running.
        """
        reference = find_reference(self._engine.gateway, task_id)
        self._engine.ensure_running()
        known = self._engine.poll_loop.find(reference.task_id)
        if known is None:
            now = self._engine.clock.time()
            known = TaskRecord(reference.task_id, now, reference=None if reference.is_plain else reference)
        return GenerationTask(self._engine, known)

    async def generate_many(self, requests: Requests, *, fail_fast: bool = False) -> AsyncGenerator[Outcome, None]:
        """Generate many images. Read the requests lazily and yield outcomes in order of completion.

        A failed or invalid request is an outcome with an `error`; it does not stop the others. Leaving the iterator
        early (``aclose``, or ``contextlib.aclosing`` around it) cancels the requests that were not submitted. Accepted
        tasks keep running; an `Abandoned` event reports the ID of each.

        Args:
            requests: An iterable or async iterable of prompts, mappings or requests, of any length.
            fail_fast: Raise the error of the first failed outcome instead, and leave.

        Raises:
            SessionError: The session is not running, or ended meanwhile.
            Exception: The error that `requests` raised, after the outcomes of all requests read before it.
        """
        self._engine.ensure_running()
        batch = Batch(self._engine, requests)
        batch.start()
        try:
            while outcome := await batch.next():
                if outcome.error and fail_fast:
                    raise outcome.error
                yield outcome
        finally:
            batch.close()

    async def generate_all(self, requests: Requests) -> list[Outcome]:
        """Generate many images and return their outcomes in the order of the requests.

        Raises:
            SessionError: As in `generate_many`.
        """
        return sorted([outcome async for outcome in self.generate_many(requests)], key=lambda each: each.index)

    async def read(self, image: GeneratedImage) -> bytes:
        """Download an image into memory.

        Raises:
            DownloadFailed: The download failed, from a fresh URL too.
            SessionError: The session is not running.
        """
        self._engine.ensure_running()
        return await self._engine.downloader.read(image)

    @overload
    async def save(self, source: GeneratedImage, path: str | PathLike[str], *, durable: bool = False) -> Path: ...

    @overload
    async def save(self, source: Generation, path: str | PathLike[str], *, durable: bool = False) -> list[Path]: ...

    async def save(
        self, source: Generation | GeneratedImage, path: str | PathLike[str], *, durable: bool = False
    ) -> Path | list[Path]:
        """Download an image, or all images of a generation, into files. Existing files are replaced.

        Each file is verified before it takes its name. Its extension is adapted to the downloaded format: ``fox.jpg``
        becomes ``fox.png`` if the image is a PNG. A symbolic link is replaced, not followed. Devices, named pipes and
        sockets are refused before the download.

        Args:
            source: The image or the generation to save.
            path: The file, or an existing directory. Several images of one generation get ``-1``, ``-2``, … before the
                extension.
            durable: Flush each file to disk before it takes its name, so that a power failure leaves no empty file.

        Returns:
            The path of the image, or the list of paths of the generation's images.

        Raises:
            DownloadFailed: The download failed, from a fresh URL too, or the file cannot be written.
            SessionError: The session is not running.
        """
        self._engine.ensure_running()
        save = partial(self._engine.downloader.save, durable=durable)
        if isinstance(source, GeneratedImage):
            return await save(source, Path(path))
        places = range(1, len(source.images) + 1) if len(source.images) > 1 else (None,)
        return [await save(image, Path(path), place=place) for image, place in zip(source.images, places, strict=True)]

    @property
    def is_closed(self) -> bool:
        """True unless the session is running: before `start`, after `aclose`, and after a crash."""
        return not self._engine.is_running

    @property
    def outage(self) -> KontextError | None:
        """The error that stopped submitting; None while the session submits."""
        return self._engine.gate.error

    async def wait_for_recovery(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 # the clock is a port
        """Wait until requests can be submitted again after an outage.

        Args:
            timeout: Seconds; None waits without a limit.

        Returns:
            True if requests can be submitted; False if the timeout passed first.

        Raises:
            AuthenticationFailed: The gateway refuses the key; the session has stopped for good.
            SessionError: The session is not running, or ended meanwhile.
        """
        self._engine.ensure_running()
        recovered = await self._engine.gate.wait_for_recovery(deadline_of(self._engine.clock, timeout))
        self._engine.ensure_running()
        return recovered

    @property
    def settings(self) -> Settings:
        """The session's limits, timeouts, polling and retries."""
        return self._engine.settings

    def set_max_in_flight(self, count: int) -> None:
        """Change `Limits.max_in_flight` of the running session, for example when programs share one account.

        A higher number admits waiting requests at once. With a lower one, tasks in flight run to their end, and no
        request is submitted before fewer than `count` are left. What the account was found to sustain is kept.

        Args:
            count: The most unfinished tasks at once.

        Raises:
            ConfigurationError: The number is not an integer of at least 1; nothing has changed.
            SessionError: The session is not running.
        """
        self._engine.ensure_running()
        self._engine.set_max_in_flight(count)

    def statistics(self) -> SessionStatistics:
        """Return the current counts of queued, pending and finished tasks, and the amount spent."""
        return self._engine.statistics()

    @overload
    def subscribe(
        self, callback: Callable[[Event], object], /, *, task_id: str | None = None
    ) -> Callable[[], None]: ...

    @overload
    def subscribe(
        self, callback: Callable[[EventT], object], kind: type[EventT], /, *, task_id: str | None = None
    ) -> Callable[[], None]: ...

    @overload
    def subscribe(
        self,
        callback: Callable[[EventT | OtherT], object],
        kind: type[EventT],
        other: type[OtherT],
        /,
        *,
        task_id: str | None = None,
    ) -> Callable[[], None]: ...

    @overload
    def subscribe(
        self,
        callback: Callable[[Any], object],
        kind: type[Event],
        other: type[Event],
        third: type[Event],
        /,
        *kinds: type[Event],
        task_id: str | None = None,
    ) -> Callable[[], None]: ...

    def subscribe(
        self, callback: Callable[[Any], object], /, *kinds: type[Any], task_id: str | None = None
    ) -> Callable[[], None]:
        """Call `callback` with every event from now on, in order, on the session's loop. It must not block.

        A subscription listens and sends nothing: `GenerationTask.updates` also has its task polled more often.

        Args:
            callback: Is called with each event.
            kinds: The event classes to report, from `kontext_async.events`; none reports all of them.
            task_id: The task whose events to report; None reports those of all tasks.

        Returns:
            A function that ends the subscription.

        Raises:
            InvalidRequest: The task ID cannot be one.
        """
        task_id = None if task_id is None else check_task_id(task_id)
        return self._engine.hub.subscribe(callback, *kinds, task_id=task_id)

    def __repr__(self) -> str:
        state = "running" if self._engine.is_running else "not running"
        figures = self.statistics()
        gateway = self._engine.gateway.base_url
        return f"<KontextSession {gateway} {state}, {figures.in_flight} in flight, {figures.pending} pending>"

    def __del__(self) -> None:
        engine: Engine | None = getattr(self, "_engine", None)
        if engine and engine.is_running:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)


def _find_store(given: str | Store | None, settings: StoreSettings) -> Store | None:
    """Return the given store, or the one at a URL."""
    if not isinstance(given, str):
        return given
    from kontext_async.store.urls import store_from_url  # noqa: PLC0415 # it needs an extra, and takes its time

    return store_from_url(given, settings)

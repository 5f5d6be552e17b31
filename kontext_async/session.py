"""The session and its tasks: the classes that users hold. They join the parts of the engine and decide nothing else."""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from kontext_async.decisions.submission import Consequence, Interruption, consequence_of
from kontext_async.engine.batch import Batch
from kontext_async.engine.clock import LoopClock, cancel_at
from kontext_async.engine.engine import Engine
from kontext_async.engine.scheduler import Submission
from kontext_async.engine.task_record import TaskRecord
from kontext_async.errors import GatewayUnavailable, InvalidRequest, KontextError, SubmissionUncertain, TaskTimeout
from kontext_async.models import GeneratedImage, Generation, KontextRequest, TaskStatus
from kontext_async.protocol import check_task_id, read_created
from kontext_async.settings import Settings, find_api_key, find_base_url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from os import PathLike
    from types import TracebackType
    from typing import Self, TypeVar, Unpack

    import aiohttp

    from kontext_async.engine.batch import Requests
    from kontext_async.engine.clock import Clock
    from kontext_async.engine.submission_journal import SubmissionJournal
    from kontext_async.engine.task_record import Result
    from kontext_async.events import Event
    from kontext_async.models import Estimate, Outcome, RequestFields, RequestLike, SessionStatistics
    from kontext_async.settings import Limits, Network, Outages, Polling, Retries, Timeouts

    EventT = TypeVar("EventT", bound=Event)
    OtherT = TypeVar("OtherT", bound=Event)

__all__ = ["GenerationTask", "KontextSession"]


class KontextSession:
    """One connection pool, one scheduler and one poll loop, shared by any number of concurrent callers.

    Use it with ``async with``, or call `start` and `aclose` from any tasks of one event loop.

    Args:
        api_key: The API key; None reads ``KONTEXT_API_KEY``.
        base_url: The gateway's address; None reads ``KONTEXT_BASE_URL``, and falls back to the public gateway.
        settings: The settings as one bundle.
        limits: How much at once; replaces `settings.limits`.
        timeouts: Deadlines; replaces `settings.timeouts`.
        polling: When to poll; replaces `settings.polling`.
        retries: What to retry; replaces `settings.retries`.
        outages: When to stop submitting; replaces `settings.outages`.
        network: Proxies, and networks that image URLs may lead to; replaces `settings.network`.
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
        settings: Settings = Settings(),  # noqa: B008 # frozen
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        polling: Polling | None = None,
        retries: Retries | None = None,
        outages: Outages | None = None,
        network: Network | None = None,
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
        )
        self._base_url = find_base_url(base_url)
        self._engine = Engine(find_api_key(api_key), self._base_url, settings, http, clock or LoopClock())

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
        **fields: Unpack[RequestFields],
    ) -> Generation:
        """Generate or edit one image: submit the request and wait until its task completes.

        Args:
            request: A prompt, a mapping of field names, or a `KontextRequest`.
            timeout: Seconds for the whole call. None waits for a slot without a limit, and for the task as long as
                `Timeouts.wait` allows.
            fields: Fields that override those of `request`: `input_images`, `seed`, `aspect_ratio`, `output_format`,
                `prompt_upsampling`, `safety_tolerance`, `model`. See `KontextRequest`.

        Raises:
            InvalidRequest: A field is invalid; nothing was sent.
            GatewayError: The gateway refused, was unreachable, or no slot became free within `timeout`.
            SubmissionUncertain: The gateway may have accepted the request.
            TaskFailed: The task ended without an image.
            TaskTimeout: The task is not finished. It keeps running; resume it with `attach`.
            SessionError: The session is not running.
        """
        submission = Submission(KontextRequest.of(request, **fields))
        clock = self._engine.clock
        began = clock.time()
        with cancel_at(clock, _deadline(clock, timeout)):
            task = await self._submit(submission)
            return await task._wait_or_abandon()  # noqa: SLF001 # defined below
        return _resolve_deadline(submission, clock.time() - began)

    async def submit(
        self, request: RequestLike, *, journal: SubmissionJournal | None = None, **fields: Unpack[RequestFields]
    ) -> GenerationTask:
        """Submit a request and return its task once the gateway has accepted it.

        Args:
            request: A prompt, a mapping of field names, or a `KontextRequest`.
            journal: Records each step of the submission before the next one is taken.
            fields: Fields that override those of `request`, as in `generate`.

        Raises:
            KontextError: As in `generate`, except for the errors of the wait.
        """
        return await self._submit(Submission(KontextRequest.of(request, **fields), journal))

    async def _submit(self, submission: Submission) -> GenerationTask:
        self._engine.ensure_running()
        record = await self._engine.scheduler.submit(submission)
        return GenerationTask(self._engine, record, submission.accept_body)

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

    def attach(self, task_id: str) -> GenerationTask:
        """Resume a task that was submitted earlier, by this session or elsewhere. Sends nothing yet.

        Raises:
            InvalidRequest: The ID is not a task ID.
            SessionError: The session is not running.
        """
        checked = check_task_id(task_id)
        self._engine.ensure_running()
        known = self._engine.poll_loop.find(checked)
        return GenerationTask(self._engine, known or TaskRecord(checked, self._engine.clock.time()))

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
        recovered = await self._engine.gate.wait_for_recovery(_deadline(self._engine.clock, timeout))
        self._engine.ensure_running()
        return recovered

    @property
    def settings(self) -> Settings:
        """The session's limits, timeouts, polling and retries."""
        return self._engine.settings

    def statistics(self) -> SessionStatistics:
        """Return the current counts of queued, pending and finished tasks, and the amount spent."""
        return self._engine.statistics()

    @overload
    def subscribe(self, callback: Callable[[Event], object], /) -> Callable[[], None]: ...

    @overload
    def subscribe(self, callback: Callable[[EventT], object], kind: type[EventT], /) -> Callable[[], None]: ...

    @overload
    def subscribe(
        self, callback: Callable[[EventT | OtherT], object], kind: type[EventT], other: type[OtherT], /
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
    ) -> Callable[[], None]: ...

    def subscribe(self, callback: Callable[[Any], object], /, *kinds: type[Any]) -> Callable[[], None]:
        """Call `callback` with every event from now on, in order, on the session's loop. It must not block.

        Args:
            callback: Is called with each event.
            kinds: The event classes to report, from `kontext_async.events`; none reports all of them.

        Returns:
            A function that ends the subscription.
        """
        return self._engine.hub.subscribe(callback, *kinds)

    def __repr__(self) -> str:
        state = "running" if self._engine.is_running else "not running"
        figures = self.statistics()
        return f"<KontextSession {self._base_url} {state}, {figures.in_flight} in flight, {figures.pending} pending>"

    def __del__(self) -> None:
        engine: Engine | None = getattr(self, "_engine", None)
        if engine and engine.is_running:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)


class GenerationTask:
    """An accepted task, to await now or later. Made by `KontextSession.submit` and `KontextSession.attach`."""

    __slots__ = ("__weakref__", "_accept_body", "_engine", "_record")

    def __init__(self, engine: Engine, record: TaskRecord, accept_body: bytes | None = None) -> None:
        self._engine = engine
        self._record = record
        # Kept as bytes and parsed on demand: a hundred thousand handles may exist, and few are asked for their status.
        self._accept_body = accept_body
        record.retain_status()

    @property
    def id(self) -> str:
        """The task ID. Pass it to `KontextSession.attach` to resume the task anywhere."""
        return self._record.task_id

    @property
    def request(self) -> KontextRequest | None:
        """The request; None if the task was attached."""
        return self._record.request

    @property
    def last_status(self) -> TaskStatus | None:
        """The last known status; None before the first response. Sends nothing."""
        return _last_status(self._record, self._accept_body)

    async def wait(self, timeout: float | None = None) -> Generation:  # noqa: ASYNC109 # the clock is a port
        """Wait until the task completes. Several callers may wait for one task; cancelling one affects no other.

        Args:
            timeout: Seconds; None is `Timeouts.wait` from when the task was accepted or attached.

        Raises:
            TaskFailed: The task ended without an image.
            TaskNotFound: The gateway does not know the task.
            TaskTimeout: The task is not finished; it keeps running.
            GatewayError: The gateway refuses the key, or status requests have failed for too long.
            SessionError: The session is not running.
        """
        self._ensure_running()
        clock = self._engine.clock
        began = clock.time()
        timeouts = self._engine.settings.timeouts
        # a wait that begins late still gets the time of one poll
        longest = max(self._record.since + timeouts.wait, began + min(timeouts.wait, timeouts.status))
        deadline = longest if timeout is None else _deadline(clock, timeout)
        result: Result | None = None
        with cancel_at(clock, deadline):
            result = await self._result()
        if result is None:  # it may still have come in the moment of the deadline
            waited = clock.time() - began
            result = self._record.copy_result() or TaskTimeout(
                task_id=self.id, waited=waited, last_status=self.last_status
            )
        return _unwrap(result)

    async def status(self) -> TaskStatus:
        """Poll the task once, now: ahead of the schedule, but within the session's limits on status requests.

        Raises:
            TaskNotFound: The gateway does not know the task.
            GatewayError: The poll failed; it is not repeated.
            SessionError: The session is not running.
        """
        self._ensure_running()
        return await self._engine.poll_loop.poll_now(self._record)

    async def updates(self) -> AsyncGenerator[TaskStatus, None]:
        """Yield the task's status whenever it changes; end with the terminal status.

        A slow consumer gets the latest status and misses those between.

        Raises:
            KontextError: As in `wait`, except that a failed task is a status here.
        """
        self._ensure_running()
        shown: TaskStatus | None = None
        self._track()
        while True:
            status = self.last_status
            if status is not None and status != shown:
                shown = status
                yield status
                continue
            if self._record.result is not None:
                return
            self._ensure_running()
            self._track()  # a poll that failed while nobody listened is repeated
            if error := await self._record.wait_for_change():
                if self._record.result is None:
                    raise error
                return

    def __repr__(self) -> str:
        status = self.last_status
        return f"<GenerationTask {self.id} {status.raw_status if status else 'not polled yet'}>"

    def _ensure_running(self) -> None:
        """Raise unless the session is running. The error names this task, which keeps running on the gateway."""
        try:
            self._engine.ensure_running()
        except KontextError as error:
            raise error.with_task(self.id, may_be_charged=True) from error.__cause__

    async def _result(self) -> Result:
        self._track()
        return self._record.copy_result() or await self._record.wait()

    async def _wait_or_abandon(self) -> Generation:
        """Wait as `wait` does, for the only caller that knows of this task."""
        try:
            return await self.wait()
        except BaseException:
            self._engine.poll_loop.abandon(self._record, "the caller stopped waiting")
            raise

    def _track(self) -> None:
        """Have the poll loop poll the task: at once, unless it does so already."""
        if self._record.result is None:
            self._record = self._engine.poll_loop.track(self._record, at_once=True)
            self._record.retain_status()


def _unwrap(result: Result) -> Generation:
    if isinstance(result, KontextError):
        raise result
    return result


def _last_status(record: TaskRecord, accept_body: bytes | None) -> TaskStatus | None:
    """Return the last known status: before the first poll, that of the response that accepted the task."""
    return record.status or (None if accept_body is None else read_created(accept_body))


def _deadline(clock: Clock, timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise InvalidRequest("timeout", timeout, "it must be a finite number of seconds above 0")
    return clock.time() + timeout


def _resolve_deadline(submission: Submission, waited: float) -> Generation:
    """Return the result that came in the moment of the deadline, or raise what the deadline means."""
    task = submission.task
    if task and (result := task.copy_result()):
        return _unwrap(result)
    consequence = consequence_of(submission.phase, Interruption.DEADLINE)
    if consequence is Consequence.TASK_TIMEOUT and task:
        last = _last_status(task, submission.accept_body)
        raise TaskTimeout(task_id=task.task_id, waited=waited, last_status=last)
    if consequence is Consequence.UNCERTAIN:
        raise SubmissionUncertain(
            request=submission.request,
            fingerprint=submission.fingerprint or "",
            seen=f"no response within {waited:.1f} s",
        )
    raise GatewayUnavailable(f"not submitted within {waited:.1f} s: nothing was sent, or the gateway refused")

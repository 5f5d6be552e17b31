"""The session and its tasks: what users hold in their hands. It only joins the parts of the engine."""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, overload

from kontext_async.engine.batch import Batch
from kontext_async.engine.clock import LoopClock, cancelled_at
from kontext_async.engine.pending import Pending
from kontext_async.engine.scheduler import Submission
from kontext_async.engine.service import Service
from kontext_async.errors import (
    GatewayUnavailable,
    InvalidRequest,
    KontextError,
    SubmissionUncertain,
    TaskTimeout,
)
from kontext_async.models import GeneratedImage, Generation, KontextRequest, OutputFormat, TaskStatus
from kontext_async.protocol import check_task_id, read_created
from kontext_async.settings import Settings, api_key_from, base_url_from

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from os import PathLike
    from types import TracebackType
    from typing import Self, Unpack

    import aiohttp

    from kontext_async.engine.batch import Requests
    from kontext_async.engine.clock import Clock
    from kontext_async.engine.journaling import SubmissionJournal
    from kontext_async.engine.pending import Result
    from kontext_async.events import Event
    from kontext_async.images import ImageSource
    from kontext_async.models import Estimate, Outcome, RequestLike, SessionStatistics

__all__ = ["GenerationTask", "KontextSession", "RequestFields"]


class RequestFields(TypedDict, total=False):
    """The fields of `KontextRequest` beside the prompt, as keyword arguments."""

    input_images: ImageSource | Iterable[ImageSource]
    seed: int | None
    aspect_ratio: str | None
    output_format: OutputFormat | None
    prompt_upsampling: bool | None
    safety_tolerance: int | None
    model: str


class KontextSession:
    """A connection pool, a scheduler and one poll loop, for as many concurrent users as there are.

    Use it with ``async with``, or with `start` and `aclose` from any tasks of one event loop.

    Args:
        api_key: The key; None takes it from ``KONTEXT_API_KEY``.
        base_url: The gateway's address; None takes it from ``KONTEXT_BASE_URL``, or else the public gateway's.
        settings: Limits, timeouts, polling and retries.
        http: Your own `aiohttp.ClientSession`, which is then used for everything and not closed. Give its connector a
            ``keepalive_timeout`` of a few seconds: a create on a connection that the server has just closed is one of
            which nobody knows whether it was accepted.
        clock: The clock that the session's decisions go by; tests may pass one that they turn by hand.

    Raises:
        ConfigurationError: There is no key, or the URL cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        settings: Settings = Settings(),  # noqa: B008 # frozen
        http: aiohttp.ClientSession | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._base_url = base_url_from(base_url)
        self._service = Service(api_key_from(api_key), self._base_url, settings, http, clock or LoopClock())

    async def start(self) -> Self:
        """Open the session, for `aclose` to close it.

        Raises:
            SessionClosed: It was started before.
            ConfigurationError: The `http` that was passed in cannot be used.
        """
        await self._service.start()
        return self

    async def aclose(self) -> None:
        """Close the session. Whoever still waits gets `SessionClosed` with the id of the task, which goes on.

        A create that is on the wire is waited for, `Timeouts.cancel` seconds at most. May be called more than once.
        """
        await self._service.aclose()

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
        """Make one picture: submit the request, and wait until it is finished.

        Args:
            request: A prompt, a mapping of fields, or a `KontextRequest`.
            timeout: Seconds for the whole; None leaves the wait for a slot unbounded, and `Timeouts.wait` for the rest.
            fields: Fields of the request, on top of `request`.

        Raises:
            InvalidRequest: Of a field; nothing was sent.
            GatewayError: The gateway refused, or could not be reached, or no slot was free within `timeout`.
            SubmissionUncertain: Nobody knows whether it was accepted.
            TaskFailed: The task ended without a picture.
            TaskTimeout: It was not finished in time; it goes on, and `attach` takes it up.
            SessionClosed: The session is not running.
        """
        made = KontextRequest.of(request, **fields)
        self._service.check()
        clock = self._service.clock
        began = clock.time()
        submission = Submission(made)
        with cancelled_at(clock, _deadline(clock, timeout)):
            task = GenerationTask(self._service, await self._service.scheduler.submit(submission), submission.answer)
            return await task._wait_or_abandon()  # noqa: SLF001 # its own kind
        if submission.task and (result := submission.task.own_result()):  # it came in the moment of the deadline
            return _generation(result)
        raise _out_of_time(submission, clock.time() - began)

    async def submit(
        self, request: RequestLike, *, journal: SubmissionJournal | None = None, **fields: Unpack[RequestFields]
    ) -> GenerationTask:
        """Submit a request; returns when the gateway has accepted it.

        Args:
            request: A prompt, a mapping of fields, or a `KontextRequest`.
            journal: What is told of each step before the next one is taken, to keep a durable account of it.
            fields: Fields of the request, on top of `request`.

        Raises:
            KontextError: As `generate`, but for what concerns the wait.
        """
        made = KontextRequest.of(request, **fields)
        self._service.check()
        submission = Submission(made, journal)
        return GenerationTask(self._service, await self._service.scheduler.submit(submission), submission.answer)

    async def estimate(self, request: RequestLike, **fields: Unpack[RequestFields]) -> Estimate:
        """Ask what a request would cost. Nothing is made, and nothing is paid.

        Raises:
            InvalidRequest: Of a field; nothing was sent.
            GatewayError: The gateway refused, or could not be reached, or its answer cannot be read.
            SessionClosed: The session is not running.
        """
        made = KontextRequest.of(request, **fields)
        self._service.check()
        return await self._service.pricer.estimate(made)

    def attach(self, task_id: str) -> GenerationTask:
        """Take up a task that was submitted earlier, here or elsewhere. Nothing is sent yet.

        Raises:
            InvalidRequest: It cannot be the id of a task.
            SessionClosed: The session is not running.
        """
        checked = check_task_id(task_id)
        self._service.check()
        known = self._service.poll_loop.find(checked)
        return GenerationTask(self._service, known or Pending(checked, self._service.clock.time()))

    async def generate_many(self, requests: Requests, *, fail_fast: bool = False) -> AsyncGenerator[Outcome, None]:
        """Make many pictures. Requests are read as they are needed; outcomes come in order of completion.

        A request that fails, even one that cannot be made, is an outcome with an `error`, and stops nothing. Leaving
        the iterator early (``aclose``, or ``contextlib.aclosing`` around it) cancels what was not submitted; what was
        accepted goes on, and its id goes out as an `Abandoned` event.

        Args:
            requests: An iterable or async iterable of prompts, mappings or requests, of any length.
            fail_fast: Raise the first failed outcome's error instead, and leave.

        Raises:
            SessionClosed: The session is not running, or was closed.
            Exception: What `requests` raised, after the outcomes of everything that had been read from it.
        """
        self._service.check()
        batch = Batch(self._service, requests)
        batch.start()
        try:
            while outcome := await batch.next():
                if outcome.error and fail_fast:
                    raise outcome.error
                yield outcome
        finally:
            batch.close()

    async def generate_all(self, requests: Requests) -> list[Outcome]:
        """Make many pictures, and return their outcomes in the order of the requests.

        Raises:
            SessionClosed: As `generate_many`.
        """
        return sorted([outcome async for outcome in self.generate_many(requests)], key=lambda each: each.index)

    async def read(self, image: GeneratedImage) -> bytes:
        """Download a picture into memory.

        Raises:
            DownloadFailed: It could not be fetched, not even from a fresh URL.
            SessionClosed: The session is not running.
        """
        self._service.check()
        return await self._service.downloader.read(image)

    @overload
    async def save(self, picture: GeneratedImage, path: str | PathLike[str], *, durable: bool = False) -> Path: ...

    @overload
    async def save(
        self, picture: Generation, path: str | PathLike[str], *, durable: bool = False
    ) -> Path | list[Path]: ...

    async def save(
        self, picture: Generation | GeneratedImage, path: str | PathLike[str], *, durable: bool = False
    ) -> Path | list[Path]:
        """Download a picture, or all pictures of a generation, into files. A file that is there is replaced.

        The pictures are verified before they take their place. The extension is made to fit what came: ``fox.jpg``
        becomes ``fox.png`` when a PNG came.

        Args:
            picture: What to save.
            path: The file, or a directory that exists. Several pictures of one generation get ``-1``, ``-2``, … before
                the extension.
            durable: Have the bytes on the disk before the file takes its name, so that no power failure leaves a file
                without them.

        Returns:
            Where it is, or where they are when there are several.

        Raises:
            DownloadFailed: It could not be fetched, not even from a fresh URL, or not be written.
            SessionClosed: The session is not running.
        """
        self._service.check()
        target = Path(path)
        images = picture.images if isinstance(picture, Generation) else (picture,)
        save = partial(self._service.downloader.save, durable=durable)
        if len(images) == 1:
            return await save(images[0], target)
        return [await save(image, _numbered(target, image, place)) for place, image in enumerate(images, start=1)]

    def check(self) -> None:
        """Whether the session can be used here and now.

        Raises:
            SessionClosed: It was never started, is closed, has crashed, or belongs to another loop.
        """
        self._service.check()

    @property
    def settings(self) -> Settings:
        """The limits, timeouts, polling and retries that the session goes by."""
        return self._service.settings

    def statistics(self) -> SessionStatistics:
        """What is queued, in flight, pending, done and paid at this moment."""
        return self._service.statistics()

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call `callback` with every event from now on, in order, on the session's loop; it must not block.

        Returns:
            A function that ends the subscription.
        """
        return self._service.hub.subscribe(callback)

    def __repr__(self) -> str:
        state = "running" if self._service.running else "not running"
        figures = self.statistics()
        return f"<KontextSession {self._base_url} {state}, {figures.in_flight} in flight, {figures.pending} pending>"

    def __del__(self) -> None:
        service: Service | None = getattr(self, "_service", None)
        if service and service.running:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)


class GenerationTask:
    """An accepted task, to be waited for now or later. Made by `KontextSession.submit` and `KontextSession.attach`."""

    __slots__ = ("__weakref__", "_accepted", "_pending", "_service")

    def __init__(self, service: Service, pending: Pending, accepted: bytes | None = None) -> None:
        self._service = service
        self._pending = pending
        self._accepted = accepted
        pending.hold()

    @property
    def id(self) -> str:
        """The task's id, with which `KontextSession.attach` takes it up anywhere."""
        return self._pending.task_id

    @property
    def request(self) -> KontextRequest | None:
        """What was asked for; None when the task was attached."""
        return self._pending.request

    @property
    def last_status(self) -> TaskStatus | None:
        """What the gateway said last, None before the first answer. Nothing is sent."""
        return _last_status(self._pending, self._accepted)

    async def wait(self, timeout: float | None = None) -> Generation:  # noqa: ASYNC109 # the clock is a port
        """Wait until the task is finished. Several may wait for one task; each may be cancelled by itself.

        Args:
            timeout: Seconds; None is `Timeouts.wait` from when the task was accepted or attached.

        Raises:
            TaskFailed: It ended without a picture.
            TaskNotFound: The gateway does not know it.
            TaskTimeout: It is not finished yet; it goes on.
            GatewayError: The key is refused, or status requests have failed for too long.
            SessionClosed: The session is not running.
        """
        self._check()
        clock = self._service.clock
        began = clock.time()
        timeouts = self._service.settings.timeouts
        longest = max(self._pending.since + timeouts.wait, began + timeouts.status)
        deadline = longest if timeout is None else _deadline(clock, timeout)
        with cancelled_at(clock, deadline):
            return _generation(await self._settled())
        if result := self._pending.own_result():  # it came in the very moment of the deadline
            return _generation(result)
        raise TaskTimeout(task_id=self.id, waited=clock.time() - began, last_status=self.last_status)

    async def status(self) -> TaskStatus:
        """Ask once, now: before all that is due, but within the session's bounds on status requests.

        Raises:
            TaskNotFound: The gateway does not know the task.
            GatewayError: What else the answer means; it is not asked again.
            SessionClosed: The session is not running.
        """
        self._check()
        return await self._service.poll_loop.ask_now(self._pending)

    async def updates(self) -> AsyncGenerator[TaskStatus, None]:
        """What the gateway says of the task, whenever it says something new; ends with the terminal status.

        A slow consumer gets the latest and misses those between.

        Raises:
            KontextError: As `wait`, but a failed task is a status here.
        """
        self._check()
        shown: TaskStatus | None = None
        self._follow()
        while True:
            status = self.last_status
            if status is not None and status != shown:
                shown = status
                yield status
                continue
            if self._pending.result is not None:
                return
            self._check()
            self._follow()  # what failed while nobody listened is asked about again
            if error := await self._pending.changed():
                if self._pending.result is None:
                    raise error
                return

    def __repr__(self) -> str:
        status = self.last_status
        return f"<GenerationTask {self.id} {status.word if status else 'not asked yet'}>"

    def _check(self) -> None:
        """Whether the session can be used; if not, the error names this task, which goes on all the same."""
        try:
            self._service.check()
        except KontextError as error:
            raise error.about(self.id, may_be_charged=True) from error.__cause__

    async def _settled(self) -> Result:
        self._follow()
        return self._pending.own_result() or await self._pending.settled()

    async def _wait_or_abandon(self) -> Generation:
        """Wait as `wait` does, as the only one who knows of this task."""
        try:
            return await self.wait()
        except BaseException:
            self._service.poll_loop.abandon(self._pending, "its caller has gone")
            raise

    def _follow(self) -> None:
        """Have the poll loop ask about it: at once, unless it does so already."""
        if self._pending.result is None:
            self._pending = self._service.poll_loop.follow(self._pending, at_once=True)
            self._pending.hold()


def _generation(result: Result) -> Generation:
    if isinstance(result, KontextError):
        raise result
    return result


def _last_status(task: Pending, accepted: bytes | None) -> TaskStatus | None:
    """What the gateway said last: of what was only accepted so far, in the answer that accepted it."""
    return task.status or (None if accepted is None else read_created(accepted))


def _deadline(clock: Clock, timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise InvalidRequest("timeout", timeout, "it must be a finite number of seconds above 0")
    return clock.time() + timeout


def _out_of_time(submission: Submission, waited: float) -> KontextError:
    """What a `timeout` of `generate` means: it depends on how far the request had come."""
    if submission.task:
        last = _last_status(submission.task, submission.answer)
        return TaskTimeout(task_id=submission.task.task_id, waited=waited, last_status=last)
    if submission.sending:
        return SubmissionUncertain(
            request=submission.request,
            fingerprint=submission.fingerprint or "",
            seen=f"no answer within {waited:.1f} s",
        )
    return GatewayUnavailable(f"it was not submitted within {waited:.1f} s: nothing was sent, or it was refused")


def _numbered(path: Path, image: GeneratedImage, place: int) -> Path:
    if path.is_dir():
        return path / f"{image.task_id or 'picture'}-{place}"
    return path.with_name(f"{path.stem}-{place}{path.suffix}")

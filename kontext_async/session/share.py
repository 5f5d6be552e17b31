"""A share of a session: the methods that send requests. A session is its own default share."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

from attrs import evolve

from kontext_async.engine.batch import Batch
from kontext_async.engine.clock import cancel_at
from kontext_async.engine.image_stream import ImageStream
from kontext_async.engine.task_record import TaskRecord
from kontext_async.errors import InvalidRequest
from kontext_async.gateways import find_reference
from kontext_async.models import GeneratedImage, Generation, KontextRequest, RequestFields
from kontext_async.session.call import Call, CallOptions
from kontext_async.session.task import GenerationTask, deadline_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from os import PathLike
    from typing import Any, Unpack

    from kontext_async.decisions.shares import Queueing
    from kontext_async.engine.batch import Requests
    from kontext_async.engine.engine import Engine
    from kontext_async.engine.submission_journal import SubmissionJournal
    from kontext_async.gateways import Reference
    from kontext_async.models import Estimate, Outcome, RequestLike
    from kontext_async.settings import Settings

__all__ = ["Share", "check_max_cost", "check_priority", "check_weight"]

HIGHEST_PRIORITY = 10
"""Classes are few: each one has a queue of its own."""


class Share:
    """A party among whom a session divides its slots. Made by `KontextSession.share`.

    All shares of a session use one connection pool and one poll loop. A share costs nothing until it has requests, and
    nothing once it has none: make one wherever you need it, and let it go.
    """

    def __init__(self, engine: Engine, queueing: Queueing, owner: object = None) -> None:
        self._engine = engine
        self._queueing = queueing
        self._owner = owner  # the session must live as long as somebody may use it

    @property
    def name(self) -> str | None:
        """The name of the share; None for the session itself."""
        return self._queueing.share.name

    def _patient(self) -> Share:
        """Return this share for a sender that bounds its own requests: the limits on the queue do not concern them."""
        return Share(self._engine, evolve(self._queueing, is_patient=True), self._owner)

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
                `prompt_upsampling`, `safety_tolerance`, `model` (see `KontextRequest`). `webhook` replaces that of the
                session; None sends none. With a store also `key`, the
                name of this request in the store, which is paid for once: every caller with the same key gets the same
                image; `run`, the name of the run in which the key is unique; `resend_uncertain=True`, which sends a
                request again that may have been accepted, and may be billed twice; `retry_failed=True`, which sends a
                failed or expired request again.
                `queue_timeout`: seconds to wait for a slot at most; None waits as long as `timeout` allows.
                `abandoned`: an awaitable that completes when the caller has left, such as ``event.wait()``. A request
                that waits for a slot is then not sent; a task that runs keeps running.

        Raises:
            InvalidRequest: A field is invalid, or the key was used for another request; nothing was sent.
            ConfigurationError: There is a key and no store, the key belongs to another gateway or account, or the
                gateway does not take the webhook; nothing was sent.
            Overloaded: Too many requests wait already (`Limits.max_queued`), no slot became free within
                `queue_timeout`, or the session drains; nothing was sent.
            CostLimitReached: `max_cost` of the session or of the share is spent or in flight; nothing was sent.
            CostUnknown: There is a `max_cost`, and the gateway does not report what images cost; nothing was sent.
            CallerLeft: `abandoned` completed first.
            GatewayError: The gateway refused, was unreachable, or no slot became free within `timeout`.
            SubmissionUncertain: The gateway may have accepted the request.
            TaskFailed: The task ended without an image.
            TaskTimeout: The task is not finished. It keeps running; resume it with `attach`.
            StoreUnavailable: The store could not be written; nothing was sent.
            SessionError: The session is not running.
        """
        call = Call(self._engine, request, options, self._queueing)
        clock = self._engine.clock
        began = clock.time()
        with call, cancel_at(clock, deadline_of(clock, timeout)):
            task = GenerationTask(self._engine, await call.submit(), call.accept_body)
            return await task._wait_or_abandon()  # noqa: SLF001 # defined below
        return await call.resolve_deadline(clock.time() - began)

    async def submit(
        self, request: RequestLike, *, journal: SubmissionJournal | None = None, **options: Unpack[CallOptions]
    ) -> GenerationTask:
        """Submit a request and return its task once the gateway has accepted it.

        Args:
            request: A prompt, a mapping of field names, or a `KontextRequest`.
            journal: Records each step of the submission before the next one is taken, instead of the session's store.
            options: As in `generate`.

        Raises:
            KontextError: As in `generate`, except for the errors of the wait.
        """
        call = Call(self._engine, request, options, self._queueing, journal)
        with call:
            record = await call.submit()
        return GenerationTask(self._engine, record, call.accept_body)

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

        Up to two requests for each slot of `Limits.max_in_flight` are read ahead, so that memory stays bounded. Where
        the gateway limits some models apart, run one batch for each of these limits: requests of a full one would fill
        what is read ahead.

        Args:
            requests: An iterable or async iterable of prompts, mappings or requests, of any length.
            fail_fast: Raise the error of the first failed outcome instead, and leave.

        Raises:
            SessionError: The session is not running, or ended meanwhile.
            Exception: The error that `requests` raised, after the outcomes of all requests read before it.
        """
        self._engine.ensure_running()
        batch = Batch(self._engine, requests, self._queueing)
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
            SessionError: The session is not running; with the ID of the task, whose image is paid for.
        """
        self._engine.ensure_running_for_image(image)
        return await self._engine.downloader.read(image)

    def stream(self, image: GeneratedImage) -> ImageStream:
        """Download an image in pieces, to pass it on without storing it.

        Use it with ``async with session.stream(image) as pieces``, and iterate over `pieces` there.

        Raises:
            DownloadFailed: On entering: no byte was received. In the iteration: the transfer could not be continued.
            SessionError: The session is not running, or ended meanwhile; with the ID of the task.
        """
        return ImageStream(image, self._engine.downloader.receive, self._engine)

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
            SessionError: The session is not running; with the ID of the task, whose image is paid for.
        """
        save = partial(self._engine.downloader.save, durable=durable)
        if isinstance(source, GeneratedImage):
            self._engine.ensure_running_for_image(source)
            return await save(source, Path(path))
        self._engine.ensure_running_for_image(source.image)
        places = range(1, len(source.images) + 1) if len(source.images) > 1 else (None,)
        return [await save(image, Path(path), place=place) for image, place in zip(source.images, places, strict=True)]

    @property
    def settings(self) -> Settings:
        """The session's limits, timeouts, polling and retries."""
        return self._engine.settings

    def __repr__(self) -> str:
        share = self._queueing.share
        return f"<Share {share.name!r}, weight {share.weight:g}, priority {share.priority}>"


def check_weight(weight: Any) -> float:
    """Return the weight of a share.

    Raises:
        InvalidRequest: It is not a finite number above 0.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise InvalidRequest("weight", weight, "it must be a finite number above 0")
    return float(weight)


def check_max_cost(max_cost: Any) -> Decimal | None:
    """Return a cost limit.

    Raises:
        InvalidRequest: It is not a finite Decimal above 0.
    """
    if max_cost is not None and not (isinstance(max_cost, Decimal) and max_cost.is_finite() and max_cost > 0):
        raise InvalidRequest("max_cost", max_cost, "it must be a Decimal of USD above 0, or None")
    return max_cost


def check_priority(priority: Any) -> int:
    """Return the class of a share.

    Raises:
        InvalidRequest: It is not one of the allowed integers.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > HIGHEST_PRIORITY:
        rule = f"it must be an integer from {-HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}"
        raise InvalidRequest("priority", priority, rule)
    return priority

"""The state that the handlers of one emulator share: its world, its ledger, its random numbers and its time."""

from __future__ import annotations

import asyncio
import random
from http import HTTPStatus
from itertools import repeat
from typing import TYPE_CHECKING

import anyio
from attrs import define, field, frozen

from kontext_async.emulator import task_json
from kontext_async.emulator.painting.input_images import InputImage
from kontext_async.emulator.painting.painter import Brief, compute_sides
from kontext_async.emulator.world import PlannedOutcome, Refusal, Task, World

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator, Mapping

    from kontext_async.emulator.fault_kinds import ErrorShape, Operation
    from kontext_async.emulator.faults import Fault, Faults
    from kontext_async.emulator.ledger import Ledger
    from kontext_async.emulator.painting.image_cache import ImageCache
    from kontext_async.emulator.service_times import ServiceTime
    from kontext_async.emulator.signed_urls import UrlSigner
    from kontext_async.emulator.validation import CreateRequest
    from kontext_async.emulator.world import Account

REQUEST_ID_BITS = 64


class ShuttingDown(Exception):
    """The emulator is closing, which ends every wait."""


@frozen(kw_only=True)
class RequestRecord:
    """A request that arrived.

    Attributes:
        method: Its method.
        path: Its path, without the query.
        headers: Its headers; names in any case.
        origin: `api`, or `files` for the result URLs' origin and its mirror.
        at: The time of its arrival, unix seconds.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    origin: str
    at: float


class RandomStreams:
    """Independent streams of random numbers from one seed, so that faults do not shift service times."""

    def __init__(self, seed: int) -> None:
        self.times, self.faults, self.ids = (
            random.Random(f"{seed} {name}")  # noqa: S311 - no cryptography
            for name in ("times", "faults", "ids")
        )


@define(kw_only=True, eq=False)
class GatewayState:
    """The shared state. The handlers read it, and `Emulator` fills it in.

    The attributes that are not described here are `Emulator`'s arguments of that name.

    Attributes:
        url_signer: Signs the result URLs.
        image_cache: Paints and keeps the images.
        random_streams: All random numbers.
        shapes: The shapes of the error bodies, in turn.
        requests: The latest requests.
        base_url: The API's origin, once started.
        regions: The origins of the regions, once started.
        region_turns: The regions that the base URL leads to, in turn.
        start_delivery: Begins to deliver the webhook of a task, if it has one.
        mirror_url: The other origin that faults redirect to, once started.
        closing: Set when the emulator begins to close.
        inputs: Input images by themselves, so that equal ones are kept once.
    """

    clock: Callable[[], float]
    api_key: str | None = field(repr=False)
    world: World
    ledger: Ledger
    faults: Faults
    url_signer: UrlSigner
    image_cache: ImageCache
    random_streams: RandomStreams
    service_time: ServiceTime
    shapes: Iterator[ErrorShape]
    progress_noise: float | None
    sync_wait: float
    stream_keepalive: float
    expired_status: int
    pixels: int
    currency: str
    requests: deque[RequestRecord]
    cost_at: str
    renews_urls: bool
    webhook_forms: tuple[str, ...]
    base_url: str = ""
    regions: tuple[str, ...] = ()
    region_turns: Iterator[int] = field(factory=lambda: repeat(0))
    start_delivery: Callable[[Task], None] = field(default=lambda _: None)
    mirror_url: str = ""
    closing: asyncio.Event = field(factory=asyncio.Event)
    inputs: dict[InputImage, InputImage] = field(factory=dict)

    def draw_fault(self, operation: Operation) -> Fault | None:
        """Draw the fault of the next request of `operation`."""
        return self.faults.draw(operation, self.random_streams.faults)

    def create_request_id(self) -> str:
        """Return a new request ID."""
        return f"{self.random_streams.ids.getrandbits(REQUEST_ID_BITS):016x}"

    async def pause(self, seconds: float) -> None:
        """Wait for that many seconds.

        Raises:
            ShuttingDown: The emulator is closing.
        """
        with anyio.move_on_after(seconds):
            await self.closing.wait()
        if self.closing.is_set():
            raise ShuttingDown

    def authenticate(self, key: str) -> Account | Refusal:
        """Return the account of a key, and count one request of that account. An empty key is none."""
        if not key:
            return Refusal(status=HTTPStatus.UNAUTHORIZED, code="UNAUTHORIZED", message="the API key is missing")
        if self.api_key is not None and key != self.api_key:
            return Refusal(status=HTTPStatus.UNAUTHORIZED, code="UNAUTHORIZED", message="the API key is invalid")
        now = self.clock()
        account = self.world.get_account(key, now)
        return self.world.throttle(account, now) or account

    def accept(
        self,
        account: Account,
        request: CreateRequest,
        outcome: PlannedOutcome,
        *,
        region: int = 0,
        has_uuid: bool = False,
    ) -> Task | Refusal:
        """Create the task of a create request; return a refusal when the account's limits forbid it."""
        now = self.clock()
        refusal = self.world.admit(account, now, request.model)
        if refusal is not None:
            return refusal
        first = request.images[0] if request.images else None
        input_ratio = _get_ratio(first) if isinstance(first, InputImage) else (1, 1)
        return self.world.accept(
            account,
            request,
            sides=compute_sides(request.ratio or input_ratio, self.pixels),
            seconds=self.service_time.draw(self.random_streams.times),
            outcome=outcome,
            now=now,
            rng=self.random_streams.ids,
            region=region,
            has_uuid=has_uuid,
        )

    def find_region(self, host: str) -> int | None:
        """Return the number of the region at a host; None for the base URL, which leads to any."""
        hosts = [origin.partition("://")[2] for origin in self.regions]
        return hosts.index(host) if host in hosts else None

    def create_url(self, task: Task, number: int) -> str:
        """Return a new URL of a task's image."""
        return self.url_signer.sign(task.id, number, task.request.output_format, self.clock())

    def create_bfl_url(self, task: Task, number: int) -> str:
        """Return a URL of a task's image with `se`: a new one, or always the one that it had first."""
        signed_at = self.clock() if self.renews_urls else task.finish_at
        return self.url_signer.sign_to_the_second(task.id, number, task.request.output_format, signed_at)

    def draw_progress(self, task: Task, now: float) -> float | None:
        """Return the progress of a task with its noise; None if progress is left out."""
        if self.progress_noise is None:
            return None
        noise = self.random_streams.faults.gauss(0.0, self.progress_noise) if self.progress_noise else 0.0
        return task.progress_at(now, noise)

    def describe_task(self, task: Task) -> task_json.Json:
        """Return the current JSON of the task in the plain dialect."""
        now = self.clock()
        progress = self.draw_progress(task, now)
        discount = self.world.limits.discount
        return task_json.build_task(task, now=now, discount=discount, create_url=self.create_url, progress=progress)


def create_brief(task: Task, number: int) -> Brief:
    """Return the brief of a task's image."""
    return Brief(
        prompt=task.request.prompt,
        seed=task.seed,
        width=task.width,
        height=task.height,
        output_format=task.request.output_format,
        digest=task.request.digest,
        images=task.request.images,
        number=number,
    )


def _get_ratio(image: InputImage) -> tuple[int, int]:
    """Return the image's ratio, limited to the range from 21:9 to 9:21."""
    if image.width * 9 > image.height * 21:
        return 21, 9
    if image.height * 9 > image.width * 21:
        return 9, 21
    return image.width, image.height

"""What the handlers of one emulator share: its world, its ledger, its chances, its time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import anyio
import attrs

from kontext_async.emulator import answers
from kontext_async.emulator.painter import Brief, InputImage, sides
from kontext_async.emulator.world import Fate, Refusal, Task, World

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator, Mapping

    from kontext_async.emulator.faults import Fault, Faults
    from kontext_async.emulator.gallery import Gallery
    from kontext_async.emulator.kinds import ErrorShape, Operation
    from kontext_async.emulator.ledger import Ledger
    from kontext_async.emulator.links import Links
    from kontext_async.emulator.timing import ServiceTime
    from kontext_async.emulator.validation import CreateRequest
    from kontext_async.emulator.world import Account

_REQUEST_ID_BITS = 64


class ShuttingDownError(Exception):
    """The emulator is closing: whatever was waiting ends here."""


@attrs.frozen(kw_only=True)
class RequestRecord:
    """A request that arrived.

    Attributes:
        method: Its method.
        path: Its path, without the query.
        headers: Its headers; names in any case.
        origin: `api`, or `files` for the result URLs' origin and its mirror.
        at: When it arrived, unix seconds.
    """

    method: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    origin: str
    at: float


class Chances:
    """Independent streams of random numbers from one seed, so that faults do not shift service times."""

    def __init__(self, seed: int) -> None:
        self.times, self.faults, self.ids = (
            random.Random(f"{seed} {name}")  # noqa: S311 - play, not cryptography
            for name in ("times", "faults", "ids")
        )


@attrs.define(kw_only=True, eq=False)
class Context:
    """The shared state. The handlers read it, `Emulator` fills it in.

    The attributes that are not explained here are `Emulator`'s arguments of that name.

    Attributes:
        base_url: The API's origin, once started.
        mirror_url: The other origin that faults redirect to, once started.
        shapes: The error bodies to use, in turn.
        closing: Set when the emulator begins to close.
        inputs: Input images by themselves, so that equal ones are kept once.
    """

    clock: Callable[[], float]
    api_key: str | None = attrs.field(repr=False)
    world: World
    ledger: Ledger
    faults: Faults
    links: Links
    gallery: Gallery
    chances: Chances
    service_time: ServiceTime
    shapes: Iterator[ErrorShape]
    progress_noise: float | None
    sync_wait: float
    stream_keepalive: float
    expired_status: int
    pixels: int
    requests: deque[RequestRecord]
    base_url: str = ""
    mirror_url: str = ""
    closing: asyncio.Event = attrs.field(factory=asyncio.Event)
    inputs: dict[InputImage, InputImage] = attrs.field(factory=dict)

    def draw(self, operation: Operation) -> Fault | None:
        """The fault that the next request of `operation` meets."""
        return self.faults.draw(operation, self.chances.faults)

    def request_id(self) -> str:
        """A fresh request id."""
        return f"{self.chances.ids.getrandbits(_REQUEST_ID_BITS):016x}"

    async def pause(self, seconds: float) -> None:
        """Wait so long.

        Raises:
            ShuttingDownError: The emulator is closing.
        """
        with anyio.move_on_after(seconds):
            await self.closing.wait()
        if self.closing.is_set():
            raise ShuttingDownError

    def authenticate(self, header: str | None, schemes: tuple[str, ...]) -> Account | Refusal:
        """The account of an Authorization header, one request of which is counted."""
        scheme, _, key = (header or "").partition(" ")
        if scheme.lower() not in schemes or not key.strip():
            return Refusal(status=401, code="UNAUTHORIZED", message="the API key is missing")
        if self.api_key is not None and key.strip() != self.api_key:
            return Refusal(status=401, code="UNAUTHORIZED", message="the API key is invalid")
        now = self.clock()
        account = self.world.account(key.strip(), now)
        return self.world.throttle(account, now) or account

    def accept(self, account: Account, request: CreateRequest, fate: Fate) -> Task | Refusal:
        """Make a task of a create request, or say why not."""
        now = self.clock()
        refusal = self.world.admit(account, now)
        if refusal is not None:
            return refusal
        first = request.images[0] if request.images else None
        own = _own_ratio(first) if isinstance(first, InputImage) else (1, 1)
        return self.world.accept(
            account,
            request,
            sides=sides(request.ratio or own, self.pixels),
            seconds=self.service_time.draw(self.chances.times),
            fate=fate,
            now=now,
            rng=self.chances.ids,
        )

    def link(self, task: Task, number: int) -> str:
        """A fresh URL of a task's picture."""
        return self.links.url(task.id, number, task.request.output_format, self.clock())

    def task_answer(self, task: Task) -> answers.Json:
        """The task as it is now, in the plain dialect."""
        now = self.clock()
        progress = None
        if self.progress_noise is not None:
            noise = self.chances.faults.gauss(0.0, self.progress_noise) if self.progress_noise else 0.0
            progress = task.progress(now, noise)
        discount = self.world.limits.discount
        return answers.task_answer(task, now=now, discount=discount, link=self.link, progress=progress)


def brief_of(task: Task, number: int) -> Brief:
    """What to paint for a task."""
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


def _own_ratio(image: InputImage) -> tuple[int, int]:
    """The image's ratio, brought within 21:9 and 9:21."""
    if image.width * 9 > image.height * 21:
        return 21, 9
    if image.height * 9 > image.width * 21:
        return 9, 21
    return image.width, image.height

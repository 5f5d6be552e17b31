"""The emulator itself: two origins on loopback, served by aiohttp, over one world."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

import anyio
import attrs
from aiohttp import web

from kontext_async.emulator.api import Api
from kontext_async.emulator.checks import Check, instance, integer, number
from kontext_async.emulator.context import Chances, Context, RequestRecord
from kontext_async.emulator.delivery import guard
from kontext_async.emulator.faults import Faults
from kontext_async.emulator.files import Files
from kontext_async.emulator.gallery import Gallery
from kontext_async.emulator.kinds import ErrorShape
from kontext_async.emulator.ledger import Ledger
from kontext_async.emulator.links import Links
from kontext_async.emulator.timing import ServiceTime, as_service_time
from kontext_async.emulator.validation import MAX_BODY_BYTES
from kontext_async.emulator.world import Limits, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    Handler = Callable[[web.Request], Any]

_LOGGED_REQUESTS = 10_000
_BACKLOG = 2048
_GRACE = 0.1
"""Seconds that requests are given to end once the emulator closes."""

_TURNS = 10
"""Turns of the loop in which aiohttp's cancelled connection tasks come to their end."""


def _shapes(value: ErrorShape | str | Iterable[ErrorShape | str]) -> tuple[ErrorShape, ...]:
    names = [value] if isinstance(value, str) else list(value)
    if not names:
        raise ValueError("error_shapes must name at least one shape")
    try:
        return tuple(ErrorShape(name) for name in names)
    except ValueError:
        raise ValueError(f"error_shapes must be among {', '.join(ErrorShape)}, not {value!r}") from None


def _money(value: Decimal | float | str) -> Decimal:
    try:
        return Decimal(str(value))
    except ArithmeticError:
        raise ValueError(f"price and balance must be decimal amounts, not {value!r}") from None


def _positive_money(_: object, attribute: attrs.Attribute[Any], value: Decimal) -> None:
    if not value.is_finite() or value < 0:
        raise ValueError(f"{attribute.name} must be a finite amount of at least 0, not {value}")


def _optional(check: Check) -> Check:
    def check_unless_none(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            check(instance, attribute, value)

    return check_unless_none


@attrs.define(kw_only=True, eq=False)
class Emulator:
    """The gateway on loopback, for trying, testing and benchmarking without a key and without paying.

    It serves the plain and the queue dialect at `base_url`, and pictures at `files_url`, which is another
    origin. Use it as an async context manager, or call `start` and `aclose`. Started again after it was
    closed, it goes on with its tasks, its ledger and its ports.

    Args:
        host: The address to listen at.
        port: The API's port; 0 for any free one. The files origin takes any free ones.
        api_key: The key that is accepted; None accepts any key, each with an account of its own.
        service_time: How long tasks take: a distribution, or seconds. With 0 the create call itself answers
            `completed`.
        max_tasks: Unfinished tasks at once per account; over that 429. None for no limit.
        requests_per_second: API requests per second and account, with bursts of as many; over that 429 with
            Retry-After. None for no limit.
        balance: USD per account; when it does not last for another task, 403. None for no limit.
        price: USD per task, before the discount.
        discount: The factor on the price, above 0, at most 1.
        bill_failed: Whether tasks that fail are billed too.
        faults: What misbehaves.
        seed: Of everything that is random here: service times, ids, seeds, faults.
        url_lifetime: Seconds until a result URL expires; each status request gives a fresh one.
        expired_status: What an expired URL answers: 403, 404 or 410.
        pixels: About how many pixels a picture has.
        progress_noise: Standard deviation of the noise on `progress`, which is linear in time with 0; None
            leaves `progress` out.
        error_shapes: The shape of HTTP error bodies, or several that take turns.
        sync_wait: Seconds of the clock until `/sync` answers 504 for a task that has not ended.
        stream_keepalive: Seconds of the clock between two comments in a silent stream.
        keepalive_timeout: Seconds until an idle connection is closed.
        clock: The time in unix seconds. Faults that wait do so in real time.

    Attributes:
        ledger: What every create request came to: a live view.
        requests: The last 10,000 requests that arrived, at either origin.

    Raises:
        ValueError: An argument does not fit; the text names it.

    Example:
        ```python
        async with Emulator(service_time=0.1) as emulator:
            async with KontextSession(emulator.api_key, base_url=emulator.base_url) as session:
                await session.generate("a red fox in snow")
            assert emulator.ledger.billed == 1
        ```
    """

    host: str = attrs.field(default="127.0.0.1", validator=instance(str))
    port: int = attrs.field(default=0, validator=integer(least=0, most=65535))
    api_key: str | None = attrs.field(default="emulator-key", repr=False, validator=_optional(instance(str)))
    service_time: ServiceTime = attrs.field(factory=lambda: ServiceTime.lognormal(0.3, 0.5), converter=as_service_time)
    max_tasks: int | None = attrs.field(default=None, validator=_optional(integer(least=0)))
    requests_per_second: float | None = attrs.field(default=None, validator=_optional(number(above=0)))
    balance: Decimal | None = attrs.field(
        default=None, converter=attrs.converters.optional(_money), validator=_optional(_positive_money)
    )
    price: Decimal = attrs.field(default=Decimal("0.04"), converter=_money, validator=_positive_money)
    discount: float = attrs.field(default=1.0, validator=number(above=0, most=1))
    bill_failed: bool = attrs.field(default=False, validator=instance(bool))
    faults: Faults = attrs.field(factory=Faults, validator=instance(Faults))
    seed: int = attrs.field(default=0, validator=instance(int))
    url_lifetime: float = attrs.field(default=600.0, validator=number(above=0))
    expired_status: int = attrs.field(default=403, validator=attrs.validators.in_((403, 404, 410)))
    pixels: int = attrs.field(default=640 * 640, validator=integer(least=256, most=64_000_000))
    progress_noise: float | None = attrs.field(default=0.0, validator=_optional(number(least=0)))
    error_shapes: tuple[ErrorShape, ...] = attrs.field(default=(ErrorShape.NESTED,), converter=_shapes)
    sync_wait: float = attrs.field(default=60.0, validator=number(least=0))
    stream_keepalive: float = attrs.field(default=1.0, validator=number(above=0))
    keepalive_timeout: float = attrs.field(default=75.0, validator=number(above=0))
    clock: Callable[[], float] = attrs.field(default=time.time, repr=False)

    ledger: Ledger = attrs.field(factory=Ledger, init=False)
    requests: deque[RequestRecord] = attrs.field(init=False, repr=False)
    _context: Context = attrs.field(init=False, repr=False)
    _runners: list[web.AppRunner] = attrs.field(factory=list, init=False, repr=False)
    _ports: list[int] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.requests = deque(maxlen=_LOGGED_REQUESTS)
        self._ports = [self.port, 0, 0]
        limits = Limits(
            max_tasks=self.max_tasks,
            requests_per_second=self.requests_per_second,
            balance=self.balance,
            price=self.price,
            discount=self.discount,
            bill_failed=self.bill_failed,
        )
        self._context = Context(
            clock=self.clock,
            api_key=self.api_key,
            world=World(limits),
            ledger=self.ledger,
            faults=self.faults,
            links=Links(origin="", secret=f"emulator {self.seed}".encode(), lifetime=self.url_lifetime),
            gallery=Gallery(),
            chances=Chances(self.seed),
            service_time=self.service_time,
            shapes=itertools.cycle(self.error_shapes),
            progress_noise=self.progress_noise,
            sync_wait=self.sync_wait,
            stream_keepalive=self.stream_keepalive,
            expired_status=self.expired_status,
            pixels=self.pixels,
            requests=self.requests,
        )

    @property
    def base_url(self) -> str:
        """The API's origin, as `http://127.0.0.1:PORT`.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return self._origin(0)

    @property
    def files_url(self) -> str:
        """The origin of the result URLs.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return self._origin(1)

    @property
    def mirror_url(self) -> str:
        """A further origin with the same files, to which redirects lead.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return self._origin(2)

    @property
    def is_running(self) -> bool:
        """Whether it is being served."""
        return bool(self._runners)

    def _origin(self, index: int) -> str:
        if not self._ports[1]:
            raise RuntimeError("the emulator has not been started")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self._ports[index]}"

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            RuntimeError: It is running already.
            OSError: The port is taken.
        """
        if self._runners:
            raise RuntimeError("the emulator is running already")
        self._context.closing = asyncio.Event()
        try:
            await self._serve("api", Api(self._context).routes(), (0,))
            await self._serve("files", Files(self._context).routes(), (1, 2))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise
        self._context.base_url = self.base_url
        self._context.mirror_url = self.mirror_url
        self._context.links = attrs.evolve(self._context.links, origin=self.files_url)

    async def _serve(self, origin: str, routes: list[web.RouteDef], ports: tuple[int, ...]) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._recorder(origin), guard])
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_GRACE, keepalive_timeout=self.keepalive_timeout)
        await runner.setup()
        self._runners.append(runner)
        for index in ports:
            await web.TCPSite(runner, self.host, self._ports[index], backlog=_BACKLOG).start()
            self._ports[index] = runner.addresses[-1][1]

    def _recorder(self, origin: str) -> Any:
        @web.middleware
        async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.requests.append(
                RequestRecord(
                    method=request.method,
                    path=request.path,
                    headers=request.headers,
                    origin=origin,
                    at=self.clock(),
                )
            )
            response: web.StreamResponse = await handler(request)
            return response

        return record

    async def aclose(self) -> None:
        """Stop listening and end what is still open, stalled requests too. Closing twice does no harm."""
        self._context.closing.set()
        runners, self._runners = self._runners, []
        async with anyio.create_task_group() as group:
            for runner in runners:
                group.start_soon(runner.cleanup)
        self._context.gallery.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.aclose()

"""The emulator itself: two origins on loopback, served by aiohttp, over one world."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit
from weakref import WeakSet

import anyio
from aiohttp import web
from attrs import converters, define, evolve, field, validators

from kontext_async.emulator.bfl_json import WEBHOOK_FORMS
from kontext_async.emulator.fault_kinds import ErrorShape
from kontext_async.emulator.faults import Faults
from kontext_async.emulator.http.api import Api
from kontext_async.emulator.http.bfl_api import FIREWORKS_PATH, BflApi
from kontext_async.emulator.http.creation import CreateHandler
from kontext_async.emulator.http.error_handling import LOGGER, create_error_handler
from kontext_async.emulator.http.files import Files
from kontext_async.emulator.http.request_body import RequestBodyReader
from kontext_async.emulator.http.state import GatewayState, RandomStreams, RequestRecord
from kontext_async.emulator.http.webhooks import WebhookSender
from kontext_async.emulator.ledger import Ledger
from kontext_async.emulator.painting.image_cache import ImageCache
from kontext_async.emulator.service_times import ServiceTime, to_service_time
from kontext_async.emulator.signed_urls import UrlSigner
from kontext_async.emulator.task_json import CREDIT, USD
from kontext_async.emulator.validation import MAX_BODY_BYTES
from kontext_async.emulator.validators import (
    to_amount,
    to_error_shapes,
    validate_amount,
    validate_instance,
    validate_integer,
    validate_number,
    validate_optional,
)
from kontext_async.emulator.world import AccountLimits, World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from aiohttp.typedefs import Handler, Middleware

LOGGED_REQUESTS = 10_000
BACKLOG = 2048
SHUTDOWN_SECONDS = 0.1
"""Seconds that requests in flight have to end once the emulator closes."""

LOOP_TURNS_AT_CLOSE = 10
"""Turns of the loop in which aiohttp's cancelled connection tasks end."""


@define(kw_only=True, eq=False)
class Emulator:
    """The gateway on loopback, for trying, testing and benchmarking without a key and without paying.

    It serves every dialect at `base_url`, and images at `files_url`, which is another origin: the vendor's plain and
    queue dialect, Black Forest Labs' own, and Fireworks' variant of it below `fireworks_url`. Tasks of Black Forest
    Labs' dialect live in regions, at `region_urls`, which have another host name. Use it as an async context manager,
    or call `start` and `aclose`. When it is started again after it was closed, it continues with its tasks, its ledger
    and its ports.

    Args:
        host: The address to listen at.
        port: The API's port; 0 for any free one. The files origin uses any free ones.
        api_key: The accepted key; None accepts any key, each with an account of its own.
        service_time: The duration of tasks: a distribution, or seconds. With 0 the response to the create request
            already says `completed`.
        max_tasks: Unfinished tasks at once per account; over that 429. None for no limit.
        max_tasks_by_model: The same for models that have a limit of their own, such as `{"flux_kontext_max": 6}`.
        requests_per_second: API requests per second and account, with bursts of as many; over that 429 with
            Retry-After. None for no limit.
        balance: USD per account; when it is too low for another task, 403. None for no limit.
        price: USD per task, before the discount.
        discount: The factor on the price, above 0, at most 1.
        bill_failed: Whether tasks that fail are billed too.
        bill_cancelled: Whether tasks that are cancelled stay billed.
        faults: The faults, by rate or by script.
        seed: The seed of everything that is random here: service times, IDs, seeds, faults.
        url_lifetime: Seconds until a result URL expires; each status request gives a new one.
        expired_status: The HTTP status of an expired URL: 403, 404 or 410.
        pixels: The approximate number of pixels of an image.
        progress_noise: Standard deviation of the noise on `progress`, which is linear in time with 0; None
            leaves `progress` out.
        currency: The currency of precharge responses: `USD`, or `credit` with 100 credits for 1 USD.
        error_shapes: The shape of HTTP error bodies, or several for use in turn, in the vendor's dialects.
        regions: The number of regions that do not know each other's tasks. The first one has the port of the API.
        region_host: The host name of the regions; it must lead to `host`.
        region_origins: The origins of the regions, in place of both: for names that lead to this emulator by other
            means, such as a proxy for TLS.
        cost_at: Where Black Forest Labs' dialect states the cost: `create`, `result`, `both` or `never`.
        renews_urls: Whether each status request in Black Forest Labs' dialect renews the result URL; if not, its
            expiry is that of the first.
        webhook_forms: The forms in which webhooks show their secret, in turn: `secret` and `signature`.
        sync_wait: Seconds of the clock until `/sync` responds 504 for a task that has not ended.
        stream_keepalive: Seconds of the clock between two comments in a silent stream.
        keepalive_timeout: Seconds until an idle connection is closed.
        clock: Returns the time in unix seconds. Faults that wait do so in real time.

    Attributes:
        ledger: The outcome of every create request: a live view.
        requests: The last 10,000 requests that arrived, at either origin.

    Raises:
        ValueError: An argument is invalid; the text names it.

    Example:
        ```python
        async with Emulator(service_time=0.1) as emulator:
            async with KontextSession(emulator.api_key, base_url=emulator.base_url) as session:
                await session.generate("a red fox in snow")
            assert emulator.ledger.billed == 1
        ```
    """

    host: str = field(default="127.0.0.1", validator=validate_instance(str))
    port: int = field(default=0, validator=validate_integer(least=0, most=65535))
    api_key: str | None = field(default="emulator-key", repr=False, validator=validate_optional(validate_instance(str)))
    service_time: ServiceTime = field(factory=lambda: ServiceTime.lognormal(0.3, 0.5), converter=to_service_time)
    max_tasks: int | None = field(default=None, validator=validate_optional(validate_integer(least=0)))
    max_tasks_by_model: Mapping[str, int] = field(
        factory=dict,
        validator=validators.deep_mapping(
            validate_instance(str), validate_integer(least=0), mapping_validator=validate_instance(dict)
        ),
    )
    requests_per_second: float | None = field(default=None, validator=validate_optional(validate_number(above=0)))
    balance: Decimal | None = field(
        default=None, converter=converters.optional(to_amount), validator=validate_optional(validate_amount)
    )
    price: Decimal = field(default=Decimal("0.04"), converter=to_amount, validator=validate_amount)
    discount: float = field(default=1.0, validator=validate_number(above=0, most=1))
    bill_failed: bool = field(default=False, validator=validate_instance(bool))
    bill_cancelled: bool = field(default=True, validator=validate_instance(bool))
    faults: Faults = field(factory=Faults, validator=validate_instance(Faults))
    seed: int = field(default=0, validator=validate_instance(int))
    url_lifetime: float = field(default=600.0, validator=validate_number(above=0))
    expired_status: int = field(default=403, validator=validators.in_((403, 404, 410)))
    pixels: int = field(default=640 * 640, validator=validate_integer(least=256, most=64_000_000))
    progress_noise: float | None = field(default=0.0, validator=validate_optional(validate_number(least=0)))
    currency: str = field(default=USD, validator=validators.in_((USD, CREDIT)))
    error_shapes: tuple[ErrorShape, ...] = field(default=(ErrorShape.NESTED,), converter=to_error_shapes)
    regions: int = field(default=1, validator=validate_integer(least=1, most=16))
    region_host: str = field(default="localhost", validator=validate_instance(str))
    region_origins: tuple[str, ...] = field(default=(), converter=tuple)
    cost_at: str = field(default="create", validator=validators.in_(("create", "result", "both", "never")))
    renews_urls: bool = field(default=True, validator=validate_instance(bool))
    webhook_forms: tuple[str, ...] = field(
        default=WEBHOOK_FORMS,
        converter=tuple,
        validator=[validators.min_len(1), validators.deep_iterable(validators.in_(WEBHOOK_FORMS))],
    )
    sync_wait: float = field(default=60.0, validator=validate_number(least=0))
    stream_keepalive: float = field(default=1.0, validator=validate_number(above=0))
    keepalive_timeout: float = field(default=75.0, validator=validate_number(above=0))
    clock: Callable[[], float] = field(default=time.time, repr=False)

    ledger: Ledger = field(factory=Ledger, init=False)
    requests: deque[RequestRecord] = field(init=False, repr=False)
    _state: GatewayState = field(init=False, repr=False)
    _runners: list[web.AppRunner] = field(factory=list, init=False, repr=False)
    _connections: WeakSet[asyncio.Task[None]] = field(factory=WeakSet, init=False, repr=False)
    _ports: list[int] = field(init=False, repr=False)
    _webhooks: WebhookSender = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.requests = deque(maxlen=LOGGED_REQUESTS)
        self._ports = [self.port, 0, 0, *[0] * (self.regions - 1)]
        self._state = self._create_state()
        self._webhooks = WebhookSender(self._state)
        self._state.start_delivery = self._webhooks.start

    def _create_state(self) -> GatewayState:
        limits = AccountLimits(
            max_tasks=self.max_tasks,
            max_tasks_by_model=self.max_tasks_by_model,
            requests_per_second=self.requests_per_second,
            balance=self.balance,
            price=self.price,
            discount=self.discount,
            bill_failed=self.bill_failed,
            bill_cancelled=self.bill_cancelled,
        )
        return GatewayState(
            clock=self.clock,
            api_key=self.api_key,
            world=World(limits),
            ledger=self.ledger,
            faults=self.faults,
            url_signer=UrlSigner(origin="", secret=f"emulator {self.seed}".encode(), lifetime=self.url_lifetime),
            image_cache=ImageCache(),
            random_streams=RandomStreams(self.seed),
            service_time=self.service_time,
            shapes=itertools.cycle(self.error_shapes),
            progress_noise=self.progress_noise,
            sync_wait=self.sync_wait,
            stream_keepalive=self.stream_keepalive,
            expired_status=self.expired_status,
            pixels=self.pixels,
            currency=self.currency,
            requests=self.requests,
            cost_at=self.cost_at,
            renews_urls=self.renews_urls,
            webhook_forms=self.webhook_forms,
        )

    @property
    def base_url(self) -> str:
        """The API's origin, as `http://127.0.0.1:PORT`.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return self._build_origin(0)

    @property
    def files_url(self) -> str:
        """The origin of the result URLs.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return self._build_origin(1)

    @property
    def mirror_url(self) -> str:
        """A further origin with the same files, the target of redirects.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return self._build_origin(2)

    @property
    def fireworks_url(self) -> str:
        """The base URL of Fireworks' variant of Black Forest Labs' dialect.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return f"{self.base_url}{FIREWORKS_PATH.removesuffix('/{model}')}"

    def base_url_of(self, gateway: str) -> str:
        """Return the base URL of a dialect: ``vtrix``, ``vtrix-queue``, ``bfl`` or ``fireworks``.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return self.fireworks_url if gateway == "fireworks" else self.base_url

    @property
    def region_hosts(self) -> tuple[str, ...]:
        """The hosts of `region_urls` with their ports, as `KontextSession(trusted_hosts=)` takes them.

        Raises:
            RuntimeError: The emulator was never started.
        """
        return tuple(urlsplit(url).netloc for url in self.region_urls)

    @property
    def region_urls(self) -> tuple[str, ...]:
        """The origins at which the tasks of Black Forest Labs' dialect are polled, one for each region.

        Raises:
            RuntimeError: The emulator was never started.
        """
        if self.region_origins:
            return self.region_origins
        return tuple(self._build_origin(index, self.region_host) for index in (0, *range(3, len(self._ports))))

    @property
    def is_running(self) -> bool:
        """Whether the emulator accepts requests."""
        return bool(self._runners)

    def _build_origin(self, index: int, name: str | None = None) -> str:
        if not self._ports[1]:
            raise RuntimeError("the emulator has not been started")
        host = name or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self._ports[index]}"

    async def start(self) -> None:
        """Start to listen.

        Raises:
            RuntimeError: The emulator is already running.
            OSError: The port is in use.
        """
        if self._runners:
            raise RuntimeError("the emulator is already running")
        self._state.closing = asyncio.Event()
        try:
            create_handler = CreateHandler(self._state, RequestBodyReader(self._state))
            handlers = (Api(self._state, create_handler), BflApi(self._state, create_handler))
            routes = [route for each in handlers for route in each.list_routes()]
            await self._serve("api", routes, (0, *range(3, len(self._ports))))
            await self._serve("files", Files(self._state).list_routes(), (1, 2))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise
        self._state.base_url = self.base_url
        self._state.mirror_url = self.mirror_url
        self._state.regions = self.region_urls
        self._state.region_turns = itertools.cycle(range(len(self._state.regions)))
        self._state.url_signer = evolve(self._state.url_signer, origin=self.files_url)

    async def _serve(self, origin: str, routes: list[web.RouteDef], port_indexes: tuple[int, ...]) -> None:
        recorder = self._create_recorder(origin)
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[recorder, create_error_handler(self._state)])
        app.add_routes(routes)
        app.on_response_prepare.append(self._track_connection)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=LOGGER,
            shutdown_timeout=SHUTDOWN_SECONDS,
            keepalive_timeout=self.keepalive_timeout,
        )
        await runner.setup()
        self._runners.append(runner)
        for index in port_indexes:
            await web.TCPSite(runner, self.host, self._ports[index], backlog=BACKLOG).start()
            self._ports[index] = runner.addresses[-1][1]

    def _create_recorder(self, origin: str) -> Middleware:
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
            return await handler(request)

        return record

    async def _track_connection(self, request: web.Request, _: web.StreamResponse) -> None:
        self._connections.add(request.task)

    async def aclose(self) -> None:
        """Stop listening and end all open requests, stalled ones too. It is safe to close twice."""
        self._state.closing.set()
        runners, self._runners = self._runners, []
        await self._webhooks.aclose()
        async with anyio.create_task_group() as group:
            for runner in runners:
                group.start_soon(runner.cleanup)
        await self._end_connections()
        self._state.image_cache.close()
        for _ in range(LOOP_TURNS_AT_CLOSE):
            await asyncio.sleep(0)

    async def _end_connections(self) -> None:
        """End the tasks of lost connections, which wait for the rest of a body that nobody sends."""
        remaining = [task for task in self._connections if not task.done()]
        self._connections.clear()
        for task in remaining:
            task.cancel()
        if remaining:
            await asyncio.wait(remaining)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.aclose()

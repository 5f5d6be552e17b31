"""The session: the class that users hold. It joins the parts of the engine and decides nothing else."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, overload

from kontext_async.decisions.shares import Queueing, ShareOptions
from kontext_async.engine.clock import LoopClock
from kontext_async.engine.engine import Engine
from kontext_async.errors import ConfigurationError, InvalidRequest, KontextError
from kontext_async.gateways import DEFAULT_GATEWAY, GatewayOptions, find_gateway, find_task_id
from kontext_async.session.health import SessionHealth
from kontext_async.session.share import Share, check_max_cost, check_priority, check_weight
from kontext_async.session.task import GenerationTask, RecoveredTask, check_seconds, deadline_of
from kontext_async.settings import Settings, find_api_key, find_base_url, find_gateway_name
from kontext_async.store.access import check_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping
    from datetime import datetime
    from decimal import Decimal
    from types import TracebackType
    from typing import Self, TypeVar

    import aiohttp

    from kontext_async.engine.clock import Clock
    from kontext_async.engine.stored_calls import StoredCalls
    from kontext_async.events import Event
    from kontext_async.gateways import Reference, Webhook
    from kontext_async.models import SessionStatistics
    from kontext_async.settings import Limits, Network, Outages, Polling, Retries, StoreSettings, Timeouts
    from kontext_async.store.base import Store

    EventT = TypeVar("EventT", bound=Event)
    OtherT = TypeVar("OtherT", bound=Event)

__all__ = ["KontextSession"]


class KontextSession(Share):
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
        webhook: The address to which the gateway reports the end of each task, so that it is polled then: see
            `receive_webhook`. Only `bfl` has webhooks, and only with `single_cluster`, because the gateway names no
            address for a task with a webhook.
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
        max_cost: USD that the session may spend; None for no limit. See also `share`.
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
        webhook: Webhook | None = None,
        settings: Settings = Settings(),  # noqa: B008 # frozen
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        polling: Polling | None = None,
        retries: Retries | None = None,
        outages: Outages | None = None,
        network: Network | None = None,
        store: str | Store | None = None,
        account: str | None = None,
        max_cost: Decimal | None = None,
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
        engine = Engine(
            dialect(base_url, key, GatewayOptions(trusted_hosts=trusted_hosts, single_cluster=single_cluster)),
            key,
            settings,
            http,
            clock or LoopClock(),
            store=_find_store(store, settings.store),
            account=None if account is None else check_key(account, "account"),
            max_cost=check_max_cost(max_cost),
            webhook=webhook,
        )
        super().__init__(engine, Queueing())

    async def start(self) -> Self:
        """Open the session; close it with `aclose`.

        Raises:
            SessionClosed: The session was started or closed before.
            ConfigurationError: The given `http` session cannot be used.
        """
        await self._engine.start()
        return self

    async def drain(self, grace: float = 8.0) -> tuple[str, ...]:
        """Admit no further request, and finish what the gateway has accepted, before the server stops.

        Requests that wait for a slot, and all further ones, fail at once with `Overloaded`: nothing was sent for them.
        Those who wait for a task get its result, or, after `grace` seconds, `SessionClosed` with the task's ID: the
        task keeps running. Downloads and `attach` work until `aclose`, which is still to be called.

        Args:
            grace: Seconds for the tasks in flight.

        Returns:
            The IDs of the tasks that were unfinished after that.

        Raises:
            InvalidRequest: `grace` is not a finite number of at least 0.
            SessionError: The session is not running.
        """
        return await self._engine.drain(0.0 if grace == 0 else check_seconds(grace, "grace"))

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

    def share(self, name: str, *, weight: float = 1.0, priority: int = 0, max_cost: Decimal | None = None) -> Share:
        """Return a share of this session: an object with its methods, whose requests get their part of the slots.

        While several shares wait, the one with the fewest requests in flight for its weight is next; so a user with 500
        requests does not make the others wait. Within a share, the order is first in, first out. Requests of the
        session itself are a share, too, and so is each `BulkRun`.

        Args:
            name: The name of the share, such as a user's ID. There may be any number of names.
            weight: The part of the slots, in relation to the weights of the others. The latest one counts.
            priority: The class, from -10 to 10. Higher ones come first; while a lower one waits, a tenth of the time of
                the slots is for the lower ones.
            max_cost: USD that requests under this name may spend while the session lives; None for no limit. The latest
                one counts. A request beyond it fails with `CostLimitReached`, and nothing was sent. What a name with a
                limit has spent is remembered until the session ends.

        Raises:
            InvalidRequest: An argument is not allowed.
        """
        options = ShareOptions(
            check_key(name, "name"), check_weight(weight), check_priority(priority), check_max_cost(max_cost)
        )
        return Share(self._engine, Queueing(options), self)

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

    async def balance(self) -> Decimal:
        """Return the balance of the account in USD, as the gateway states it. It costs nothing.

        Raises:
            ConfigurationError: The gateway does not state it: `fireworks`.
            GatewayError: The gateway refused, was unreachable, or its response is unreadable.
            SessionError: The session is not running.
        """
        self._engine.ensure_running()
        return await self._engine.estimator.balance()

    def receive_webhook(self, headers: Mapping[str, str], body: bytes, *, secret: str | None = None) -> bool:
        """Take a delivery of a webhook: poll its task now, if it is pending in this session.

        Nothing else of a delivery is believed. One that is lost, late or repeated changes only when the task is polled.
        The modules of `kontext_async.integrations` have handlers that call this.

        Args:
            headers: The headers of the delivery, with names in any case.
            body: Its body as it came.
            secret: The secret of the webhook; None is that of the session's.

        Returns:
            True if the delivery is the gateway's: respond with 204. False if it does not show that it knows the secret,
            in neither of the two documented forms: respond with 401.

        Raises:
            ConfigurationError: The gateway has no webhooks, or there is no secret.
            SessionError: The session is not running.
        """
        webhook, gateway = self._engine.webhook, self._engine.gateway
        secret = (webhook.secret if webhook else None) if secret is None else secret
        if not secret:
            raise ConfigurationError("webhook: there is no secret to know the gateway by; give one to the webhook")
        if not gateway.is_authentic(headers, body, secret):
            return False
        self._engine.ensure_running()
        if task_id := gateway.read_delivery(body):
            self._engine.poll_loop.expedite(task_id)
        return True

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
    def base_url(self) -> str:
        """The gateway's address."""
        return self._engine.gateway.base_url

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

    def health(self) -> SessionHealth:
        """Return whether the session can serve further requests, for a readiness check. Sends nothing."""
        engine = self._engine
        slots = engine.slots
        return SessionHealth(
            is_running=engine.is_running,
            is_draining=engine.is_draining,
            circuit=engine.gate.state.value,
            queued=slots.queued,
            is_queue_full=slots.is_queue_full,
            in_flight=slots.in_flight,
            limit=slots.limit,
            expected_wait=slots.expected_wait if engine.is_running else 0.0,
        )

    def statistics(self) -> SessionStatistics:
        """Return the current counts of queued, pending and finished tasks, and the amount spent."""
        return self._engine.statistics()

    @overload
    def subscribe(
        self, callback: Callable[[Event], object], /, *, task_id: str | Reference | None = None
    ) -> Callable[[], None]: ...

    @overload
    def subscribe(
        self, callback: Callable[[EventT], object], kind: type[EventT], /, *, task_id: str | Reference | None = None
    ) -> Callable[[], None]: ...

    @overload
    def subscribe(
        self,
        callback: Callable[[EventT | OtherT], object],
        kind: type[EventT],
        other: type[OtherT],
        /,
        *,
        task_id: str | Reference | None = None,
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
        task_id: str | Reference | None = None,
    ) -> Callable[[], None]: ...

    def subscribe(
        self, callback: Callable[[Any], object], /, *kinds: type[Any], task_id: str | Reference | None = None
    ) -> Callable[[], None]:
        """Call `callback` with every event from now on, in order, on the session's loop. It must not block.

        A subscription listens and sends nothing: `GenerationTask.updates` also has its task polled more often.

        Args:
            callback: Is called with each event.
            kinds: The event classes to report, from `kontext_async.events`; none reports all of them.
            task_id: The task whose events to report, by its ID or its reference; None reports those of all tasks.

        Returns:
            A function that ends the subscription.

        Raises:
            InvalidRequest: The task ID cannot be one, or the reference is of another gateway.
        """
        only = None if task_id is None else find_task_id(self._engine.gateway, task_id)
        return self._engine.hub.subscribe(callback, *kinds, task_id=only)

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

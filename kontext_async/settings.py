"""The settings: frozen groups that are validated on creation. The only module that reads the environment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping  # attrs and users resolve it
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen
from attrs.validators import optional

from kontext_async.base_errors import ConfigurationError
from kontext_async.foreign_values import FrozenMapping, freeze_mapping
from kontext_async.images import MAX_IMAGE_BYTES
from kontext_async.redaction import safe_repr, strip_query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "ENVIRONMENT",
    "Limits",
    "Network",
    "Outages",
    "Polling",
    "Retries",
    "Settings",
    "StoreSettings",
    "Timeouts",
    "check_proxy",
    "find_api_key",
    "find_base_url",
    "find_gateway_name",
    "find_proxy_variables",
    "find_spool_folder",
    "find_store_url",
]


def _refuse(instance: object, name: str, value: object, rule: str) -> NoReturn:
    raise ConfigurationError(f"{type(instance).__name__}.{name}: {safe_repr(value)} is not allowed; {rule}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _require_count(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    if not _is_count(value):
        _refuse(instance, attribute.name, value, "it must be an integer of at least 1")


def _is_finite_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def _freeze_counts(value: Mapping[str, int]) -> Mapping[str, int]:
    frozen_counts: Mapping[str, int] = freeze_mapping(value)
    return frozen_counts


def _require_counts_by_name(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    items: dict[Any, Any] = dict(value) if isinstance(value, FrozenMapping) else {None: None}
    if not all(isinstance(name, str) and _is_count(count) for name, count in items.items()):
        _refuse(instance, attribute.name, value, "it must be a mapping of models to integers of at least 1")


def _require_positive(instance: object, attribute: attrs.Attribute[float], value: Any) -> None:
    if not _is_finite_number(value) or value <= 0:
        _refuse(instance, attribute.name, value, "it must be a finite number above 0")


def _require_not_negative(instance: object, attribute: attrs.Attribute[float], value: Any) -> None:
    if not _is_finite_number(value) or value < 0:
        _refuse(instance, attribute.name, value, "it must be a finite number of at least 0")


def _require_flag(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        _refuse(instance, attribute.name, value, "it must be True or False")


def _require_folder(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str | os.PathLike):
        _refuse(instance, attribute.name, value, "it must be a path, or None")


def _require_order(instance: object, lower: str, upper: str) -> None:
    if getattr(instance, lower) > getattr(instance, upper):
        _refuse(instance, lower, getattr(instance, lower), f"it must not be above {upper}")


def _require_group(group: type) -> Any:
    def require(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, group):
            _refuse(instance, attribute.name, value, f"it must be a {group.__name__}")

    return require


@frozen(kw_only=True)
class Limits:
    """Upper limits on concurrency, request rate and sizes.

    Attributes:
        max_in_flight: The most unfinished tasks at once. The session adapts to fewer if the account allows fewer.
            24 is the figure that Black Forest Labs documents for its own API. Where the gateway has a limit of its own
            for a model, as for [max] of Black Forest Labs, its tasks do not count here: the most of them is the
            gateway's figure (6), or `max_in_flight` if that is lower.
        max_in_flight_by_model: The most unfinished tasks at once by model, where that is not right for your account:
            ``{"flux_kontext_max": 12}``. Models that share a limit at the gateway share the largest number.
        max_connections: The most connections at once. `max_polls_in_flight` of them are reserved for status requests;
            create requests and downloads share the rest.
        max_polls_in_flight: The most status requests at once; below `max_connections`.
        polls_per_second: The most status requests per second, for all tasks together.
        max_uploads: The most create requests with image bytes at once.
        max_image_bytes: The largest input image, in bytes.
        max_download_bytes: The largest image to download, in bytes.
        max_queued: The most requests that wait for a slot; a further one fails with `Overloaded`. None is no limit.
            Requests of `generate_many` and of durable runs do not count: they bound their own number.
        max_queued_per_share: The same for each share: see `KontextSession.share`.
    """

    max_in_flight: int = field(default=24, validator=_require_count)
    max_in_flight_by_model: Mapping[str, int] = field(
        factory=dict, converter=_freeze_counts, validator=_require_counts_by_name
    )
    max_connections: int = field(default=100, validator=_require_count)
    max_polls_in_flight: int = field(default=32, validator=_require_count)
    polls_per_second: float = field(default=60.0, validator=_require_positive)
    max_uploads: int = field(default=8, validator=_require_count)
    max_image_bytes: int = field(default=MAX_IMAGE_BYTES, validator=_require_count)
    max_download_bytes: int = field(default=64 * 1024 * 1024, validator=_require_count)
    max_queued: int | None = field(default=None, validator=optional(_require_count))
    max_queued_per_share: int | None = field(default=None, validator=optional(_require_count))

    def __attrs_post_init__(self) -> None:
        if self.max_polls_in_flight >= self.max_connections:
            rule = "it must be below max_connections: create requests and downloads need connections too"
            _refuse(self, "max_polls_in_flight", self.max_polls_in_flight, rule)


@frozen(kw_only=True)
class Timeouts:
    """Time limits, in seconds.

    Attributes:
        connect: For opening a connection, TLS included.
        submit: For one create request, from its first byte to the end of the response.
        status: For one status request.
        download: For downloading one image, retries included.
        wait: For one task, from acceptance to its end.
        cancel: For the response to a create request that is on the wire when its caller is cancelled or the session
            closes. They wait for it, because the response has the ID of a task that is billed. Also for cancelling a
            task at the gateway, until its status says what became of it.
        cancel_on_timeout: True cancels a task at the gateway when the wait for it ends by a deadline and nobody else in
            the session waits for it, where the gateway can. The call then lasts at most `cancel` seconds longer.
    """

    connect: float = field(default=10.0, validator=_require_positive)
    submit: float = field(default=120.0, validator=_require_positive)
    status: float = field(default=30.0, validator=_require_positive)
    download: float = field(default=300.0, validator=_require_positive)
    wait: float = field(default=600.0, validator=_require_positive)
    cancel: float = field(default=10.0, validator=_require_positive)
    cancel_on_timeout: bool = field(default=False, validator=_require_flag)


@frozen(kw_only=True)
class Polling:
    """The poll schedule of a task, in seconds.

    The session starts with a fixed schedule. Once it has seen enough tasks end, it derives the poll times from how long
    tasks take.

    Attributes:
        initial_delay: The time from acceptance to the first poll, as long as the schedule is fixed.
        interval: The time from one poll to the next, as long as the schedule is fixed. A task that is younger than four
            intervals is polled after a quarter of its age, or of the interval if that is longer.
        min_interval: The shortest time from one poll to the next.
        max_interval: The longest time from one poll to the next.
        poll_cost: The delay in seeing a task's end that saving one poll is worth. A higher value means fewer polls and
            later detection; a lower value means more polls and earlier detection. For the last few tasks of a batch,
            for which all others wait, the session uses a lower value.
    """

    initial_delay: float = field(default=1.0, validator=_require_not_negative)
    interval: float = field(default=1.0, validator=_require_positive)
    min_interval: float = field(default=0.25, validator=_require_positive)
    max_interval: float = field(default=15.0, validator=_require_positive)
    poll_cost: float = field(default=0.1, validator=_require_positive)

    def __attrs_post_init__(self) -> None:
        _require_order(self, "min_interval", "max_interval")


@frozen(kw_only=True)
class Retries:
    """The retry policy.

    Attributes:
        attempts: The largest number of attempts for a create request, including the first one. An attempt that ends
            with 429, or that the circuit breaker stops, does not count. For a download: of attempts without progress.
        backoff_initial: The first backoff, in seconds.
        backoff_max: The longest backoff, in seconds.
        failure_budget: Seconds for which all status requests of a task may fail before the wait fails too.
        not_found_grace: Seconds for which the status requests of a task may return 404 before the wait fails: not every
            server of the gateway may know a new task at once.
        max_retry_after: The longest wait that a ``Retry-After`` header can impose, in seconds; longer ones are cut.
        resend_uncertain: True resends a create request whose outcome is unknown, which may be billed twice.
    """

    attempts: int = field(default=6, validator=_require_count)
    backoff_initial: float = field(default=0.5, validator=_require_positive)
    backoff_max: float = field(default=30.0, validator=_require_positive)
    failure_budget: float = field(default=300.0, validator=_require_positive)
    not_found_grace: float = field(default=10.0, validator=_require_not_negative)
    max_retry_after: float = field(default=120.0, validator=_require_not_negative)
    resend_uncertain: bool = field(default=False, validator=_require_flag)

    def __attrs_post_init__(self) -> None:
        _require_order(self, "backoff_initial", "backoff_max")


@frozen(kw_only=True)
class Outages:
    """The circuit breaker: when the session stops submitting, and how it finds out that it may go ahead again.

    Attributes:
        uncertain_limit: The number of consecutive uncertain create requests that stops submitting.
        wait: The longest that one request waits for the end of an outage, in seconds, before it fails with
            `GatewayOutage`; nothing was sent for it then.
        probe_initial: The pause before the first probe, in seconds. It doubles after each failed probe.
        probe_max: The longest pause between two probes, in seconds.
    """

    uncertain_limit: int = field(default=5, validator=_require_count)
    wait: float = field(default=30.0, validator=_require_not_negative)
    probe_initial: float = field(default=1.0, validator=_require_positive)
    probe_max: float = field(default=60.0, validator=_require_positive)

    def __attrs_post_init__(self) -> None:
        _require_order(self, "probe_initial", "probe_max")


@frozen(kw_only=True)
class StoreSettings:
    """The store of paid work, where a session has one.

    Attributes:
        lease: The time for which a worker is alive after its last beat, in seconds. The work of a worker that is dead
            is taken over by others.
        beat: The time between two beats, in seconds.
        connect: The time limit for a connection to the database, in seconds.
        step: The longest that a step before a create request is repeated while the database cannot be reached, in
            seconds; the request then fails with `StoreUnavailable`, and nothing was sent for it.
        spool: The folder for the IDs of paid tasks that the database could not take yet. None is
            ``$XDG_STATE_HOME/kontext_async``, or ``~/.local/state/kontext_async`` without that variable.
    """

    lease: float = field(default=15.0, validator=_require_positive)
    beat: float = field(default=3.0, validator=_require_positive)
    connect: float = field(default=10.0, validator=_require_positive)
    step: float = field(default=30.0, validator=_require_positive)
    spool: str | os.PathLike[str] | None = field(default=None, validator=_require_folder)

    def __attrs_post_init__(self) -> None:
        if self.beat * 2 > self.lease:
            _refuse(self, "beat", self.beat, "it must be at most half of the lease")


def check_proxy(url: str, source: str) -> None:
    """Refuse a proxy that cannot be used. The text contains nothing of its URL, which may have a password.

    Args:
        url: The proxy's URL.
        source: The setting or the variable that has it.

    Raises:
        ConfigurationError: It is not an http(s) URL with a host; SOCKS is not supported.
    """
    rule = "it must be http://[USER:PASSWORD@]HOST[:PORT] or the same with https"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ConfigurationError(f"{source}: the proxy's URL is invalid; {rule}") from None
    if parts.scheme.startswith("socks"):
        raise ConfigurationError(f"{source}: SOCKS proxies are not supported; {rule}")
    if not usable or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{source}: the proxy's URL is invalid; {rule}")


def _require_proxy(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is None or value == ENVIRONMENT:
        return
    if not isinstance(value, str):
        rule = 'it must be a proxy\'s URL, None, or "environment"'
        raise ConfigurationError(f"{type(instance).__name__}.{attribute.name}: {rule}")
    check_proxy(value, f"{type(instance).__name__}.{attribute.name}")


def _read_networks(given: Iterable[str | IPv4Network | IPv6Network]) -> tuple[IPv4Network | IPv6Network, ...]:
    rule = 'it must be a tuple of networks such as "10.0.0.0/8"'
    try:
        if isinstance(given, str):
            raise ConfigurationError(f"Network.allow: {rule}")
        return tuple(ip_network(each) for each in given)
    except (TypeError, ValueError):
        raise ConfigurationError(f"Network.allow: {safe_repr(given)} is not allowed; {rule}") from None


ENVIRONMENT = "environment"


@frozen(kw_only=True)
class Network:
    """The way to the gateway and to the images.

    Attributes:
        proxy: ``"environment"`` uses the proxies of ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``,
            which are read once, when the session opens. None uses no proxy. A URL
            (``http://USER:PASSWORD@HOST:PORT``) is the proxy for everything. SOCKS is not supported. With an
            `aiohttp.ClientSession` of your own, only a URL counts.
        allow: Networks such as ``"10.0.0.0/8"`` to which image URLs may lead although they are not public. The network
            of a base URL on a loopback or private address is always allowed. Metadata services of clouds never are.
            Through a proxy, the session refuses addresses in URLs, and leaves names to the proxy.
    """

    proxy: str | None = field(
        default=ENVIRONMENT,
        validator=_require_proxy,
        repr=lambda proxy: repr(strip_query(proxy) if proxy and proxy != ENVIRONMENT else proxy),
    )
    allow: tuple[IPv4Network | IPv6Network, ...] = field(default=(), converter=_read_networks)


@frozen(kw_only=True)
class Settings:
    """All settings of a session.

    Attributes:
        limits: Upper limits on concurrency, request rate and sizes.
        timeouts: Time limits.
        polling: The poll schedule of a task.
        retries: The retry policy.
        outages: The circuit breaker.
        network: The way to the gateway and to the images.
        store: The store of paid work.

    Raises:
        ConfigurationError: A value is not allowed. The text names the group, the field, the value and the rule.
    """

    limits: Limits = field(factory=Limits, validator=_require_group(Limits))
    timeouts: Timeouts = field(factory=Timeouts, validator=_require_group(Timeouts))
    polling: Polling = field(factory=Polling, validator=_require_group(Polling))
    retries: Retries = field(factory=Retries, validator=_require_group(Retries))
    outages: Outages = field(factory=Outages, validator=_require_group(Outages))
    network: Network = field(factory=Network, validator=_require_group(Network))
    store: StoreSettings = field(factory=StoreSettings, validator=_require_group(StoreSettings))


def find_api_key(
    given: str | None, environment: Mapping[str, str] | None = None, *, variables: Sequence[str] = ()
) -> str:
    """Return the given API key, or else that of a variable of the gateway, or else the one in ``KONTEXT_API_KEY``.

    Args:
        given: The key; None reads it from `environment`.
        environment: The environment variables; None means those of the process.
        variables: The variables that are the gateway's own.

    Raises:
        ConfigurationError: There is no key, or a header cannot carry it. The text does not contain the key.
    """
    source = os.environ if environment is None else environment
    names = (*variables, "KONTEXT_API_KEY")
    key = given if given is not None else next((found for name in names if (found := source.get(name, "").strip())), "")
    if not isinstance(key, str):
        raise ConfigurationError("the API key must be text")
    key = key.strip()
    if not key:
        raise ConfigurationError(f"there is no API key: pass api_key, or set {' or '.join(names)}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key contains characters that a header cannot carry")
    return key


def find_gateway_name(given: str | None, default: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the name of the gateway: as given, from ``KONTEXT_GATEWAY``, or the default.

    Args:
        given: The name; None reads it from `environment`.
        default: The name that counts where there is none.
        environment: The environment variables; None means those of the process.
    """
    source = os.environ if environment is None else environment
    return given if given is not None else source.get("KONTEXT_GATEWAY", "").strip() or default


def find_base_url(
    given: str | None, default: str, environment: Mapping[str, str] | None = None, *, gateway: str, owner: str
) -> str:
    """Return the gateway's base URL without a trailing slash: as given, from ``KONTEXT_BASE_URL``, or the default.

    Args:
        given: The URL; None reads it from `environment`.
        default: The URL that counts where there is none: the gateway's own.
        environment: The environment variables; None means those of the process.
        gateway: The name of the gateway.
        owner: The name of the gateway that ``KONTEXT_BASE_URL`` belongs to: see `find_gateway_name`.

    Raises:
        ConfigurationError: It is not an http(s) URL with a host, or it has a user, a query or a fragment; or it is that
            of another gateway, which must not see the key.
    """
    source = os.environ if environment is None else environment
    found = source.get("KONTEXT_BASE_URL") if given is None else None
    if found and gateway != owner:
        raise ConfigurationError(
            f"KONTEXT_BASE_URL belongs to the gateway {safe_repr(owner)}, and not to {gateway!r}: pass base_url= "
            f"(--base-url), or set KONTEXT_GATEWAY={gateway}"
        )
    url = given if given is not None else found or default
    rule = "the base URL must be http(s)://HOST[:PORT][/PATH], without user, query or fragment"
    if not isinstance(url, str):
        raise ConfigurationError(rule)
    url = url.strip()
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
        (parts.hostname or "").encode("idna")
    except ValueError:  # UnicodeError among them: a label is empty or too long
        raise ConfigurationError(rule) from None
    if not allowed or parts.username is not None or not url.isprintable() or any(sign in url for sign in " ?#\\"):
        raise ConfigurationError(rule)
    return url.rstrip("/")


def find_spool_folder(given: str | os.PathLike[str] | None, environment: Mapping[str, str] | None = None) -> str:
    """Return the folder of the spool: as given, or in the folder for the state of programs of this user.

    Args:
        given: The folder; None reads ``XDG_STATE_HOME``.
        environment: The environment variables; None means those of the process.
    """
    if given is not None:
        return os.fspath(given)
    source = os.environ if environment is None else environment
    state = source.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")  # noqa: PTH111, PTH118 # text
    return os.path.join(state, "kontext_async")  # noqa: PTH118 # as above


def find_store_url(given: str | None, environment: Mapping[str, str] | None = None) -> str | None:
    """Return the URL of the store of a command: as given, or from ``KONTEXT_STORE``; None for none.

    Args:
        given: The URL; None reads it from `environment`.
        environment: The environment variables; None means those of the process.
    """
    source = os.environ if environment is None else environment
    return given if given is not None else source.get("KONTEXT_STORE", "").strip() or None


def find_proxy_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables about proxies by their names in lower case, which win over those in upper case.

    Args:
        environment: The environment variables; None means those of the process.
    """
    source = os.environ if environment is None else environment
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    found = {name: source.get(name, source.get(name.upper(), "")) for name in names}
    if "REQUEST_METHOD" in source:  # under CGI, a request's header "Proxy" becomes HTTP_PROXY
        found["http_proxy"] = source.get("http_proxy", "")
    return {name: value.strip() for name, value in found.items() if value.strip()}

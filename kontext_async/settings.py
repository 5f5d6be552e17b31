"""What can be set: frozen groups, validated when they are made. The one place that reads the environment."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from kontext_async.base_errors import ConfigurationError
from kontext_async.images import MAX_IMAGE_BYTES
from kontext_async.redaction import safe_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_BASE_URL",
    "Limits",
    "Polling",
    "Retries",
    "Settings",
    "Timeouts",
    "api_key_from",
    "base_url_from",
]

DEFAULT_BASE_URL = "https://cloud.vtrix.ai"
"""The gateway's address (PROTOCOL.md, "Addresses and authentication")."""


def _refuse(instance: object, name: str, value: object, rule: str) -> ConfigurationError:
    return ConfigurationError(f"{type(instance).__name__}.{name}: {safe_repr(value)} is not allowed; {rule}")


def _count(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refuse(instance, attribute.name, value, "it must be an integer of at least 1")


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def _positive(instance: object, attribute: attrs.Attribute[float], value: Any) -> None:
    if not _is_number(value) or value <= 0:
        raise _refuse(instance, attribute.name, value, "it must be a finite number above 0")


def _not_negative(instance: object, attribute: attrs.Attribute[float], value: Any) -> None:
    if not _is_number(value) or value < 0:
        raise _refuse(instance, attribute.name, value, "it must be a finite number of at least 0")


def _flag(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise _refuse(instance, attribute.name, value, "it must be True or False")


def _ordered(instance: object, lower: str, upper: str) -> None:
    if getattr(instance, lower) > getattr(instance, upper):
        raise _refuse(instance, lower, getattr(instance, lower), f"it must not be above {upper}")


def _of(kind: type) -> Any:
    def validate(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise _refuse(instance, attribute.name, value, f"it must be a {kind.__name__}")

    return validate


@frozen(kw_only=True)
class Limits:
    """How much at once, and how large.

    Attributes:
        max_in_flight: Unfinished tasks at once, at most; fewer are in flight where the account bears fewer. 24 is
            the figure that Black Forest Labs documents for its own API.
        max_connections: Connections at once, at most. Status requests have `max_polls_in_flight` of them to
            themselves; creates and downloads share the rest.
        max_polls_in_flight: Status requests at once, at most.
        polls_per_second: Status requests a second, at most, whatever the number of tasks.
        max_uploads: Creates that carry image bytes, at once, at most.
        max_image_bytes: The largest input image, in bytes.
        max_download_bytes: The largest picture that is fetched, in bytes.
    """

    max_in_flight: int = field(default=24, validator=_count)
    max_connections: int = field(default=100, validator=_count)
    max_polls_in_flight: int = field(default=32, validator=_count)
    polls_per_second: float = field(default=30.0, validator=_positive)
    max_uploads: int = field(default=8, validator=_count)
    max_image_bytes: int = field(default=MAX_IMAGE_BYTES, validator=_count)
    max_download_bytes: int = field(default=64 * 1024 * 1024, validator=_count)

    def __attrs_post_init__(self) -> None:
        if self.max_polls_in_flight >= self.max_connections:
            rule = "it must be below max_connections: creates and downloads need connections too"
            raise _refuse(self, "max_polls_in_flight", self.max_polls_in_flight, rule)


@frozen(kw_only=True)
class Timeouts:
    """Deadlines, in seconds.

    Attributes:
        connect: To open a connection, TLS included.
        submit: One create request, from its first byte to the end of its answer.
        status: One status request.
        download: One picture.
        wait: One task, from accepted to finished.
        cancel: How long a cancelled caller, or a session that is closed, stays for the answer to a create that is on
            the wire, so that the id of what is paid for is known.
    """

    connect: float = field(default=10.0, validator=_positive)
    submit: float = field(default=120.0, validator=_positive)
    status: float = field(default=30.0, validator=_positive)
    download: float = field(default=300.0, validator=_positive)
    wait: float = field(default=600.0, validator=_positive)
    cancel: float = field(default=10.0, validator=_positive)


@frozen(kw_only=True)
class Polling:
    """When to ask how a task is getting on, in seconds.

    Attributes:
        initial_delay: From accepted to the first ask, until something is learned.
        interval: From one ask to the next, until something is learned.
        min_interval: From one ask to the next, at least.
        max_interval: From one ask to the next, at most.
        poll_cost: The delay that one request may cost.
    """

    initial_delay: float = field(default=1.0, validator=_not_negative)
    interval: float = field(default=1.0, validator=_positive)
    min_interval: float = field(default=0.25, validator=_positive)
    max_interval: float = field(default=15.0, validator=_positive)
    poll_cost: float = field(default=0.1, validator=_positive)

    def __attrs_post_init__(self) -> None:
        _ordered(self, "min_interval", "max_interval")


@frozen(kw_only=True)
class Retries:
    """What is tried again, and for how long.

    Attributes:
        attempts: Times that one create or download is tried, at most.
        backoff_initial: Seconds of the first backoff.
        backoff_max: Seconds of the longest backoff.
        failure_budget: Seconds for which the status requests of one task may fail, one after the other.
        not_found_grace: Seconds for which a task may be answered 404: it may not be known everywhere at once.
        max_retry_after: The longest ``Retry-After`` that is obeyed, in seconds.
        resend_uncertain: Whether a create whose fate nobody knows is sent again, and perhaps paid for twice.
    """

    attempts: int = field(default=6, validator=_count)
    backoff_initial: float = field(default=0.5, validator=_positive)
    backoff_max: float = field(default=30.0, validator=_positive)
    failure_budget: float = field(default=300.0, validator=_positive)
    not_found_grace: float = field(default=10.0, validator=_not_negative)
    max_retry_after: float = field(default=120.0, validator=_not_negative)
    resend_uncertain: bool = field(default=False, validator=_flag)

    def __attrs_post_init__(self) -> None:
        _ordered(self, "backoff_initial", "backoff_max")


@frozen(kw_only=True)
class Settings:
    """All settings of a session, in their groups.

    Raises:
        ConfigurationError: At construction, naming the group, the field, the value and the rule.
    """

    limits: Limits = field(factory=Limits, validator=_of(Limits))
    timeouts: Timeouts = field(factory=Timeouts, validator=_of(Timeouts))
    polling: Polling = field(factory=Polling, validator=_of(Polling))
    retries: Retries = field(factory=Retries, validator=_of(Retries))


def api_key_from(given: str | None, environment: Mapping[str, str] | None = None) -> str:
    """The API key: as given, or from ``KONTEXT_API_KEY``.

    Raises:
        ConfigurationError: There is none, or it cannot be sent in a header. The text does not show it.
    """
    source = os.environ if environment is None else environment
    key = given if given is not None else source.get("KONTEXT_API_KEY", "")
    if not isinstance(key, str):
        raise ConfigurationError("the API key must be text")
    key = key.strip()
    if not key:
        raise ConfigurationError("there is no API key: pass api_key, or set KONTEXT_API_KEY")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key holds characters that cannot be sent in a header")
    return key


def base_url_from(given: str | None, environment: Mapping[str, str] | None = None) -> str:
    """The gateway's address, without a slash at its end: as given, from ``KONTEXT_BASE_URL``, or the default.

    Raises:
        ConfigurationError: It is not an http(s) URL of a host, or holds a user, a query or a fragment.
    """
    source = os.environ if environment is None else environment
    url = given if given is not None else source.get("KONTEXT_BASE_URL") or DEFAULT_BASE_URL
    rule = "the base URL must be http(s)://HOST[:PORT][/PATH], without user, query or fragment"
    if not isinstance(url, str):
        raise ConfigurationError(rule)
    url = url.strip()
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        raise ConfigurationError(rule) from None
    if not allowed or parts.username is not None or not url.isprintable() or any(sign in url for sign in " ?#\\"):
        raise ConfigurationError(rule)
    return url.rstrip("/")

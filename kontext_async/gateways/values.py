"""The values that a gateway's interface speaks in: requests to be sent, and what responses say. Pure."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from attrs import Attribute, field, frozen

from kontext_async.base_errors import ConfigurationError
from kontext_async.protocol.requests import NO_BODY, CreateBody
from kontext_async.redaction import safe_repr, strip_query

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from yarl import URL

    from kontext_async.errors import GatewayError
    from kontext_async.gateways.references import Reference
    from kontext_async.models import TaskStatus

__all__ = [
    "ACCEPTED",
    "DEFAULT_OPTIONS",
    "Acceptance",
    "CancelReply",
    "Features",
    "GatewayOptions",
    "GatewayRequest",
    "ModelPool",
    "Purpose",
    "TaskPlace",
    "Webhook",
]

SECRET = re.compile(r"[!-~]+")

ACCEPTED = "accepted"
"""The raw status of a task whose create response has none."""


class TaskPlace(Protocol):
    """A task that can be polled: a `Reference`, or a record of the engine."""

    @property
    def task_id(self) -> str:
        """The task ID."""
        ...

    @property
    def model(self) -> str | None:
        """The model, if it is known."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """The task's own addresses, if it has any."""
        ...


class Purpose(enum.Enum):
    """The purpose of a request. It decides which method reads the response."""

    CREATE = "create"
    STATUS = "status"
    RESULT = "result"
    CANCEL = "cancel"
    PRICE = "price"
    BALANCE = "balance"


class GatewayRequest(NamedTuple):
    """A request to the gateway, ready to be sent.

    Each poll makes one: a frozen class of attrs would take three times as long.

    Attributes:
        purpose: Its purpose.
        method: The HTTP method.
        url: The URL. The gateway trusts its host with the key.
        headers: The headers, with the key: `Gateway.headers` itself where there is no body, and else these with the
            type of the body, which is JSON.
        body: The body, which is empty where there is none. A request that has one goes to the base URL.
    """

    purpose: Purpose
    method: str
    url: URL
    headers: Mapping[str, str]
    body: CreateBody = NO_BODY

    def __repr__(self) -> str:
        return f"<GatewayRequest {self.purpose.value}: {self.method} {strip_query(str(self.url))}>"


@frozen(kw_only=True)
class Acceptance:
    """The gateway has accepted a create request: the task is paid for.

    Attributes:
        status: The task's status. Its usage is the price, if the gateway names one.
        reference: The task's reference.
        problem: The reason why the task cannot be polled; None if it can be.
    """

    status: TaskStatus
    reference: Reference
    problem: GatewayError | None = None


class CancelReply(enum.Enum):
    """The gateway's response to a cancel request. Only the status says what became of the task."""

    TAKEN = "taken"
    REFUSED = "refused"


@frozen(kw_only=True)
class Features:
    """The abilities of a gateway.

    Attributes:
        cancel: It cancels tasks.
        estimate: It states the price of a request before it is paid.
        balance: It states the balance.
        webhook: It reports the end of a task by a webhook.
        price_at_create: The response to a create request may have the price.
        needs_model: A status request needs the model of the task.
        has_addresses: A task has an address of its own, and its ID is not enough to find it.
        output_formats: The formats that `KontextRequest.output_format` may have.
        top_level_fields: It takes `KontextRequest.moderation` and `KontextRequest.metadata`.
    """

    cancel: bool = False
    estimate: bool = False
    balance: bool = False
    webhook: bool = False
    price_at_create: bool = False
    needs_model: bool = False
    has_addresses: bool = False
    output_formats: tuple[str, ...] = ("jpeg", "png")
    top_level_fields: bool = False


@frozen
class ModelPool:
    """Models that share one limit on unfinished tasks.

    Attributes:
        name: The name of the pool.
        max_in_flight: The number of unfinished tasks at once that the gateway documents, or the usual default.
    """

    name: str
    max_in_flight: int = 24


def _check_url(_: Webhook, __: Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"webhook: {safe_repr(value)} is not allowed as its URL; it must be text")


def _check_secret(_: Webhook, __: Attribute[str | None], value: object) -> None:
    if value is not None and (not isinstance(value, str) or SECRET.fullmatch(value) is None):
        raise ConfigurationError("webhook: its secret must be visible ASCII characters, because a header has it")


@frozen(kw_only=True)
class Webhook:
    """An address to which the gateway reports the end of a task.

    Attributes:
        url: The address.
        secret: The text by which the receiver knows the gateway; None for none. No error and no ``repr`` shows it.

    Raises:
        ConfigurationError: The URL is no text, or the secret is not visible ASCII.
    """

    url: str = field(repr=strip_query, validator=_check_url)
    secret: str | None = field(default=None, repr=False, validator=_check_secret)


def _check_boolean(_: GatewayOptions, attribute: Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{attribute.name}: {safe_repr(value)} is not allowed; it must be True or False")


@frozen(kw_only=True)
class GatewayOptions:
    """The user's options for the gateway of a session.

    Attributes:
        trusted_hosts: Hosts that may see the key, beside those that the dialect trusts: ``host`` or ``host:port``.
        single_cluster: True if every server behind the base URL knows every task, so that an ID is enough.
    """

    trusted_hosts: Collection[str] = ()
    single_cluster: bool = field(default=False, validator=_check_boolean)


DEFAULT_OPTIONS = GatewayOptions()

"""The interface of a gateway: what to send, and what responses mean. No I/O, no await, no clock.

A dialect is one module with one subclass of `Gateway`. The engine knows only this interface: it builds no URL, and
knows no header, no path and no status word. A method that returns a `GatewayRequest` says what to send; a method that
begins with ``read`` says what came.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from kontext_async.base_errors import ConfigurationError, InvalidRequest
from kontext_async.cancellation import Cancellation
from kontext_async.decisions.urls import UnusableURL, to_request_url
from kontext_async.errors import AuthenticationFailed, GatewayError, InvalidResponse
from kontext_async.gateways.references import Reference, is_model
from kontext_async.gateways.trusted_hosts import TrustedHosts, UntrustedAddress
from kontext_async.gateways.values import (
    DEFAULT_OPTIONS,
    Acceptance,
    CancelReply,
    Features,
    GatewayOptions,
    GatewayRequest,
    ModelPool,
    Purpose,
    TaskPlace,
    Webhook,
)
from kontext_async.models import FailureKind, TaskState, TaskStatus
from kontext_async.protocol.errors import error_from_response, retry_after
from kontext_async.protocol.framing import is_whole
from kontext_async.protocol.task_ids import check_task_id
from kontext_async.protocol.tasks import InProgress
from kontext_async.redaction import strip_query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from yarl import URL

    from kontext_async.images import LoadedImage
    from kontext_async.models import Estimate, KontextRequest
    from kontext_async.protocol.http import Response
    from kontext_async.protocol.requests import CreateBody

__all__ = ["Gateway"]

CHECKED_ADDRESSES = 1024
"""The addresses of tasks that are not checked again for each poll: parsing one takes as long as ten status requests
take to be built."""


class Gateway(ABC):
    """The dialect of one gateway at one base URL, for one key.

    Args:
        base_url: The base URL, as `kontext_async.settings.find_base_url` returns it.
        api_key: The API key. No attribute of a request but its headers has it.
        options: The user's options.

    Attributes:
        base: The base URL.
        base_url: The base URL as it was given.
        trusted: The hosts that may see the key.

    Raises:
        ConfigurationError: The base URL or an option is not usable.
    """

    name: ClassVar[str]
    features: ClassVar[Features]
    default_base_url: ClassVar[str]
    key_variables: ClassVar[tuple[str, ...]] = ()
    """Environment variables that may have the key, before ``KONTEXT_API_KEY``."""
    pools: ClassVar[Mapping[str, ModelPool]] = MappingProxyType({})
    """The pools of the models that do not belong to the common one, by model."""
    common_pool: ClassVar[ModelPool] = ModelPool("all")

    def __init__(self, base_url: str, api_key: str, options: GatewayOptions = DEFAULT_OPTIONS) -> None:
        try:
            self.base = to_request_url(base_url)
        except UnusableURL as unusable:
            raise ConfigurationError(f"the base URL cannot be used: {unusable}") from None
        self.base_url = base_url
        self.options = options
        self._root = str(self.base).rstrip("/")
        self._headers: Mapping[str, str] = MappingProxyType({**self._authorize(api_key), "Accept": "application/json"})
        self._body_headers: Mapping[str, str] = MappingProxyType({**self._headers, "Content-Type": "application/json"})
        if not self.features.has_addresses and (options.trusted_hosts or options.single_cluster):
            given = "trusted_hosts" if options.trusted_hosts else "single_cluster"
            raise ConfigurationError(f"{given}: the gateway {self.name} has one address for all tasks; leave it out")
        self.trusted = TrustedHosts.of(self.base, self._find_suffixes(), options.trusted_hosts)
        self._check_address = lru_cache(CHECKED_ADDRESSES)(self.trusted.check)

    def __repr__(self) -> str:
        return f"<{self.name} gateway at {strip_query(self._root)}>"

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of every request without a body. They have the key."""
        return self._headers

    @property
    def id_is_enough(self) -> bool:
        """True if the ID alone finds any task."""
        return not self.features.needs_model and (not self.features.has_addresses or self.options.single_cluster)

    # What to send.

    def check(self, request: KontextRequest) -> None:
        """Refuse what the gateway does not take, before anything is sent.

        Raises:
            InvalidRequest: A field has a value that this gateway does not take.
        """
        features = self.features
        if request.output_format is not None and request.output_format not in features.output_formats:
            rule = f"the gateway {self.name} takes {' or '.join(map(repr, features.output_formats))}"
            raise InvalidRequest("output_format", request.output_format, rule)
        if not features.top_level_fields:
            for field_name, value in (("moderation", request.moderation), ("metadata", request.metadata)):
                if value is not None:
                    raise InvalidRequest(field_name, value, f"the gateway {self.name} has no such field: leave it out")
        if not is_model(request.model):
            raise InvalidRequest("model", request.model, "it must be the ID of a model, and not dots alone")

    def check_webhook(self, webhook: Webhook | None) -> None:
        """Refuse a webhook that the gateway does not take; None is none.

        Raises:
            ConfigurationError: The gateway has no webhooks, or not with these options, or not with this URL.
        """
        if webhook is not None:
            raise ConfigurationError(f"webhook: the gateway {self.name} has no webhooks; leave it out")

    @abstractmethod
    def create(
        self, request: KontextRequest, images: Sequence[LoadedImage], webhook: Webhook | None = None
    ) -> GatewayRequest:
        """Return the create request for a request with its loaded images.

        Args:
            request: The request, which `check` has passed.
            images: Its images.
            webhook: The webhook, which `check_webhook` has passed; None for none.
        """

    @abstractmethod
    def status(self, task: TaskPlace) -> GatewayRequest:
        """Return the status request for a task.

        Raises:
            InvalidRequest: What is known of the task is not enough, or its address is not trusted.
        """

    def cancel(self, task: TaskPlace) -> GatewayRequest:  # noqa: ARG002 # a gateway may have none
        """Return the request that cancels a task.

        Raises:
            ConfigurationError: The gateway cannot cancel tasks.
        """
        raise ConfigurationError(f"the gateway {self.name} cannot cancel a task: it runs to its end, and is billed")

    @abstractmethod
    def estimate(self, request: KontextRequest, images: Sequence[LoadedImage]) -> GatewayRequest | Estimate:
        """Return the price request for a request, or the price itself where the gateway has no such request.

        Raises:
            InvalidRequest: The gateway does not take a field.
        """

    def balance(self) -> GatewayRequest:
        """Return the request for the account's balance.

        Raises:
            ConfigurationError: The gateway does not state it.
        """
        raise ConfigurationError(f"the gateway {self.name} does not state the balance of an account")

    @abstractmethod
    def probe(self) -> GatewayRequest:
        """Return a request that the gateway responds to, that needs the key, and that costs nothing."""

    # What came.

    @abstractmethod
    def read_created(self, response: Response, *, model: str) -> Acceptance:
        """Read a response with a 2xx status to a create request.

        Raises:
            InvalidResponse: It cannot be read: the request may have been accepted.
            GatewayError: It is a refusal, despite the HTTP status.
        """

    def read_accepted(self, response: Response, *, model: str) -> str | Acceptance:
        """Read a response as `read_created`, but only the ID where that is enough: the task is in progress.

        Returns:
            What `read_created` returns; or the ID of a task in progress that is found by it, and that has no price yet.
        """
        return self.read_created(response, model=model)

    def accepted_despite_error(self, response: Response, *, model: str) -> Acceptance | None:
        """Return the task in an error response to a create request; None if it has none."""
        try:
            acceptance = self.read_created(response, model=model)
        except GatewayError:
            return None
        return None if acceptance.status.state is TaskState.FAILED else acceptance

    def read_poll(
        self, task: TaskPlace, request: GatewayRequest, response: Response
    ) -> InProgress | TaskStatus | GatewayRequest:
        """Read a response to a status or result request, but only the progress of a task that is in progress.

        Returns:
            The status; or the request to send next, whose response completes it.

        Raises:
            TaskNotFound: The gateway does not know the task. It may only not know it yet.
            GatewayError: The response cannot be read, or is no success.
        """
        status = self.read_status(task, request, response)
        if isinstance(status, TaskStatus) and not status.state.is_terminal:
            return InProgress(status.progress)
        return status

    @abstractmethod
    def read_status(self, task: TaskPlace, request: GatewayRequest, response: Response) -> TaskStatus | GatewayRequest:
        """Read a response to a status or result request in full; otherwise as `read_poll`."""

    @abstractmethod
    def read_retained(self, task: TaskPlace, body: bytes) -> TaskStatus:
        """Read the body of a 200 to a status request again, after `read_poll` found the task in progress."""

    def read_cancelled(self, response: Response) -> CancelReply:
        """Read the response to a cancel request.

        Raises:
            GatewayError: It says nothing about the task.
        """
        raise self.read_refusal(response)

    @abstractmethod
    def read_estimate(self, response: Response) -> Estimate:
        """Read a response with a 2xx status to a price request.

        Raises:
            GatewayError: It cannot be read, or is a refusal despite its status.
        """

    def read_balance(self, response: Response) -> Decimal:
        """Read a response with a 2xx status to a request for the balance, in USD.

        Raises:
            GatewayError: It cannot be read, or is a refusal despite its status.
        """
        raise InvalidResponse("the response has no balance", status=response.status)

    def read_refusal(self, response: Response, task_id: str | None = None) -> GatewayError:
        """Return the error for a response other than success."""
        return error_from_response(
            response.status,
            response.body,
            request_id=response.request_id,
            task_id=task_id,
            location=response.location,
            error_class=self._refusal_class(response),
        )

    def retry_after(self, response: Response, now: datetime) -> float | None:
        """Return the wait that a response asks for, in seconds; None if it names none."""
        return retry_after(response.retry_after, now)

    def is_readable(self, request: GatewayRequest, status: int, body: bytes) -> bool:  # noqa: ARG002 # a dialect may
        """Return True if what came of a response is enough, although the end of its body is missing."""
        return is_whole(status, body)

    def read_probe(self, response: Response) -> GatewayError | None:
        """Return None if the gateway itself responded to `probe` and takes the key; else the error."""
        if response.ok:
            is_own = response.body.lstrip()[:1] == b"{"
            return None if is_own else InvalidResponse("the response is not the gateway's", status=response.status)
        error = self.read_refusal(response)
        works = error.from_gateway and response.status < HTTPStatus.INTERNAL_SERVER_ERROR
        return None if works and not isinstance(error, AuthenticationFailed) else error

    def read_expiry(self, url: str) -> datetime | None:  # noqa: ARG002 # a dialect may
        """Return the time until which the URL of an image is valid; None if the URL does not state it."""
        return None

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:  # noqa: ARG002 # as above
        """Return True if a delivery of a webhook is the gateway's: it shows that it knows the secret.

        Args:
            headers: The headers, with names in any case.
            body: The body as it came.
            secret: The secret of the webhook.

        Raises:
            ConfigurationError: The gateway has no webhooks.
        """
        raise ConfigurationError(f"the gateway {self.name} has no webhooks")

    def read_delivery(self, body: bytes) -> str | None:  # noqa: ARG002 # as above
        """Return the ID of the task that a delivery of a webhook is about; None if it names none."""
        return None

    # References.

    def refer(self, task_id: str, model: str | None = None) -> Reference:
        """Return the reference of a task that has no addresses of its own."""
        return Reference(task_id, self.name, model=model if self.features.needs_model else None)

    def resolve(self, given: Reference | str) -> Reference:
        """Return the reference that a user gave, or that a plain task ID stands for, if it is enough to find the task.

        Raises:
            InvalidRequest: It is of another gateway, is not enough, or has an address that is not trusted.
        """
        reference = given if isinstance(given, Reference) else Reference(check_task_id(given), self.name)
        if reference.gateway != self.name:
            rule = f"it must be of the gateway {self.name}, which this session uses"
            raise InvalidRequest("reference", reference.gateway, rule)
        if self.features.needs_model and reference.model is None:
            rule = f"it needs the model: {self.name}:ID@MODEL"
            raise InvalidRequest("reference", reference.task_id, rule)
        for address in reference.addresses:
            self._find_trusted(address)
        if self.features.has_addresses and not reference.addresses and not self.options.single_cluster:
            rule = f"it needs the address of the task: {self.name}:ID@URL; an ID is enough with single_cluster=True"
            raise InvalidRequest("reference", reference.task_id, rule)
        return reference

    def judge_cancellation(self, status: TaskStatus | None) -> Cancellation:
        """Return what became of a task that was to be cancelled.

        Only the status says that: the response to the cancel request comes before the gateway knows it, or is lost.

        Args:
            status: The task's status after the cancel request; None if it is not known.
        """
        if status is None or not status.state.is_terminal:
            return Cancellation.UNKNOWN
        is_cancelled = status.error is not None and status.error.kind is FailureKind.CANCELLED
        return Cancellation.IN_TIME if is_cancelled else Cancellation.TOO_LATE

    def pool_of(self, model: str) -> ModelPool:
        """Return the pool of a model."""
        return self.pools.get(model, self.common_pool)

    # For the dialects.

    @abstractmethod
    def _authorize(self, api_key: str) -> dict[str, str]:
        """Return the headers that have the key."""

    def _find_suffixes(self) -> tuple[str, ...]:
        """Return the suffixes of the hosts that the dialect trusts."""
        return ()

    def _find_trusted(self, address: str) -> URL:
        """Return the URL of a task's own address.

        Raises:
            InvalidRequest: The key must not be sent there.
        """
        try:
            return self._check_address(address)
        except UntrustedAddress as untrusted:
            rule = f"{untrusted}; name the host in trusted_hosts if it belongs to the gateway"
            raise InvalidRequest("reference", strip_query(address), rule) from None

    def _refusal_class(self, response: Response) -> type[GatewayError] | None:  # noqa: ARG002 # a dialect may
        """Return the class of a refusal; None if its HTTP status decides."""
        return None

    def _get(self, purpose: Purpose, url: URL) -> GatewayRequest:
        return GatewayRequest(purpose, "GET", url, self._headers)

    def _post(self, purpose: Purpose, url: URL, body: CreateBody) -> GatewayRequest:
        return GatewayRequest(purpose, "POST", url, self._body_headers, body)

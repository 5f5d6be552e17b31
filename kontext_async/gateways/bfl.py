"""Black Forest Labs' own API, and the variant of it that Fireworks serves: PROTOCOL-BFL.md.

A task lives in one cluster, at the address that the response to the create request names. The same address with the ID
at the base URL is right only on the host that took the task.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from attrs import frozen
from yarl import URL

from kontext_async.base_errors import ConfigurationError, InvalidRequest
from kontext_async.decisions.urls import RedirectRefused, UnusableURL, follow_redirect, resolve_reference
from kontext_async.errors import AuthenticationFailed, GatewayError, InvalidResponse, RequestRejected, TaskNotFound
from kontext_async.gateways.base import Gateway
from kontext_async.gateways.bfl_tasks import (
    USD_PER_CREDIT,
    collect_texts,
    find_id,
    find_task,
    is_not_found,
    load_any,
    make_error,
    read_task,
)
from kontext_async.gateways.bfl_webhooks import is_authentic, read_task_id
from kontext_async.gateways.references import MAX_ADDRESS_LENGTH, Reference, is_model, to_address
from kontext_async.gateways.trusted_hosts import UntrustedAddress
from kontext_async.gateways.values import (
    ACCEPTED,
    DEFAULT_OPTIONS,
    Acceptance,
    Features,
    GatewayOptions,
    GatewayRequest,
    ModelPool,
    Purpose,
    Webhook,
)
from kontext_async.models import Estimate, TaskState, TaskStatus
from kontext_async.protocol.decoding import load_object
from kontext_async.protocol.framing import is_whole, read_cut_object
from kontext_async.protocol.http import Response
from kontext_async.protocol.requests import collect_params, encode_body
from kontext_async.protocol.values import read_money, read_number
from kontext_async.redaction import safe_repr, truncate, truncate_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kontext_async.gateways.values import TaskPlace
    from kontext_async.images import LoadedImage
    from kontext_async.models import KontextRequest

__all__ = ["BflGateway", "FireworksGateway"]

DEFAULT_FORMAT = "jpeg"
"""Sent where no format was chosen: the documents contradict each other about the gateway's own default."""

PRICES = MappingProxyType({"flux_kontext_pro": Decimal(4), "flux_kontext_max": Decimal(8)})
"""Credits by model, as Black Forest Labs publishes them."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEY_STATUSES = (HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)
ABOUT_KEY = re.compile(r"\bapi[ _-]?key\b|\bx-key\b|not authenticated", re.IGNORECASE)


@frozen(kw_only=True)
class BflVariant:
    """The addresses and the authentication of one server of this dialect.

    Attributes:
        key_header: The header that has the key.
        key_prefix: The text before the key.
        create_path: The path of a create request, with the model.
        result_path: The path of a status request, with the model and the ID.
        posts_status: True if a status request is a POST with the ID in its body.
        credits_path: The path of the balance; None if there is none.
        suffixes: The suffixes of hosts that may see the key.
        own_suffixes: Suffixes that count only where the base URL is below them.
        prices: Credits by model.
    """

    key_header: str
    key_prefix: str = ""
    create_path: str
    result_path: str
    posts_status: bool = False
    credits_path: str | None = None
    suffixes: tuple[str, ...] = ()
    own_suffixes: tuple[str, ...] = ()
    prices: Mapping[str, Decimal] = MappingProxyType({})


class BflGateway(Gateway):
    """Black Forest Labs' own API."""

    name = "bfl"
    default_base_url = "https://api.bfl.ai"
    key_variables = ("BFL_API_KEY",)
    features = Features(
        balance=True,
        webhook=True,
        price_at_create=True,
        has_addresses=True,
        output_formats=("jpeg", "png", "webp"),
    )
    pools = MappingProxyType({"flux_kontext_max": ModelPool("max", 6)})
    variant = BflVariant(
        key_header="x-key",
        create_path="/v1/{model}",
        result_path="/v1/get_result?id={id}",
        credits_path="/v1/credits",
        suffixes=(".bfl.ai",),
        own_suffixes=(".bfl.ml",),
        prices=PRICES,
    )

    def __init__(self, base_url: str, api_key: str, options: GatewayOptions = DEFAULT_OPTIONS) -> None:
        super().__init__(base_url, api_key, options)
        if self.base.scheme != "https" and not self.trusted.permits_http:
            rule = "its base URL must be https, or http on loopback, because tasks are polled with the key"
            raise ConfigurationError(f"the gateway {self.name} cannot be used: {rule}")

    def _authorize(self, api_key: str) -> dict[str, str]:
        return {self.variant.key_header: f"{self.variant.key_prefix}{api_key}"}

    def _find_suffixes(self) -> tuple[str, ...]:
        host = (self.base.raw_host or "").lower()
        return (*self.variant.suffixes, *(each for each in self.variant.own_suffixes if host.endswith(each)))

    # What to send.

    def create(
        self, request: KontextRequest, images: Sequence[LoadedImage], webhook: Webhook | None = None
    ) -> GatewayRequest:
        """Return the create request: the bare fields, and always a format."""
        params, inline = collect_params(request, images)
        params.setdefault("output_format", DEFAULT_FORMAT)
        if webhook is not None:
            params["webhook_url"] = to_address(webhook.url)
            if webhook.secret is not None:
                params["webhook_secret"] = webhook.secret
        url = self._make_url(self.variant.create_path, model=request.model)
        return self._post(Purpose.CREATE, url, encode_body(params, inline))

    def status(self, task: TaskPlace) -> GatewayRequest:
        """Return the status request for a task, at its own address if it has one."""
        if self.variant.posts_status:
            url = self._make_url(self.variant.result_path, model=task.model or "", task_id=task.task_id)
            return self._post(Purpose.STATUS, url, encode_body({"id": task.task_id}))
        if not task.addresses and self.options.single_cluster:
            return self._get(Purpose.STATUS, self._usual_url(task.task_id))
        if not task.addresses:
            raise InvalidRequest("reference", task.task_id, "the address of the task is not known")
        return self._get(Purpose.STATUS, self._find_trusted(task.addresses[0]))

    def pool_of(self, model: str) -> ModelPool:
        """Return the pool of a model, whose name may be written as in a path."""
        return super().pool_of(model.replace("-", "_"))

    def estimate(self, request: KontextRequest, images: Sequence[LoadedImage]) -> GatewayRequest | Estimate:
        """Return the published price: the gateway has no request for it."""
        del images
        self.check(request)
        price = self.variant.prices.get(request.model.replace("-", "_"))
        if price is None:
            return Estimate(model=request.model, reason=f"the gateway {self.name} does not state prices before paying")
        return Estimate(cost=price * USD_PER_CREDIT, model=request.model, extra={"source": "the published price list"})

    def balance(self) -> GatewayRequest:
        """Return the request for the account's credits."""
        if self.variant.credits_path is None:
            return super().balance()
        return self._get(Purpose.BALANCE, self._make_url(self.variant.credits_path))

    def probe(self) -> GatewayRequest:
        """Return a request for the credits, or else for a task that does not exist: both are free."""
        if self.variant.credits_path is not None:
            return self.balance()
        return self.status(Reference("00000000-0000-0000-0000-000000000000", self.name, model="flux-kontext-pro"))

    def _make_url(self, path: str, *, model: str = "", task_id: str = "") -> URL:
        filled = path.format(model=model.replace("_", "-"), id=quote(task_id, safe=""))
        return URL(f"{self._root}{filled}", encoded=True)

    def _usual_url(self, task_id: str) -> URL:
        return self._make_url(self.variant.result_path, task_id=task_id)

    def check_webhook(self, webhook: Webhook | None) -> None:
        """Refuse a webhook whose task could not be polled, or that the gateway would not take."""
        if webhook is None or not self.features.webhook:
            super().check_webhook(webhook)
            return
        if not isinstance(webhook, Webhook):
            raise ConfigurationError(f"webhook: {safe_repr(webhook)} is not allowed; it must be a Webhook")
        if not self.options.single_cluster:
            rule = (
                "a task with a webhook has no address of its own, and its ID is enough only where every server behind "
                "the base URL knows it: pass single_cluster=True if that is so"
            )
            raise ConfigurationError(f"webhook: {rule}")
        schemes = ("https://", "http://") if self.trusted.permits_http else ("https://",)
        address = to_address(webhook.url)
        if address is None or not address.startswith(schemes) or len(webhook.url) > MAX_ADDRESS_LENGTH:
            rule = f"its URL must be https with a host, without a user, of at most {MAX_ADDRESS_LENGTH} characters"
            raise ConfigurationError(f"webhook: {rule}")

    # What came.

    def read_created(self, response: Response, *, model: str) -> Acceptance:
        """Read a response with a 2xx status to a create request. A cut one is enough if it has the ID."""
        try:
            payload = load_object(response.body, response.status)
        except InvalidResponse:
            payload = read_cut_object(response.body)
            if find_id(payload) is None:
                raise
        task_id = find_id(payload)
        if task_id is None:
            if payload.get("errors"):
                raise self._refused_in_success(response, payload)
            raise make_error("the response has no task ID", response)
        address, problem = self._read_address(payload.get("polling_url"), task_id, response)
        reference = Reference(
            task_id,
            self.name,
            model=model if self.features.needs_model and is_model(model) else None,
            addresses=() if address is None else (address,),
        )
        status = read_task(payload, task_id, response)
        return Acceptance(status=status, reference=reference, problem=problem)

    def accepted_despite_error(self, response: Response, *, model: str) -> Acceptance | None:
        """Return the task in an error response to a create request. An error may have an ID of another kind."""
        payload = load_any(response.body)
        if not any(isinstance(payload.get(key), str) for key in ("polling_url", "status")):
            return None
        return super().accepted_despite_error(response, model=model)

    def _read_address(self, given: object, task_id: str, response: Response) -> tuple[str | None, GatewayError | None]:
        """Return the address of a new task, and the reason why it must not be polled there."""
        if not self.features.has_addresses:
            return None, None
        if not isinstance(given, str) or not given.strip():
            return str(self._usual_url(task_id)), None
        try:
            address = to_address(str(self.trusted.check(given)))
        except UntrustedAddress as untrusted:
            reason = str(untrusted)
        else:
            if address is not None:
                return address, None
            reason = f"the address is longer than {MAX_ADDRESS_LENGTH} characters"
        kept = self._resolve(given)
        reference = Reference(task_id, self.name, addresses=() if kept is None else (kept,))
        problem = InvalidResponse(
            f"the task is accepted and billed, but it is not polled where the gateway says, because the key would be "
            f"sent there: {truncate(reason)}; if the host belongs to the gateway, name it in trusted_hosts and attach "
            f"{reference}",
            status=response.status,
            request_id=response.request_id,
            may_be_charged=True,
        )
        return kept, problem.with_task(task_id, str(reference))

    def _resolve(self, address: str) -> str | None:
        """Return an address that is not trusted as a reference keeps it; None if it cannot be kept."""
        try:
            return to_address(str(resolve_reference(self.base, address)))
        except UnusableURL:
            return None

    def _refused_in_success(self, response: Response, payload: Mapping[str, Any]) -> GatewayError:
        reasons = "; ".join(collect_texts(payload["errors"])) or "no reason was given"
        error_class = AuthenticationFailed if ABOUT_KEY.search(reasons) else RequestRejected
        return error_class(
            f"the gateway returned HTTP {response.status} with errors: {truncate(reasons)}",
            status=response.status,
            body=truncate_body(response.body),
            from_gateway=True,
            request_id=response.request_id,
        )

    def read_status(self, task: TaskPlace, request: GatewayRequest, response: Response) -> TaskStatus | GatewayRequest:
        """Read a response to a status request in full. The status in its body counts, whatever the HTTP status is."""
        payload = find_task(response, task.task_id)
        if payload is not None:
            if is_not_found(payload):
                reason = "the gateway does not know this task, or no longer keeps it"
                raise TaskNotFound(reason, task_id=task.task_id, request_id=response.request_id)
            return read_task(payload, task.task_id, response)
        if response.status in REDIRECTS and response.location and request.method == "GET":
            return self._follow(request, response.location, response, task.task_id)
        if response.status == HTTPStatus.ACCEPTED:
            return TaskStatus(task_id=task.task_id, state=TaskState.IN_PROGRESS, raw_status=ACCEPTED)
        if not response.ok:
            raise self.read_refusal(response, task.task_id)
        found = find_id(load_object(response.body, response.status))
        if found is not None and found != task.task_id:
            raise make_error(f"the response is about task {truncate(found, 80)!r}", response)
        raise make_error("the response has no status", response)

    def read_retained(self, task: TaskPlace, body: bytes) -> TaskStatus:
        """Read the body of a response to a status request again."""
        response = Response(HTTPStatus.OK.value, body)
        return read_task(load_object(body, response.status), task.task_id, response)

    def _follow(self, request: GatewayRequest, location: str, response: Response, task_id: str) -> GatewayRequest:
        """Return the request to the target of a redirect, which must be trusted too."""
        try:
            url = self.trusted.check(str(follow_redirect(request.url, location)))
        except (UnusableURL, RedirectRefused, UntrustedAddress) as refused:
            error = self.read_refusal(response, task_id)
            error.args = (f"the gateway redirects a poll, which is not followed: {truncate(str(refused))}",)
            error.may_be_charged = True
            raise error from None
        return request._replace(url=url)

    def read_estimate(self, response: Response) -> Estimate:
        """Refuse any response: no request for a price is sent."""
        raise make_error("the gateway does not state prices", response)

    def read_balance(self, response: Response) -> Decimal:
        """Read the account's credits, in USD."""
        credit = read_money(load_object(response.body, response.status).get("credits"))
        if credit is None:
            raise make_error("the response has no credits", response)
        return credit * USD_PER_CREDIT

    def read_probe(self, response: Response) -> GatewayError | None:
        """Return None also if a task that does not exist is not found."""
        is_own = response.status == HTTPStatus.NOT_FOUND and isinstance(load_any(response.body).get("status"), str)
        return None if is_own else super().read_probe(response)

    def is_authentic(self, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
        """Return True if a delivery has the secret in either documented form."""
        if not self.features.webhook:
            return super().is_authentic(headers, body, secret)
        return is_authentic(headers, body, secret)

    def read_delivery(self, body: bytes) -> str | None:
        """Return the ID that either documented form of a body has."""
        return read_task_id(body)

    def read_expiry(self, url: str) -> datetime | None:
        """Return the time of the signature's ``se``, as Azure writes it."""
        try:
            moment = datetime.fromisoformat(parse_qs(urlsplit(url).query)["se"][0])
        except (KeyError, ValueError):
            return None
        return moment.astimezone(UTC) if moment.tzinfo else None

    def retry_after(self, response: Response, now: datetime) -> float | None:
        """Return the wait that the header asks for, or the body of a 429."""
        wait = super().retry_after(response, now)
        if wait is not None or response.status != HTTPStatus.TOO_MANY_REQUESTS:
            return wait
        seconds = read_number(load_any(response.body).get("retry_after"))
        return None if seconds is None else max(0.0, seconds)

    def is_readable(self, request: GatewayRequest, status: int, body: bytes) -> bool:
        """Return True also for a cut response to a create request that has the ID."""
        if is_whole(status, body):
            return True
        return request.purpose is Purpose.CREATE and find_id(read_cut_object(body)) is not None

    def _refusal_class(self, response: Response) -> type[GatewayError] | None:
        """Return `AuthenticationFailed` for a 403 or 422 about the key."""
        if response.status not in KEY_STATUSES:
            return None
        detail = load_any(response.body).get("detail")
        if isinstance(detail, str):
            return AuthenticationFailed if ABOUT_KEY.search(detail) else None
        items = detail if isinstance(detail, list) else []
        places = [item.get("loc") for item in items if isinstance(item, dict)]
        return AuthenticationFailed if ["header", self.variant.key_header] in places else None


class FireworksGateway(BflGateway):
    """Fireworks' variant: the same requests and statuses at other addresses, with another header."""

    name = "fireworks"
    default_base_url = "https://api.fireworks.ai/inference/v1/workflows/accounts/fireworks/models"
    key_variables = ("FIREWORKS_API_KEY",)
    features = Features(needs_model=True)
    pools = MappingProxyType({})
    variant = BflVariant(
        key_header="Authorization",
        key_prefix="Bearer ",
        create_path="/{model}",
        result_path="/{model}/get_result",
        posts_status=True,
    )

"""The plain dialect of the vendor's gateway: PROTOCOL.md. It is the default."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from yarl import URL

from kontext_async.errors import InvalidResponse
from kontext_async.gateways.base import Gateway
from kontext_async.gateways.references import Reference
from kontext_async.gateways.values import DEFAULT_OPTIONS, Acceptance, Features, GatewayOptions, GatewayRequest, Purpose
from kontext_async.gateways.vtrix_estimates import read_estimate
from kontext_async.gateways.vtrix_tasks import read_accepted, read_created, read_poll, read_status
from kontext_async.models import KontextRequest
from kontext_async.protocol.decoding import load_object
from kontext_async.protocol.errors import refusal_despite_success
from kontext_async.protocol.requests import NO_BODY, encode_create
from kontext_async.protocol.values import USD, read_currency, read_money
from kontext_async.redaction import truncate_body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from kontext_async.gateways.values import TaskPlace, Webhook
    from kontext_async.images import LoadedImage
    from kontext_async.models import Estimate, TaskStatus
    from kontext_async.protocol.http import Response
    from kontext_async.protocol.tasks import InProgress

__all__ = ["VtrixGateway"]

STATUS = Purpose.STATUS
make_tuple = tuple.__new__
"""Makes the request of a poll in half the time that the class takes."""

PROBE = KontextRequest("a probe")
"""The request whose price is the probe: nothing is generated or billed."""


class VtrixGateway(Gateway):
    """The vendor's gateway in its plain dialect: a task's ID is enough to find it."""

    name = "vtrix"
    default_base_url = "https://cloud.vtrix.ai"
    features = Features(estimate=True, balance=True, top_level_fields=True)

    def __init__(self, base_url: str, api_key: str, options: GatewayOptions = DEFAULT_OPTIONS) -> None:
        super().__init__(base_url, api_key, options)
        self._create_url = URL(f"{self._root}/model/v1/generation", encoded=True)
        self._price_url = URL(f"{self._root}/model/v1/generation/precharge", encoded=True)
        self._balance_url = URL(f"{self._root}/api/v1/user/balance", encoded=True)
        self._task_prefix = f"{self._root}/model/v1/generation/task/"

    def _authorize(self, api_key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {api_key}"}

    def create(
        self,
        request: KontextRequest,
        images: Sequence[LoadedImage],
        webhook: Webhook | None = None,  # noqa: ARG002 # the gateway has none
    ) -> GatewayRequest:
        """Return the create request: see `Gateway.create`."""
        return self._post(Purpose.CREATE, self._create_url, encode_create(request, images))

    def status(self, task: TaskPlace) -> GatewayRequest:
        """Return the status request for a task. The ID is quoted, so that it cannot change the path."""
        task_id = task.task_id
        is_plain = task_id.isascii() and task_id.isalnum()  # the usual ID; quoting costs as much as all the rest
        url = URL(self._task_prefix + (task_id if is_plain else quote(task_id, safe="")), encoded=True)
        return make_tuple(GatewayRequest, (STATUS, "GET", url, self._headers, NO_BODY))

    def estimate(self, request: KontextRequest, images: Sequence[LoadedImage]) -> GatewayRequest | Estimate:
        """Return the price request, which has the body of a create request."""
        self.check(request)
        return self._post(Purpose.PRICE, self._price_url, encode_create(request, images))

    def balance(self) -> GatewayRequest:
        """Return the request for the account's balance."""
        return self._get(Purpose.BALANCE, self._balance_url)

    def probe(self) -> GatewayRequest:
        """Return a price request."""
        return self._post(Purpose.PRICE, self._price_url, encode_create(PROBE, ()))

    def read_created(self, response: Response, *, model: str) -> Acceptance:  # noqa: ARG002 # the ID is enough
        """Read a response with a 2xx status to a create request: see `Gateway.read_created`."""
        return self._accept(read_created(response.body, status=response.status))

    def read_accepted(self, response: Response, *, model: str) -> str | Acceptance:  # noqa: ARG002 # the ID is enough
        """Read a response with a 2xx status to a create request: see `Gateway.read_accepted`."""
        accepted = read_accepted(response.body, status=response.status)
        return accepted if isinstance(accepted, str) else self._accept(accepted)

    def _accept(self, status: TaskStatus) -> Acceptance:
        return Acceptance(status=status, reference=Reference(status.task_id.strip(), self.name))

    def read_poll(
        self, task: TaskPlace, request: GatewayRequest, response: Response
    ) -> InProgress | TaskStatus | GatewayRequest:
        """Read a response to a status request: see `Gateway.read_poll`."""
        del request
        if response.ok:
            return read_poll(response.body, task.task_id, response.status)
        raise self.read_refusal(response, task.task_id)

    def read_status(self, task: TaskPlace, request: GatewayRequest, response: Response) -> TaskStatus | GatewayRequest:
        """Read a response to a status request in full."""
        del request
        if response.ok:
            return read_status(response.body, task.task_id, response.status)
        raise self.read_refusal(response, task.task_id)

    def read_retained(self, task: TaskPlace, body: bytes) -> TaskStatus:
        """Read the body of a response to a status request again."""
        return read_status(body, task.task_id)

    def read_estimate(self, response: Response) -> Estimate:
        """Read a response with a 2xx status to a price request."""
        return read_estimate(response.body, status=response.status)

    def read_balance(self, response: Response) -> Decimal:
        """Read the balance in USD: ``{"status": {…}, "data": {"balance": "0.96", "currency": "USD"}}``."""
        payload = load_object(response.body, response.status)
        if refusal := refusal_despite_success(response.status, response.body):
            raise refusal
        data = payload.get("data")
        fields = data if isinstance(data, dict) else {}
        balance = read_money(fields.get("available_balance", fields.get("balance")))
        if balance is None or read_currency(fields.get("currency")) != USD:
            body = truncate_body(response.body)
            raise InvalidResponse("the response has no balance in USD", status=response.status, body=body)
        return balance

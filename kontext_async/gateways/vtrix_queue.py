"""The queue dialect of the vendor's gateway: PROTOCOL.md, "The queue dialect".

A status says whether a task has ended; a second request has its result, and may say that the task failed although its
status said that it completed. A task's addresses are used as they came if they are on the origin of the base URL. Of an
address elsewhere, the path and the query count, at the base's origin.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attrs import evolve
from yarl import URL

from kontext_async.decisions.urls import UnusableURL, resolve_reference
from kontext_async.errors import InvalidResponse
from kontext_async.gateways.base import Gateway
from kontext_async.gateways.references import Reference, to_address
from kontext_async.gateways.values import (
    ACCEPTED,
    DEFAULT_OPTIONS,
    Acceptance,
    CancelReply,
    Features,
    GatewayOptions,
    GatewayRequest,
    Purpose,
)
from kontext_async.gateways.vtrix import VtrixGateway
from kontext_async.models import FailureKind, GeneratedImage, TaskErrorDetail, TaskState, TaskStatus
from kontext_async.protocol.decoding import load_object
from kontext_async.protocol.errors import refusal_despite_success
from kontext_async.protocol.framing import is_whole, read_cut_object
from kontext_async.protocol.requests import collect_params, encode_body
from kontext_async.protocol.task_ids import is_task_id
from kontext_async.protocol.tasks import MAX_IMAGES, MAX_STATUS_LENGTH, read_usage
from kontext_async.protocol.values import read_fraction, read_text
from kontext_async.redaction import truncate, truncate_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kontext_async.gateways.values import TaskPlace, Webhook
    from kontext_async.images import LoadedImage
    from kontext_async.models import KontextRequest
    from kontext_async.protocol.http import Response

__all__ = ["VtrixQueueGateway"]

STATES = {
    ACCEPTED: TaskState.IN_PROGRESS,
    "in_queue": TaskState.IN_PROGRESS,
    "queued": TaskState.IN_PROGRESS,
    "in_progress": TaskState.IN_PROGRESS,
    "completed": TaskState.COMPLETED,
    "succeeded": TaskState.COMPLETED,
    "success": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
    "error": TaskState.FAILED,
    "cancelled": TaskState.FAILED,
    "canceled": TaskState.FAILED,
}
CANCELLED = frozenset({"cancelled", "canceled"})

ADDRESS_KEYS = ("status_url", "response_url", "cancel_url")
STEPS = ("status", "response", "cancel")

CANCEL_TAKEN = (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT)
CANCEL_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)

DESCRIBED_KEYS = frozenset(
    {"request_id", "id", "status", "progress", "error", "error_type", "provider_error", "outputs", "usage", "metadata"}
) | {*ADDRESS_KEYS}


class VtrixQueueGateway(VtrixGateway):
    """The vendor's gateway in its queue dialect. Prices and the balance are those of the plain dialect."""

    name = "vtrix-queue"
    features = Features(cancel=True, estimate=True, balance=True, needs_model=True)

    def __init__(self, base_url: str, api_key: str, options: GatewayOptions = DEFAULT_OPTIONS) -> None:
        super().__init__(base_url, api_key, options)
        self._queue_prefix = f"{self._root}/model/v1/queue/"

    def create(
        self,
        request: KontextRequest,
        images: Sequence[LoadedImage],
        webhook: Webhook | None = None,  # noqa: ARG002 # the gateway has none
    ) -> GatewayRequest:
        """Return the create request: the bare fields of the model."""
        params, inline = collect_params(request, images)
        url = URL(self._queue_prefix + request.model, encoded=True)
        return self._post(Purpose.CREATE, url, encode_body(params, inline))

    def status(self, task: TaskPlace) -> GatewayRequest:
        """Return the status request for a task."""
        return self._get(Purpose.STATUS, self._find_address(task, 0))

    def cancel(self, task: TaskPlace) -> GatewayRequest:
        """Return the request that cancels a task."""
        url = self._find_address(task, 2)
        return GatewayRequest(Purpose.CANCEL, "PUT", url, self._headers)

    def read_created(self, response: Response, *, model: str) -> Acceptance:
        """Read a response with a 2xx status to a create request. A cut one is enough if it has the ID."""
        payload = _load_created(response)
        if refusal := refusal_despite_success(response.status, response.body):
            raise refusal
        task_id = _find_created(payload)
        if task_id is None:
            raise _make_error("the response has no request ID", response)
        given = [self._move_to_base(payload.get(key)) for key in ADDRESS_KEYS]
        usual = [str(self._usual_url(task_id, model, step)) for step in STEPS]
        own = tuple(address or default for address, default in zip(given, usual, strict=True))
        addresses = () if list(own) == usual else own
        status = _read_task(payload, task_id)
        if status.state is TaskState.COMPLETED and not status.images:
            status = evolve(status, state=TaskState.IN_PROGRESS)  # the result is the response to another request
        return Acceptance(status=status, reference=Reference(task_id, self.name, model=model, addresses=addresses))

    def read_accepted(self, response: Response, *, model: str) -> str | Acceptance:
        """Read a response with a 2xx status to a create request in full: a task is not found by its ID alone."""
        return self.read_created(response, model=model)

    def accepted_despite_error(self, response: Response, *, model: str) -> Acceptance | None:
        """Return the task in an error response to a create request. The ID of an HTTP request has the same name."""
        try:
            payload = _load_created(response)
        except InvalidResponse:
            return None
        if not any(isinstance(payload.get(key), str) for key in ("status", *ADDRESS_KEYS)):
            return None
        return super().accepted_despite_error(response, model=model)

    read_poll = Gateway.read_poll  # the task API's reads another shape

    def read_status(self, task: TaskPlace, request: GatewayRequest, response: Response) -> TaskStatus | GatewayRequest:
        """Read a response to a status or result request in full. A completed task needs both."""
        if not response.ok:
            raise self.read_refusal(response, task.task_id)
        is_result = request.purpose is Purpose.RESULT
        if is_result and response.status == HTTPStatus.ACCEPTED:
            return TaskStatus(task_id=task.task_id, state=TaskState.IN_PROGRESS, raw_status="IN_PROGRESS")
        payload = load_object(response.body, response.status)
        if "status" not in payload and (refusal := refusal_despite_success(response.status, response.body)):
            raise refusal
        if is_result and "status" not in payload:
            payload["status"] = "COMPLETED"
        found = _find_id(payload)
        if found is not None and found != task.task_id:
            raise _make_error(f"the response is about task {truncate(found, 80)!r}", response)
        if not isinstance(payload.get("status"), str):
            raise _make_error("the response has no status", response)
        status = _read_task(payload, task.task_id)
        if is_result or status.state is not TaskState.COMPLETED or isinstance(payload.get("outputs"), list):
            return status
        url = self._move_to_base(payload.get("response_url"))
        return self._get(Purpose.RESULT, URL(url, encoded=True) if url else self._find_address(task, 1))

    def read_retained(self, task: TaskPlace, body: bytes) -> TaskStatus:
        """Read the body of a response to a status request again."""
        payload = load_object(body, HTTPStatus.OK.value)
        return _read_task(payload, task.task_id)

    def read_cancelled(self, response: Response) -> CancelReply:
        """Read the response to a cancel request, which is not documented: its HTTP status alone counts."""
        if response.status in CANCEL_TAKEN:
            return CancelReply.TAKEN
        if response.status in CANCEL_REFUSED:
            return CancelReply.REFUSED
        raise self.read_refusal(response)

    def is_readable(self, request: GatewayRequest, status: int, body: bytes) -> bool:
        """Return True also for a cut response to a create request that has the ID."""
        if is_whole(status, body):
            return True
        return request.purpose is Purpose.CREATE and _find_id(read_cut_object(body)) is not None

    def _usual_url(self, task_id: str, model: str | None, step: str) -> URL:
        path = f"{model or ''}/requests/{quote(task_id, safe='')}/{step}"
        return URL(self._queue_prefix + path, encoded=True)

    def _find_address(self, task: TaskPlace, step: int) -> URL:
        """Return the address of a task for a step: its own, or the usual one."""
        if step < len(task.addresses):
            return self._find_trusted(task.addresses[step])
        return self._usual_url(task.task_id, task.model, STEPS[step])

    def _move_to_base(self, address: object) -> str | None:
        """Return an address of a response at the base's origin, where alone the key may go; None for no address."""
        if not isinstance(address, str) or not address.strip():
            return None
        try:
            url = resolve_reference(self.base, address)
        except UnusableURL:
            return None
        path, prefix = url.raw_path_qs, self.base.raw_path.rstrip("/")
        if prefix and url.raw_host != self.base.raw_host and not path.startswith(f"{prefix}/"):
            path = prefix + path  # a proxy before the gateway, which the gateway does not know
        return to_address(f"{self.base.scheme}://{self.base.raw_authority}{path}")


def _find_id(payload: Mapping[str, Any]) -> str | None:
    for key in ("request_id", "id"):
        value = payload.get(key)
        if isinstance(value, str) and value.strip() == value and is_task_id(value):
            return value
    return None


def _load_created(response: Response) -> dict[str, Any]:
    """Return the JSON of a response to a create request. A cut one is enough if it has the ID.

    Raises:
        InvalidResponse: It is not a JSON object.
    """
    try:
        return load_object(response.body, response.status)
    except InvalidResponse:
        payload = read_cut_object(response.body)
        if _find_created(payload) is None:
            raise
        return payload


def _find_created(payload: Mapping[str, Any]) -> str | None:
    """Return the ID of a task in the response to a create request. An error has an ID too: that of the HTTP request."""
    is_error = payload.get("error") is not None and not isinstance(payload.get("status"), str)
    return None if is_error else _find_id(payload)


def _read_task(payload: Mapping[str, Any], task_id: str) -> TaskStatus:
    raw = payload.get("status")
    raw = raw if isinstance(raw, str) else ACCEPTED
    word = raw.strip().lower().replace(" ", "_")
    state = STATES.get(word, TaskState.UNKNOWN)
    has_error = payload.get("error") is not None
    if state is TaskState.COMPLETED and has_error:
        state = TaskState.FAILED
    outputs = payload.get("outputs")
    items = [item for item in outputs if isinstance(item, dict)] if isinstance(outputs, list) else []
    metadata = payload.get("metadata")
    return TaskStatus(
        task_id=task_id,
        state=state,
        raw_status=truncate(raw, MAX_STATUS_LENGTH),
        progress=read_fraction(payload.get("progress")),
        error=_read_error(payload, word) if state is TaskState.FAILED or has_error else None,
        images=tuple(_read_images(items[:MAX_IMAGES], task_id)) if state is TaskState.COMPLETED else (),
        usage=read_usage(payload.get("usage")),
        metadata=metadata if isinstance(metadata, dict) else {},
        extra={key: value for key, value in payload.items() if key not in DESCRIBED_KEYS},
        omitted_images=max(0, len(items) - MAX_IMAGES),
    )


def _read_images(items: Sequence[Mapping[str, Any]], task_id: str) -> list[GeneratedImage]:
    return [
        GeneratedImage(url=url, type=read_text(item.get("type")) or "image", task_id=task_id)
        for item in items
        if isinstance(url := item.get("url"), str) and url
    ]


def _read_error(payload: Mapping[str, Any], word: str) -> TaskErrorDetail:
    provider = payload.get("provider_error")
    details = provider if isinstance(provider, dict) else {}
    error_type = read_text(payload.get("error_type"))
    error = payload.get("error")
    nested = error if isinstance(error, dict) else {}
    message = nested.get("message") if nested else error
    code = details.get("code", nested.get("code")) or error_type
    is_cancelled = word in CANCELLED or (error_type or "").lower() in CANCELLED
    return TaskErrorDetail(
        code=None if code is None else truncate(code, 80),
        message=truncate(message or details.get("message") or error_type or "no reason was given"),
        kind=FailureKind.CANCELLED if is_cancelled else FailureKind.ERROR,
    )


def _make_error(message: str, response: Response) -> InvalidResponse:
    return InvalidResponse(message, status=response.status, body=truncate_body(response.body))

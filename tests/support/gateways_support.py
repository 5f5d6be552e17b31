"""Gateways at their usual base URLs, and what each of them responds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import frozen

from kontext_async.gateways import GATEWAYS, GatewayOptions, make_gateway
from kontext_async.gateways.references import Reference
from kontext_async.protocol.http import Response

if TYPE_CHECKING:
    from kontext_async.gateways import Gateway, GatewayRequest

KEY = "sk-test-0123456789abcdef"
ID = "b9b172a8-e39c-47b2-8f1a-cb8925f3532e"
MODEL = "flux_kontext_pro"
POLLING_URL = f"https://api.us1.bfl.ai/v1/get_result?id={ID}"
IMAGE_URL = "https://delivery-eu1.bfl.ai/results/a/sample.jpeg?se=2025-07-14T07%3A36%3A43Z&sp=r&sig=a%2Fb%3D"


@frozen(kw_only=True)
class Dialect:
    """The responses of one gateway, as JSON."""

    created: dict[str, Any]
    in_progress: dict[str, Any]
    completed: dict[str, Any]
    failed: dict[str, Any]


DIALECTS = {
    "vtrix": Dialect(
        created={"id": ID, "status": "in_progress"},
        in_progress={"id": ID, "status": "in_progress", "progress": 0.4},
        completed={"id": ID, "status": "completed", "output": [{"content": [{"type": "image", "url": IMAGE_URL}]}]},
        failed={"id": ID, "status": "failed", "error": {"code": "E7", "message": "it went wrong"}},
    ),
    "vtrix-queue": Dialect(
        created={"request_id": ID, "status": "queued", "queue_position": 3},
        in_progress={"request_id": ID, "status": "IN_PROGRESS", "progress": 0.4},
        completed={"request_id": ID, "status": "COMPLETED", "outputs": [{"type": "image", "url": IMAGE_URL}]},
        failed={
            "request_id": ID,
            "status": "COMPLETED",
            "error": "it went wrong",
            "provider_error": {"code": "E7", "message": "it went wrong"},
        },
    ),
    "bfl": Dialect(
        created={"id": ID, "polling_url": POLLING_URL, "cost": 4.0, "input_mp": 0.0, "output_mp": 1.05},
        in_progress={"id": ID, "status": "Pending", "result": None, "progress": 0.4},
        completed={"id": ID, "status": "Ready", "result": {"sample": IMAGE_URL, "prompt": "a fox", "seed": 42}},
        failed={"id": ID, "status": "Error", "result": None, "details": {"reason": "it went wrong"}},
    ),
    "fireworks": Dialect(
        created={"request_id": ID},
        in_progress={"id": ID, "status": "Pending", "result": None, "progress": 0.4},
        completed={"id": ID, "status": "Ready", "result": {"sample": IMAGE_URL}},
        failed={"id": ID, "status": "Error", "result": None, "details": "it went wrong"},
    ),
}


def new_gateway(name: str, base_url: str | None = None, **options: Any) -> Gateway:
    """Return a gateway with `KEY`."""
    return make_gateway(name, KEY, base_url, GatewayOptions(**options))


def respond(content: Any, status: int = 200, **fields: Any) -> Response:
    """Return a response with JSON, or with the bytes as they are."""
    return Response(status, content if isinstance(content, bytes) else json.dumps(content).encode(), **fields)


def refer(name: str, **fields: Any) -> Reference:
    """Return the reference of the task `ID`, as its gateway makes it."""
    features = GATEWAYS[name].features
    usual: dict[str, Any] = {"model": MODEL} if features.needs_model else {}
    return Reference(
        ID, name, **{**usual, **({"addresses": (POLLING_URL,)} if features.has_addresses else {}), **fields}
    )


def body_of(request: GatewayRequest) -> dict[str, Any]:
    """Return the JSON that a request sends."""
    data = b"".join(request.body.pieces())
    assert len(data) == request.body.length
    content: dict[str, Any] = json.loads(data)
    return content

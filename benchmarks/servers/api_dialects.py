"""The responses of several gateways: complete HTTP responses of fixed length, with placeholders for a task's fields."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

__all__ = ["DIALECTS", "PROGRESS_PLACEHOLDER", "Dialect", "build_http_response"]

MODEL = "flux_kontext_pro"
ISO_TIME = "2026-01-09T13:33:30.000Z"
ID_PLACEHOLDER = "{12345678}"
"""Stands for a task ID, which has the same length."""

TIME_PLACEHOLDER = 1234567890
"""Stands for a time in seconds since the epoch."""

PROGRESS_PLACEHOLDER = 0.8765
"""Stands for a progress with the same number of digits."""


def build_http_response(body: bytes, status: str = "200 OK") -> bytes:
    """Return a complete HTTP response."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _build_template(payload: dict[str, Any], status: str = "200 OK") -> bytes:
    response = build_http_response(json.dumps(payload).encode(), status).replace(b"%", b"%%")
    fields = {ID_PLACEHOLDER: b"%(id)b", str(TIME_PLACEHOLDER): b"%(when)b", str(PROGRESS_PLACEHOLDER): b"%(progress)b"}
    for placeholder, name in fields.items():
        response = response.replace(placeholder.encode(), name)
    return response


@frozen(kw_only=True)
class Dialect:
    """Templates of one gateway's responses.

    Attributes:
        created: To a create request.
        pending: To a status request for a task that is not completed.
        completed: To a status request for a completed task.
        result: To a request for the result, where that takes a request of its own.
    """

    created: bytes
    pending: bytes
    completed: bytes
    result: bytes


def _build_kontext(_: str, progress: float | None) -> Dialect:
    head = {"id": ID_PLACEHOLDER, "status": "in_progress", "model": MODEL, "created_at": TIME_PLACEHOLDER}
    image = {"type": "image", "url": f"https://cdn.example/{ID_PLACEHOLDER}.jpg", "jobId": ID_PLACEHOLDER}
    done = {
        **head,
        "status": "completed",
        "output": [{"content": [image]}],
        "usage": {"cost": "0.04", "discount": 1.0},
        "metadata": {},
    }
    return Dialect(
        created=_build_template(head),
        pending=_build_template(head if progress is None else {**head, "progress": progress}),
        completed=_build_template(done),
        result=_build_template(done),
    )


def _build_fal(base: str, _: float | None) -> Dialect:
    request = f"{base}/fal-ai/flux-pro/requests/{ID_PLACEHOLDER}"
    urls = {"status_url": f"{request}/status", "response_url": request, "cancel_url": f"{request}/cancel"}
    known = {"request_id": ID_PLACEHOLDER, **urls, "logs": None}
    url = f"https://cdn.example/{ID_PLACEHOLDER}.jpg"
    image = {"url": url, "width": 1024, "height": 1024, "content_type": "image/jpeg"}
    return Dialect(
        created=_build_template({"request_id": ID_PLACEHOLDER, "status": "IN_QUEUE", "queue_position": 0, **urls}),
        pending=_build_template({"status": "IN_PROGRESS", **known}, "202 Accepted"),
        completed=_build_template({"status": "COMPLETED", **known, "metrics": {"inference_time": 2.0}}),
        result=_build_template({"images": [image], "seed": 7, "prompt": "a red fox in snow"}),
    )


def _build_replicate(base: str, _: float | None) -> Dialect:
    url = f"{base}/v1/predictions/{ID_PLACEHOLDER}"
    head: dict[str, Any] = {
        "id": ID_PLACEHOLDER,
        "model": "black-forest-labs/flux-kontext-pro",
        "version": "hidden",
        "status": "processing",
        "input": {"prompt": "a red fox in snow"},
        "output": None,
        "logs": "",
        "error": None,
        "metrics": None,
        "created_at": ISO_TIME,
        "started_at": ISO_TIME,
        "completed_at": None,
        "urls": {"get": url, "cancel": f"{url}/cancel"},
    }
    output = f"https://cdn.example/{ID_PLACEHOLDER}.jpg"
    done = {**head, "status": "succeeded", "output": output, "completed_at": ISO_TIME, "metrics": {"predict_time": 2.0}}
    return Dialect(
        created=_build_template({**head, "status": "starting"}, "201 Created"),
        pending=_build_template(head),
        completed=_build_template(done),
        result=_build_template(done),
    )


def _build_runway(_: str, __: float | None) -> Dialect:
    head = {"id": ID_PLACEHOLDER, "createdAt": ISO_TIME}
    output = [f"https://cdn.example/{ID_PLACEHOLDER}.jpg"]
    done = {**head, "status": "SUCCEEDED", "output": output, "cost": {"credits": 5}}
    return Dialect(
        created=_build_template({"id": ID_PLACEHOLDER}),
        pending=_build_template({**head, "status": "RUNNING", "progress": 0.42, "estimatedCost": {"credits": 5}}),
        completed=_build_template(done),
        result=_build_template(done),
    )


DIALECTS = {
    b"model": _build_kontext,
    b"fal-ai": _build_fal,
    b"v1/models": _build_replicate,
    b"v1/text_to_image": _build_runway,
}
"""Dialects by the beginning of the path that creates a task."""

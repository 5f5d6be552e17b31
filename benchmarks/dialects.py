"""What gateways answer, as complete HTTP answers of fixed length with the places of a task's particulars left open."""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen

__all__ = ["DIALECTS", "PROGRESS_PLACE", "Dialect", "http_answer"]

MODEL = "flux_kontext_pro"
ISO = "2026-01-09T13:33:30.000Z"
ID_PLACE = "{12345678}"
"""Stands for a task's id, which is as long."""

WHEN_PLACE = 1234567890
"""Stands for a time in seconds since the epoch."""

PROGRESS_PLACE = 0.8765
"""Stands for a progress with as many digits."""


def http_answer(body: bytes, status: str = "200 OK") -> bytes:
    """A complete answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _template(payload: dict[str, Any], status: str = "200 OK") -> bytes:
    answer = http_answer(json.dumps(payload).encode(), status).replace(b"%", b"%%")
    places = {ID_PLACE: b"%(id)b", str(WHEN_PLACE): b"%(when)b", str(PROGRESS_PLACE): b"%(progress)b"}
    for place, name in places.items():
        answer = answer.replace(place.encode(), name)
    return answer


@frozen(kw_only=True)
class Dialect:
    """Templates of one gateway's answers.

    Attributes:
        created: To a create.
        pending: About a task that is not finished.
        finished: About one that is.
        result: What fetches the result of a finished one, where that takes a request of its own.
    """

    created: bytes
    pending: bytes
    finished: bytes
    result: bytes


def _kontext(_: str, progress: float | None) -> Dialect:
    head = {"id": ID_PLACE, "status": "in_progress", "model": MODEL, "created_at": WHEN_PLACE}
    image = {"type": "image", "url": f"https://cdn.example/{ID_PLACE}.jpg", "jobId": ID_PLACE}
    done = {
        **head,
        "status": "completed",
        "output": [{"content": [image]}],
        "usage": {"cost": "0.04", "discount": 1.0},
        "metadata": {},
    }
    pending = _template(head if progress is None else {**head, "progress": progress})
    return Dialect(created=_template(head), pending=pending, finished=_template(done), result=_template(done))


def _fal(base: str, _: float | None) -> Dialect:
    request = f"{base}/fal-ai/flux-pro/requests/{ID_PLACE}"
    urls = {"status_url": f"{request}/status", "response_url": request, "cancel_url": f"{request}/cancel"}
    known = {"request_id": ID_PLACE, **urls, "logs": None}
    image = {"url": f"https://cdn.example/{ID_PLACE}.jpg", "width": 1024, "height": 1024, "content_type": "image/jpeg"}
    return Dialect(
        created=_template({"request_id": ID_PLACE, "status": "IN_QUEUE", "queue_position": 0, **urls}),
        pending=_template({"status": "IN_PROGRESS", **known}, "202 Accepted"),
        finished=_template({"status": "COMPLETED", **known, "metrics": {"inference_time": 2.0}}),
        result=_template({"images": [image], "seed": 7, "prompt": "a red fox in snow"}),
    )


def _replicate(base: str, _: float | None) -> Dialect:
    url = f"{base}/v1/predictions/{ID_PLACE}"
    head: dict[str, Any] = {
        "id": ID_PLACE,
        "model": "black-forest-labs/flux-kontext-pro",
        "version": "hidden",
        "status": "processing",
        "input": {"prompt": "a red fox in snow"},
        "output": None,
        "logs": "",
        "error": None,
        "metrics": None,
        "created_at": ISO,
        "started_at": ISO,
        "completed_at": None,
        "urls": {"get": url, "cancel": f"{url}/cancel"},
    }
    output = f"https://cdn.example/{ID_PLACE}.jpg"
    done = {**head, "status": "succeeded", "output": output, "completed_at": ISO, "metrics": {"predict_time": 2.0}}
    return Dialect(
        created=_template({**head, "status": "starting"}, "201 Created"),
        pending=_template(head),
        finished=_template(done),
        result=_template(done),
    )


def _runway(_: str, __: float | None) -> Dialect:
    head = {"id": ID_PLACE, "createdAt": ISO}
    done = {**head, "status": "SUCCEEDED", "output": [f"https://cdn.example/{ID_PLACE}.jpg"], "cost": {"credits": 5}}
    return Dialect(
        created=_template({"id": ID_PLACE}),
        pending=_template({**head, "status": "RUNNING", "progress": 0.42, "estimatedCost": {"credits": 5}}),
        finished=_template(done),
        result=_template(done),
    )


DIALECTS = {b"model": _kontext, b"fal-ai": _fal, b"v1/models": _replicate, b"v1/text_to_image": _runway}
"""Dialects by the beginning of the path that creates a task."""

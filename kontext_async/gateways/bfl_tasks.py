"""A task of Black Forest Labs' API, from the JSON of a response: PROTOCOL-BFL.md, "The task". Pure.

Strict in the fields that decide about money and images, lenient in the rest; unknown status words are not finished.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kontext_async.errors import InvalidResponse
from kontext_async.gateways.values import ACCEPTED
from kontext_async.models import FailureKind, GeneratedImage, TaskErrorDetail, TaskState, TaskStatus, Usage
from kontext_async.protocol.decoding import loads_lenient
from kontext_async.protocol.task_ids import is_task_id
from kontext_async.protocol.tasks import MAX_STATUS_LENGTH
from kontext_async.protocol.values import read_fraction, read_money
from kontext_async.redaction import clean_text, truncate, truncate_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.protocol.http import Response

__all__ = [
    "USD_PER_CREDIT",
    "collect_texts",
    "find_id",
    "find_task",
    "is_not_found",
    "load_any",
    "make_error",
    "read_task",
]

USD_PER_CREDIT = Decimal("0.01")
MOST_CREDITS = 1_000_000
"""Credits from which on a cost makes no sense: 10,000 USD for one image."""

NOT_FOUND = "task_not_found"
STATES = {
    "ready": TaskState.COMPLETED,
    "error": TaskState.FAILED,
    "failed": TaskState.FAILED,
    "request_moderated": TaskState.FAILED,
    "content_moderated": TaskState.FAILED,
    **dict.fromkeys((ACCEPTED, "pending", "queued", "processing", "reasoning", "generating"), TaskState.IN_PROGRESS),
}
MODERATED = frozenset({"request_moderated", "content_moderated"})

DESCRIBED_KEYS = frozenset({"id", "request_id", "status", "result", "progress", "polling_url", "cost", "preview"})
"""The keys that have a field, and the preview, which is an image. Others go to `TaskStatus.extra`."""

SEPARATORS = re.compile(r"[\s_-]+")
MAX_REASONS = 10
MAX_DEPTH = 3


def is_not_found(payload: Mapping[str, Any]) -> bool:
    """Return True if the gateway says that it does not know the task."""
    return _normalize(payload["status"]) == NOT_FOUND


def _normalize(word: str) -> str:
    return SEPARATORS.sub("_", word.strip().lower())


def _bound(word: str) -> str:
    return truncate(word, MAX_STATUS_LENGTH)


def load_any(body: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one for any other body."""
    try:
        payload = loads_lenient(body)
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def find_id(payload: Mapping[str, Any]) -> str | None:
    """Return the ID of the task; None if there is none."""
    for key in ("id", "request_id"):
        value = payload.get(key)
        if isinstance(value, str) and value.strip() == value and is_task_id(value):
            return value
    return None


def find_task(response: Response, task_id: str) -> dict[str, Any] | None:
    """Return the JSON of the task in a response with any HTTP status; None if it has none.

    An error must name the task, because ``{"status": "error"}`` may be the page of a proxy.
    """
    payload = load_any(response.body)
    if not isinstance(payload.get("status"), str):
        return None
    found = find_id(payload)
    is_task = found == task_id or (found is None and response.ok)
    return payload if is_task else None


def read_task(payload: Mapping[str, Any], task_id: str, response: Response) -> TaskStatus:
    """Return the status of a task.

    Args:
        payload: The JSON of the task.
        task_id: The task ID.
        response: The response that has it, for the error.

    Raises:
        InvalidResponse: The task has completed, and its image has no usable URL.
    """
    raw = payload.get("status")
    text = raw if isinstance(raw, str) else ACCEPTED
    word = _normalize(text)
    state = STATES.get(word, TaskState.UNKNOWN)
    result = payload.get("result")
    fields = result if isinstance(result, dict) else {}
    sample = fields.get("sample")
    if state is TaskState.COMPLETED and not (result is None or (isinstance(result, dict) and _is_url(sample))):
        raise make_error("the response is invalid: its result has no URL as its sample", response)
    return TaskStatus(
        task_id=task_id,
        state=state,
        raw_status=_bound(text),
        progress=read_fraction(payload.get("progress")),
        error=_read_error(payload, text, word) if state is TaskState.FAILED else None,
        images=(GeneratedImage(url=sample, task_id=task_id),) if state is TaskState.COMPLETED and sample else (),
        usage=_read_usage(payload, word),
        metadata={key: value for key, value in fields.items() if key != "sample"},
        extra={key: value for key, value in payload.items() if key not in DESCRIBED_KEYS},
    )


def _is_url(sample: object) -> bool:
    return sample is None or isinstance(sample, str)


def _read_usage(payload: Mapping[str, Any], word: str) -> Usage | None:
    """Return what the gateway names as the cost: credits. Nothing is billed for a moderated task."""
    if word in MODERATED:
        return Usage(cost=Decimal(0))
    credit = read_money(payload.get("cost"))
    return None if credit is None or credit > MOST_CREDITS else Usage(cost=credit * USD_PER_CREDIT)


def _read_error(payload: Mapping[str, Any], text: str, word: str) -> TaskErrorDetail:
    reasons = collect_texts(payload.get("details")) or collect_texts(payload.get("error"))
    is_moderated = word in MODERATED
    default = "no reason was given"
    return TaskErrorDetail(
        code=_bound(text),
        message=truncate("; ".join(reasons) or default),
        kind=FailureKind.MODERATED if is_moderated else FailureKind.ERROR,
    )


def collect_texts(value: object, name: str = "", depth: int = 0) -> list[str]:
    """Return all texts of a value, each with the name under which it stands, if that is not of a list."""
    if isinstance(value, dict) and depth < MAX_DEPTH:
        found = [text for key, item in value.items() for text in collect_texts(item, str(key), depth + 1)]
    elif isinstance(value, list) and depth < MAX_DEPTH:
        found = [text for item in value for text in collect_texts(item, name, depth + 1)]
    elif value is None or value == "":
        found = []
    else:
        text = clean_text(value if isinstance(value, str) else str(value)[:80])
        found = [f"{name}: {text}" if name else text]
    return found[:MAX_REASONS]


def make_error(message: str, response: Response) -> InvalidResponse:
    """Return the error for a response that cannot be read."""
    return InvalidResponse(message, status=response.status, body=truncate_body(response.body))

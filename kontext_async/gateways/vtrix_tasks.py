"""A task of the vendor's plain dialect, from a response: PROTOCOL.md, "The task". Pure.

Strict in the fields that decide about money and images (the ID, the status and the output), lenient in the rest: a
wrong type there loses the detail, never the task. Unknown keys are kept.
"""

from __future__ import annotations

import sys
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import cattrs
from attrs import frozen
from cattrs.gen import make_dict_structure_fn, override

from kontext_async.errors import InvalidResponse
from kontext_async.models import GeneratedImage, TaskErrorDetail, TaskState, TaskStatus
from kontext_async.protocol.decoding import load_object
from kontext_async.protocol.errors import refusal_despite_success
from kontext_async.protocol.task_ids import is_task_id
from kontext_async.protocol.tasks import MAX_IMAGES, MAX_STATUS_LENGTH, InProgress, read_usage
from kontext_async.protocol.values import read_fraction, read_text, read_time
from kontext_async.redaction import truncate, truncate_body

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["read_accepted", "read_created", "read_poll", "read_status"]

IN_PROGRESS = "in_progress"
STATES = {
    IN_PROGRESS: TaskState.IN_PROGRESS,
    "completed": TaskState.COMPLETED,
    "done": TaskState.COMPLETED,
    "succeeded": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
}
ENDED_WITH_ERROR = frozenset({"cancelled", "canceled", "expired", "rejected", "error"})
"""Statuses that are failures if the response has an ``error``."""

DESCRIBED_KEYS = frozenset({"id", "status", "model", "progress", "error", "output", "usage", "created_at", "metadata"})
"""The keys of a task that PROTOCOL.md describes. Others go to `TaskStatus.extra`."""


@frozen
class _Content:
    url: str | None = None
    type: Any = None
    job_id: Any = None


@frozen
class _Group:
    content: list[_Content] | None = None


@frozen
class _Task:
    id: str
    status: str
    output: list[_Group] | None = None


def _structure_text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    return value


@cache
def _make_converter(*, detailed: bool) -> cattrs.Converter:
    """Return the package's converter. The detailed one is slower, and its errors name the path of the wrong value."""
    converter = cattrs.Converter(detailed_validation=detailed)
    converter.register_structure_hook(str, _structure_text)
    content = make_dict_structure_fn(_Content, converter, job_id=override(rename="jobId"))
    converter.register_structure_hook(_Content, _require_object(content))
    for structured_class in (_Group, _Task):
        structure = make_dict_structure_fn(structured_class, converter)
        converter.register_structure_hook(structured_class, _require_object(structure))
    return converter


def _require_object(structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def structure_object(value: object, target: type) -> object:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, not {type(value).__name__}")
        return structure(value, target)

    return structure_object


def read_status(body: bytes, task_id: str, status: int = HTTPStatus.OK.value) -> TaskStatus:
    """Read the response to a status request.

    Args:
        body: The response body.
        task_id: The ID of the polled task; a response about another task is an error.
        status: The HTTP status, for the error.

    Raises:
        InvalidResponse: The body is not JSON, an important field has the wrong type, or it is about another task.
        GatewayError: It is a refusal, despite the HTTP status.
    """
    return _read_status(load_object(body, status), body, task_id, status)


def read_poll(body: bytes, task_id: str, status: int = HTTPStatus.OK.value) -> InProgress | TaskStatus:
    """Read the response to a status request, but only its progress if the task is in progress.

    Nearly all responses are of that kind, and few of them are needed in full: `read_status` reads any response in full.

    Args:
        body: The response body.
        task_id: The ID of the polled task; a response about another task is an error.
        status: The HTTP status, for the error.

    Raises:
        GatewayError: As `read_status`.
    """
    payload = load_object(body, status)
    if payload.get("status") == IN_PROGRESS and payload.get("output") is None and payload.get("id", task_id) == task_id:
        return InProgress(read_fraction(payload.get("progress")))
    return _read_status(payload, body, task_id, status)


def _read_status(payload: dict[str, Any], body: bytes, task_id: str, status: int) -> TaskStatus:
    payload.setdefault("id", task_id)
    task = _read_task(payload, body, status)
    if task.task_id != task_id:
        raise _make_error(f"the response is about task {truncate(task.task_id, 80)!r}", body, status)
    return task


def read_created(body: bytes, *, status: int = HTTPStatus.OK.value) -> TaskStatus:
    """Read the response to a create request.

    Args:
        body: The response body.
        status: The HTTP status, for the error.

    Raises:
        InvalidResponse: The body is not JSON, has no task ID, or an important field has the wrong type.
        GatewayError: It is a refusal, despite the HTTP status: the request was not accepted.
    """
    return _read_task(load_object(body, status), body, status)


def read_accepted(body: bytes, *, status: int = HTTPStatus.OK.value) -> str | TaskStatus:
    """Read the response to a create request, but only the task's ID if the task is in progress.

    Nearly all responses are of that kind, and few of them are needed in full: `read_created` reads any of them in full.

    Args:
        body: The response body.
        status: The HTTP status, for the error.

    Raises:
        GatewayError: As `read_created`.
    """
    payload = load_object(body, status)
    task_id = payload.get("id")
    is_in_progress = payload.get("status") == IN_PROGRESS and payload.get("output") is None
    if is_in_progress and isinstance(task_id, str) and is_task_id(task_id):
        return task_id
    return _read_task(payload, body, status)


def _read_task(payload: dict[str, Any], body: bytes, status: int) -> TaskStatus:
    output, omitted = _bound_output(payload.get("output"))
    task = _structure({**payload, "output": output} if omitted else payload, body, status)
    if not is_task_id(task.id):
        raise _make_error(f"the response is invalid: {truncate(repr(task.id), 80)} is not a task ID", body, status)
    raw = task.status
    state = STATES.get(raw) or _read_state(raw, has_error=payload.get("error") is not None)
    failed = state is TaskState.FAILED or payload.get("error")
    return TaskStatus(
        task_id=task.id,
        state=state,
        # interned: many responses repeat the same few texts
        raw_status=sys.intern(raw if len(raw) < MAX_STATUS_LENGTH else truncate(raw, MAX_STATUS_LENGTH)),
        model=sys.intern(model) if isinstance(model := payload.get("model"), str) else None,
        progress=read_fraction(payload.get("progress")),
        error=_read_error(payload) if failed else None,
        images=tuple(_read_images(task)) if task.output else (),
        usage=read_usage(payload.get("usage")),
        created_at=read_time(payload.get("created_at")),
        metadata=value if isinstance(value := payload.get("metadata"), dict) else {},
        extra=_collect_undescribed(payload),
        omitted_images=omitted,
    )


def _read_state(raw: str, *, has_error: bool) -> TaskState:
    status = raw.strip().lower()
    if has_error and status in ENDED_WITH_ERROR:
        return TaskState.FAILED
    return STATES.get(status, TaskState.UNKNOWN)


def _bound_output(output: object) -> tuple[object, int]:
    """Return the output with at most `MAX_IMAGES` items, and the number of items that were left out."""
    if not isinstance(output, list):
        return output, 0
    room = MAX_IMAGES
    omitted = max(0, len(output) - MAX_IMAGES)  # groups, each with an item or more
    groups: list[object] = []
    for group in output[:MAX_IMAGES]:
        content = group.get("content") if isinstance(group, dict) else None
        if isinstance(content, list):
            omitted += max(0, len(content) - room)
            groups.append({**group, "content": content[:room]})
            room -= min(room, len(content))
        else:
            groups.append(group)
    return groups, omitted


def _collect_undescribed(payload: dict[str, Any]) -> dict[str, Any]:
    if payload.keys() <= DESCRIBED_KEYS:
        return {}
    return {key: value for key, value in payload.items() if key not in DESCRIBED_KEYS}


def _structure(payload: dict[str, Any], body: bytes, status: int) -> _Task:
    """Return the fields that decide about money and images, with their types checked."""
    try:
        return _make_converter(detailed=False).structure(payload, _Task)
    except Exception:  # noqa: BLE001 # any error that cattrs raises about foreign data means an invalid response
        if refusal := refusal_despite_success(status, body):
            raise refusal from None
        raise _make_error(f"the response is invalid: {_describe_mismatch(payload)}", body, status) from None


def _describe_mismatch(payload: dict[str, Any]) -> str:
    """Return the path and the reason of each mismatch, by structuring again with the detailed converter."""
    try:
        _make_converter(detailed=True).structure(payload, _Task)
    except Exception as error:  # noqa: BLE001 # as above
        return truncate("; ".join(cattrs.transform_error(error, path="response")), 300)
    return "it is not a task"


def _make_error(message: str, body: bytes, status: int) -> InvalidResponse:
    return InvalidResponse(message, status=status, body=truncate_body(body))


def _read_images(task: _Task) -> list[GeneratedImage]:
    return [
        GeneratedImage(
            url=item.url,
            type=read_text(item.type) or "image",
            job_id=None if item.job_id is None else _to_text(item.job_id),
            task_id=task.id,
        )
        for group in task.output or ()
        for item in group.content or ()
        if item.url
    ]


def _read_error(payload: dict[str, Any]) -> TaskErrorDetail:
    error = payload.get("error")
    if isinstance(error, dict):
        message = error.get("message") or error.get("error_message") or ""
        code = error.get("code")
    else:
        message, code = error, None
    message = message or payload.get("error_message") or payload.get("message") or "no reason was given"
    return TaskErrorDetail(
        code=None if code is None else truncate(_to_text(code), 80), message=truncate(_to_text(message))
    )


def _to_text(value: object) -> str:
    try:
        return str(value)
    except (RecursionError, ValueError):  # not every nested value or long integer that can be parsed can be printed
        return "too large to be shown"

"""Odd, damaged and wrong JSON in place of a good response. Pure.

`ODD_SHAPES` is the table of the odd responses, which are still true and have been seen in the wild. `corrupt` makes the
responses that a client must reject.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kontext_async.emulator.fault_kinds import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.task_json import Json

STATUS_TEXTS = {
    "queued": ("queued", "done", "failed"),
    "Pending": ("Pending", "Completed", "Failed"),
    "IN_PROGRESS": ("IN_PROGRESS", "COMPLETED", "FAILED"),
    "running": ("running", "succeeded", "failed"),
    "SUCCEEDED": ("PROCESSING", "SUCCEEDED", "FAILED"),
    "done": ("starting", "done", "failed"),
    "FAILED": ("Queued", "DONE", "FAILED"),
}
PHASES = ("in_progress", "completed", "failed")
TIME_FIELDS = ("in_queue_at", "upload_at", "completed_at")


def apply_odd_shape(task: Json, fault: Fault) -> Json:
    """Return a task's JSON in the odd shape of the fault; the JSON itself when the fault has no odd shape."""
    change = ODD_SHAPES.get(fault.kind)
    return task if change is None else change(dict(task), fault.variant or "")


def _change_status(task: Json, variant: str) -> Json:
    texts = dict(zip(PHASES, STATUS_TEXTS[variant], strict=True))
    return task | {"status": texts.get(task["status"], task["status"])}


def _change_error(task: Json, variant: str) -> Json:
    error = task.pop("error", None)
    if not isinstance(error, dict):
        return task | ({"error": None} if variant == "null" else {})
    code, message = error["code"], error["message"]
    shapes: dict[str, Json] = {
        "string": {"error": message},
        "integer-code": {"error": {"code": int(code) if code.isdigit() else 0, "message": message}},
        "error_message": {"error": {"code": code, "error_message": message}},
        "message-only": {"error": {"message": message}},
        "null": {"error": None},
        "missing": {},
    }
    return task | shapes[variant]


def _change_cost(task: Json, variant: str) -> Json:
    usage = dict(task.pop("usage", {"cost": "0", "discount": 1.0}))
    cost = usage.pop("cost")
    shapes: dict[str, Json] = {
        "number": {"usage": usage | {"cost": float(cost)}},
        "empty": {"usage": usage | {"cost": ""}},
        "null": {"usage": usage | {"cost": None}},
        "missing": {"usage": usage | {"quantity": 1, "unit_price": cost, "extra_info": {"tier": "a"}}},
        "no-usage": {"usage": None},
    }
    return task | shapes[variant]


def _change_output(task: Json, variant: str) -> Json:
    task.pop("output", None)
    shapes: dict[str, Json] = {
        "null": {"output": None},
        "empty": {"output": []},
        "missing": {},
        "no-content": {"output": [{"content": None}, {}]},
        "no-url": {"output": [{"content": [{"type": "image", "url": "", "jobId": "j"}, {"type": "text"}]}]},
    }
    return task | shapes[variant]


def _change_progress(task: Json, variant: str) -> Json:
    progress = task.pop("progress", None)
    if progress is None or variant == "missing":
        return task
    shapes: dict[str, Any] = {"null": None, "backwards": round(1 - progress, 4), "string": str(progress)}
    return task | {"progress": shapes[variant]}


def _use_milliseconds(task: Json, _: str) -> Json:
    if "metadata" in task:
        metadata = task["metadata"]
        task["metadata"] = metadata | {name: metadata[name] * 1000 for name in TIME_FIELDS}
    return task | {"created_at": task["created_at"] * 1000}


def _add_extra_keys(task: Json, _: str) -> Json:
    extra = {"id": "g-1", "img_id": 7, "duration": None, "chunk_index": 0}
    if "output" in task:
        task["output"] = [
            group | {"index": 0, "content": [item | extra for item in group["content"]]} for group in task["output"]
        ]
    if "usage" in task:
        task["usage"] = task["usage"] | {"quantity": 1, "unit_price": "0.04", "extra_info": None}
    return task | {"object": "generation", "trace": {"node": "a-1"}, "warnings": []}


def _add_urls(task: Json, _: str) -> Json:
    if "output" not in task:
        return task
    first = task["output"][0]["content"][0]
    second, third = (
        first | {"url": first["url"].replace("/0.", f"/{number}."), "jobId": f"{first['jobId']}-{number}"}
        for number in (1, 2)
    )
    text = {"type": "text", "text": "no url here"}
    return task | {"output": [{"content": [first, second]}, {"content": [text]}, {"content": [third]}]}


ODD_SHAPES: Mapping[FaultKind, Callable[[Json, str], Json]] = {
    FaultKind.ODD_STATUS: _change_status,
    FaultKind.ODD_ERROR: _change_error,
    FaultKind.ODD_COST: _change_cost,
    FaultKind.ODD_OUTPUT: _change_output,
    FaultKind.ODD_PROGRESS: _change_progress,
    FaultKind.MILLISECONDS: _use_milliseconds,
    FaultKind.EXTRA_KEYS: _add_extra_keys,
    FaultKind.SEVERAL_URLS: _add_urls,
}


def corrupt(value: Any, fault: Fault) -> bytes | None:
    """Return the bytes of a damaged or wrong response; None when the fault has none."""
    match fault.kind:
        case FaultKind.TRUNCATED_JSON:
            whole = json.dumps(value).encode()
            return whole[: len(whole) // 2]
        case FaultKind.CUT_ADDRESS:
            whole = json.dumps(value).encode()
            first = whole.find(b",")  # the ID is the first member
            return whole[: first + (len(whole) - first) // 2]
        case FaultKind.EMPTY_BODY:
            return b""
        case FaultKind.MALFORMED_JSON:
            return _malform(json.dumps(value).encode(), fault.variant or "")
        case FaultKind.WRONG_TYPES:
            return json.dumps(_change_types(value, fault.variant or "")).encode()
        case _:
            return None


def _malform(whole: bytes, variant: str) -> bytes:
    shapes = {
        "trailing": whole + b"}{",
        "quotes": whole.replace(b'"', b"'"),
        "encoding": whole[:-1] + b', "note": "\xff\xfe"}',
        "nan": b"{NaN: undefined}",
    }
    return shapes[variant]


def _change_types(value: Any, variant: str) -> Any:
    fields = value if isinstance(value, dict) else {}
    shapes: dict[str, Any] = {
        "list": [value],
        "string": "ok",
        "number": 42,
        "null": None,
        "no-id": {name: item for name, item in fields.items() if name not in ("id", "request_id")},
        "status-number": fields | {"status": 3},
        "output-string": fields | {"output": "https://example.invalid/image.jpg"},
    }
    return shapes[variant]

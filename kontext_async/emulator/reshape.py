"""Odd, damaged and wrong JSON in place of a good answer. Pure.

Two tables: `ODD` has the answers that are still true, in shapes that have been seen; `damaged` makes
those that no client can take for what was asked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kontext_async.emulator.kinds import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kontext_async.emulator.answers import Json
    from kontext_async.emulator.faults import Fault

_STATUS_WORDS = {
    "queued": ("queued", "done", "failed"),
    "Pending": ("Pending", "Completed", "Failed"),
    "IN_PROGRESS": ("IN_PROGRESS", "COMPLETED", "FAILED"),
    "running": ("running", "succeeded", "failed"),
    "SUCCEEDED": ("PROCESSING", "SUCCEEDED", "FAILED"),
    "done": ("starting", "done", "failed"),
    "FAILED": ("Queued", "DONE", "FAILED"),
}
_STATES = ("in_progress", "completed", "failed")
_TIMES = ("in_queue_at", "upload_at", "completed_at")


def odd(answer: Json, fault: Fault) -> Json:
    """The same answer in an odd shape, when the fault is one of those; the answer itself otherwise."""
    change = ODD.get(fault.kind)
    return answer if change is None else change(dict(answer), fault.variant or "")


def _status(answer: Json, variant: str) -> Json:
    words = dict(zip(_STATES, _STATUS_WORDS[variant], strict=True))
    return answer | {"status": words.get(answer["status"], answer["status"])}


def _error(answer: Json, variant: str) -> Json:
    error = answer.pop("error", None)
    if not isinstance(error, dict):
        return answer | ({"error": None} if variant == "null" else {})
    code, message = error["code"], error["message"]
    shapes: dict[str, Json] = {
        "string": {"error": message},
        "integer-code": {"error": {"code": int(code) if code.isdigit() else 0, "message": message}},
        "error_message": {"error": {"code": code, "error_message": message}},
        "message-only": {"error": {"message": message}},
        "null": {"error": None},
        "missing": {},
    }
    return answer | shapes[variant]


def _cost(answer: Json, variant: str) -> Json:
    usage = dict(answer.pop("usage", {"cost": "0", "discount": 1.0}))
    cost = usage.pop("cost")
    shapes: dict[str, Json] = {
        "number": {"usage": usage | {"cost": float(cost)}},
        "empty": {"usage": usage | {"cost": ""}},
        "null": {"usage": usage | {"cost": None}},
        "missing": {"usage": usage | {"quantity": 1, "unit_price": cost, "extra_info": {"tier": "a"}}},
        "no-usage": {"usage": None},
    }
    return answer | shapes[variant]


def _output(answer: Json, variant: str) -> Json:
    answer.pop("output", None)
    shapes: dict[str, Json] = {
        "null": {"output": None},
        "empty": {"output": []},
        "missing": {},
        "no-content": {"output": [{"content": None}, {}]},
        "no-url": {"output": [{"content": [{"type": "image", "url": "", "jobId": "j"}, {"type": "text"}]}]},
    }
    return answer | shapes[variant]


def _progress(answer: Json, variant: str) -> Json:
    progress = answer.pop("progress", None)
    if progress is None or variant == "missing":
        return answer
    shapes: dict[str, Any] = {"null": None, "backwards": round(1 - progress, 4), "string": str(progress)}
    return answer | {"progress": shapes[variant]}


def _milliseconds(answer: Json, _: str) -> Json:
    if "metadata" in answer:
        metadata = answer["metadata"]
        answer["metadata"] = metadata | {name: metadata[name] * 1000 for name in _TIMES}
    return answer | {"created_at": answer["created_at"] * 1000}


def _extra_keys(answer: Json, _: str) -> Json:
    extra = {"id": "g-1", "img_id": 7, "duration": None, "chunk_index": 0}
    if "output" in answer:
        answer["output"] = [
            group | {"index": 0, "content": [item | extra for item in group["content"]]} for group in answer["output"]
        ]
    if "usage" in answer:
        answer["usage"] = answer["usage"] | {"quantity": 1, "unit_price": "0.04", "extra_info": None}
    return answer | {"object": "generation", "trace": {"node": "a-1"}, "warnings": []}


def _several_urls(answer: Json, _: str) -> Json:
    if "output" not in answer:
        return answer
    first = answer["output"][0]["content"][0]
    second, third = (
        first | {"url": first["url"].replace("/0.", f"/{number}."), "jobId": f"{first['jobId']}-{number}"}
        for number in (1, 2)
    )
    text = {"type": "text", "text": "no url here"}
    return answer | {"output": [{"content": [first, second]}, {"content": [text]}, {"content": [third]}]}


ODD: Mapping[FaultKind, Callable[[Json, str], Json]] = {
    FaultKind.ODD_STATUS: _status,
    FaultKind.ODD_ERROR: _error,
    FaultKind.ODD_COST: _cost,
    FaultKind.ODD_OUTPUT: _output,
    FaultKind.ODD_PROGRESS: _progress,
    FaultKind.MILLISECONDS: _milliseconds,
    FaultKind.EXTRA_KEYS: _extra_keys,
    FaultKind.SEVERAL_URLS: _several_urls,
}


def damaged(answer: Any, fault: Fault) -> bytes | None:
    """The bytes of a damaged answer, when the fault damages; None otherwise."""
    match fault.kind:
        case FaultKind.TRUNCATED_JSON:
            whole = json.dumps(answer).encode()
            return whole[: len(whole) // 2]
        case FaultKind.EMPTY_BODY:
            return b""
        case FaultKind.MALFORMED_JSON:
            return _malformed(json.dumps(answer).encode(), fault.variant or "")
        case FaultKind.WRONG_TYPES:
            return json.dumps(_wrong(answer, fault.variant or "")).encode()
        case _:
            return None


def _malformed(whole: bytes, variant: str) -> bytes:
    shapes = {
        "trailing": whole + b"}{",
        "quotes": whole.replace(b'"', b"'"),
        "encoding": whole[:-1] + b', "note": "\xff\xfe"}',
        "nan": b"{NaN: undefined}",
    }
    return shapes[variant]


def _wrong(answer: Any, variant: str) -> Any:
    fields = answer if isinstance(answer, dict) else {}
    shapes: dict[str, Any] = {
        "list": [answer],
        "string": "ok",
        "number": 42,
        "null": None,
        "no-id": {name: value for name, value in fields.items() if name not in ("id", "request_id")},
        "status-number": fields | {"status": 3},
        "output-string": fields | {"output": "https://example.invalid/picture.jpg"},
    }
    return shapes[variant]

"""Odd responses in the queue dialect and in Black Forest Labs' dialect, and odd addresses of tasks in both. Pure.

As those of `corruption`, they are still true. An odd address is the exception: it is what an attacker would write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kontext_async.emulator.fault_kinds import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.task_json import Json

ADDRESS_FIELDS = ("polling_url", "status_url", "response_url", "cancel_url")
LONG = 5000

ODD_ADDRESSES = {
    "relative": "{path}",
    "elsewhere": "https://polls.invalid{path}",
    "user": "{scheme}://user:password@{host}{path}",
    "http": "http://api.us1.bfl.ai{path}",
    "port": "https://api.us1.bfl.ai:8443{path}",
    "suffix": "https://api.bfl.ai.invalid{path}",
    "no-host": "https://",
    "script": "javascript:alert(1)",
    "long": "{scheme}://{host}{path}&x={long}",
}
"""The odd addresses by variant. `scheme`, `host` and `path` are those of the good address that each replaces."""

QUEUE_WORDS = {
    "queued": ("queued", "queued", "completed"),
    "Pending": ("Pending", "Running", "Completed"),
    "IN_PROGRESS": ("in_queue", "in_progress", "completed"),
    "running": ("starting", "running", "succeeded"),
    "SUCCEEDED": ("IN_QUEUE", "IN_PROGRESS", "SUCCEEDED"),
    "done": ("IN_QUEUE", "IN_PROGRESS", "success"),
    "FAILED": ("IN_QUEUE", "IN_PROGRESS", "SUCCESS"),
}
QUEUE_PHASES = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")

BFL_WORDS = {
    "queued": ("Queued", "ready", "error"),
    "Pending": ("pending", "READY", "ERROR"),
    "IN_PROGRESS": ("Processing", "Ready", "Failed"),
    "running": ("Generating", "Ready", "Error"),
    "SUCCEEDED": ("Reasoning", "Ready", "Error"),
    "done": ("Warming Up", "ready", "failed"),
    "FAILED": ("PENDING", "Ready", "FAILED"),
}
BFL_PHASES = ("Pending", "Ready", "Error")


def apply_odd_queue_shape(value: Json, fault: Fault) -> Json:
    """Return JSON of the queue dialect in the odd shape of the fault; itself when the fault has none."""
    change = QUEUE_SHAPES.get(fault.kind)
    return value if change is None else change(dict(value), fault)


def apply_odd_bfl_shape(value: Json, fault: Fault) -> Json:
    """Return JSON of Black Forest Labs' dialect in the odd shape of the fault; itself when the fault has none."""
    change = BFL_SHAPES.get(fault.kind)
    return value if change is None else change(dict(value), fault)


def _change_addresses(value: Json, fault: Fault) -> Json:
    given = [name for name in ADDRESS_FIELDS if name in value]
    if fault.location is not None:
        return value | dict.fromkeys(given, fault.location)
    if fault.variant == "missing":
        return {name: item for name, item in value.items() if name not in given}
    if fault.variant == "null":
        return value | dict.fromkeys(given)
    return value | {name: _build_odd_address(value[name], fault.variant or "") for name in given}


def _build_odd_address(address: str, variant: str) -> str:
    parts = urlsplit(address)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    filled = ODD_ADDRESSES[variant].replace("{scheme}", parts.scheme).replace("{host}", parts.netloc)
    return filled.replace("{path}", path).replace("{long}", "x" * LONG)


def _change_words(phases: tuple[str, ...], words: Mapping[str, tuple[str, ...]]) -> Callable[[Json, Fault], Json]:
    def change(value: Json, fault: Fault) -> Json:
        texts = dict(zip(phases, words[fault.variant or ""], strict=True))
        status = value.get("status")
        return value | {"status": texts.get(status, status)} if status is not None else value

    return change


def _change_progress(value: Json, fault: Fault) -> Json:
    progress = value.pop("progress", None)
    if progress is None or fault.variant == "missing":
        return value
    shapes: dict[str, Any] = {"null": None, "backwards": round(1 - progress, 4), "string": str(progress)}
    return value | {"progress": shapes[fault.variant or ""]}


def _add_extra_keys(value: Json, _: Fault) -> Json:
    return value | {"object": "generation", "trace": {"node": "a-1"}, "warnings": []}


def _change_queue_error(value: Json, fault: Fault) -> Json:
    if value.get("error") is None:
        return value
    message = value["error"]
    shapes: dict[str, Json] = {
        "string": {"provider_error": None},
        "integer-code": {"provider_error": {"code": 7, "message": message}},
        "error_message": {"error": {"message": message}},
        "message-only": {"error": "", "provider_error": {"message": message}},
        "null": {"provider_error": None, "error_type": None},
        "missing": {"error": message, "error_type": ""},
    }
    return value | shapes[fault.variant or ""]


def _change_outputs(value: Json, fault: Fault) -> Json:
    if value.pop("outputs", None) is None:
        return value
    shapes: dict[str, Json] = {
        "null": {"outputs": None},
        "empty": {"outputs": []},
        "missing": {},
        "no-content": {"outputs": [{}, None]},
        "no-url": {"outputs": [{"type": "image", "url": ""}]},
    }
    return value | shapes[fault.variant or ""]


def _add_outputs(value: Json, _: Fault) -> Json:
    if "outputs" not in value:
        return value
    text = {"type": "text", "text": "no url here"}
    return value | {"outputs": [*value["outputs"], text, *value["outputs"]]}


def _change_cost(value: Json, fault: Fault) -> Json:
    cost = value.pop("cost", None)
    if cost is None or fault.variant in ("missing", "no-usage"):
        return value
    shapes: dict[str, Any] = {"number": int(cost), "empty": "", "null": None}
    return value | {"cost": shapes[fault.variant or ""]}


def _change_details(value: Json, fault: Fault) -> Json:
    details = value.get("details")
    if not isinstance(details, dict):
        return value
    reason = next(iter(details.values()))
    shapes: dict[str, Any] = {
        "string": reason,
        "integer-code": {"code": 7, "reason": reason},
        "error_message": {"error_message": reason},
        "message-only": [reason],
        "null": None,
        "missing": {},
    }
    return value | {"details": shapes[fault.variant or ""]}


def _change_sample(value: Json, fault: Fault) -> Json:
    if not isinstance(value.get("result"), dict):
        return value
    shapes: dict[str, Any] = {
        "null": None,
        "empty": {},
        "missing": {"seed": 1},
        "no-content": {"sample": None},
        "no-url": {"sample": ""},
    }
    return value | {"result": shapes[fault.variant or ""]}


QUEUE_SHAPES: Mapping[FaultKind, Callable[[Json, Fault], Json]] = {
    FaultKind.ODD_ADDRESS: _change_addresses,
    FaultKind.ODD_STATUS: _change_words(QUEUE_PHASES, QUEUE_WORDS),
    FaultKind.ODD_PROGRESS: _change_progress,
    FaultKind.ODD_ERROR: _change_queue_error,
    FaultKind.ODD_OUTPUT: _change_outputs,
    FaultKind.EXTRA_KEYS: _add_extra_keys,
    FaultKind.SEVERAL_URLS: _add_outputs,
}

BFL_SHAPES: Mapping[FaultKind, Callable[[Json, Fault], Json]] = {
    FaultKind.ODD_ADDRESS: _change_addresses,
    FaultKind.ODD_STATUS: _change_words(BFL_PHASES, BFL_WORDS),
    FaultKind.ODD_PROGRESS: _change_progress,
    FaultKind.ODD_ERROR: _change_details,
    FaultKind.ODD_OUTPUT: _change_sample,
    FaultKind.ODD_COST: _change_cost,
    FaultKind.EXTRA_KEYS: _add_extra_keys,
}

"""Good JSON with hostile contents: the API key, control characters, costs and URLs that make no sense. Pure.

Unlike the shapes of `corruption`, these responses are well formed; it is their values that a client must not trust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kontext_async.emulator.fault_kinds import FaultKind
from kontext_async.emulator.foreign_texts import CONTROL_TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.task_json import Json

MANY = 100_000

OPAQUE_PATH = "/opaque/a%2Fb%7E"
OPAQUE_QUERY = "sig=a%2Fb%2Bc%3D&x=%7E"
"""The parts of an opaque URL that a client must send as they came, though they could be written in other ways."""

COSTS = {
    "negative": "-1000",
    "tiny-exponent": "1E-6000000",
    "huge-exponent": "1E+6000000",
    "digits": "4" * MANY,
    "not-a-number": "NaN",
    "infinite": "Infinity",
    "credit": "4",
}

ODD_URLS = {
    "loopback": "http://127.0.0.1:{port}/_emulator/health",
    "loopback-ipv6": "http://[::1]:{port}/_emulator/health",
    "loopback-mapped": "http://[::ffff:127.0.0.1]:{port}/_emulator/health",
    "private": "http://10.0.0.7/image.png",
    "metadata": "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "empty-label": "http://a..b/image.png",
    "long-label": f"http://{'a' * 64}.example/image.png",
    "without-scheme": "//{host}{path}",
    "relative": "{path}",
    "data": "data:image/png;base64,iVBORw0KGgo=",
    "file": "file:///etc/passwd",
    "credentials": "http://user:password@{host}{path}",
    "blank": "http://{host}/results/an image.png",
    "line-break": "http://{host}/results/\r\nX-Injected: 1",
    "no-host": "http:///image.png",
    "bad-port": "http://127.0.0.1:99999/image.png",
}
"""The odd URLs by variant. `host`, `port` and `path` are those of the good URL that each replaces."""

UNCHANGED_TEXTS = frozenset(
    {
        "id",
        "request_id",
        "status",
        "url",
        "sample",
        "polling_url",
        "status_url",
        "response_url",
        "cancel_url",
        "cost",
        "currency",
        "type",
    }
)
"""The texts by which a client finds its task, its image and its bill."""


def apply_hostile_shape(value: Json, fault: Fault, key: str) -> Json:
    """Return a task's or a price's JSON with the hostile contents of the fault; itself when the fault has none.

    Args:
        value: The good JSON.
        fault: The fault.
        key: The API key of the request.
    """
    change = HOSTILE_SHAPES.get(fault.kind)
    return value if change is None else change(value, fault, key)


def make_opaque(url: str) -> str:
    """Return a result URL whose path and query must not be written in another way."""
    return f"{url.replace('/results/', f'{OPAQUE_PATH}/', 1)}&{OPAQUE_QUERY}"


def _mark_texts(value: Json, mark: str) -> Json:
    """Return a task or a price with `mark` in all of its texts, and in a field that no client knows."""
    marked: Json = _append(value, mark) | {"trace": f"trace {mark}"}
    if value.get("status") == "in_progress":  # other texts mean the same
        marked["status"] = f"waiting {mark}"
    return marked


def _append(value: Any, mark: str) -> Any:
    if isinstance(value, str):
        return f"{value} {mark}"
    if isinstance(value, list):
        return [_append(item, mark) for item in value]
    if isinstance(value, dict):
        return {name: item if name in UNCHANGED_TEXTS else _append(item, mark) for name, item in value.items()}
    return value


def _change_cost(value: Json, variant: str) -> Json:
    if "cost" in value:
        return value | {"cost": COSTS[variant]}
    changes = {"cost": COSTS[variant]} | ({"currency": "credit"} if variant == "credit" else {})
    return value | {name: value[name] | changes for name in ("usage", "data") if isinstance(value.get(name), dict)}


def _change_urls(value: Json, change: Callable[[str], str]) -> Json:
    if isinstance(value.get("result"), dict):
        return value | {"result": value["result"] | {"sample": change(value["result"]["sample"])}}
    if "outputs" in value:
        return value | {"outputs": [item | {"url": change(item["url"])} for item in value["outputs"]]}
    if "output" not in value:
        return value
    groups = [
        group | {"content": [item | {"url": change(item["url"])} for item in group["content"]]}
        for group in value["output"]
    ]
    return value | {"output": groups}


def _multiply_urls(value: Json) -> Json:
    if "outputs" in value:
        return value | {"outputs": value["outputs"] * MANY}
    if "output" not in value:
        return value
    first = value["output"][0]["content"][0]
    items = [first | {"url": first["url"].replace("/0.", f"/{number}.", 1)} for number in range(MANY)]
    return value | {"output": [{"content": items}]}


def _build_odd_url(url: str, variant: str) -> str:
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}"
    return ODD_URLS[variant].replace("{host}", parts.netloc).replace("{port}", str(parts.port)).replace("{path}", path)


def _echo_key(value: Json, fault: Fault, key: str) -> Json:
    if fault.variant == "texts":
        return _mark_texts(value, f"Bearer {key}")
    if fault.variant == "url-path":
        return _change_urls(value, lambda url: url.replace("/results/", f"/keys/{key}/", 1))
    return _change_urls(value, lambda url: f"{url}&api_key={key}")


def _use_odd_url(value: Json, fault: Fault, _: str) -> Json:
    return _change_urls(value, lambda url: fault.location or _build_odd_url(url, fault.variant or ""))


HOSTILE_SHAPES: Mapping[FaultKind, Callable[[Json, Fault, str], Json]] = {
    FaultKind.ECHOED_KEY_IN_TASK: _echo_key,
    FaultKind.CONTROL_CHARACTERS_IN_TASK: lambda value, fault, _: _mark_texts(
        value, CONTROL_TEXTS[fault.variant or ""]
    ),
    FaultKind.NONSENSE_COST: lambda value, fault, _: _change_cost(value, fault.variant or ""),
    FaultKind.MANY_URLS: lambda value, _, __: _multiply_urls(value),
    FaultKind.ODD_URL: _use_odd_url,
    FaultKind.OPAQUE_URL: lambda value, _, __: _change_urls(value, make_opaque),
}

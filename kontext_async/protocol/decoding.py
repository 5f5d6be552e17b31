"""JSON bytes to Python values.

orjson needs an eighth of the standard library's CPU for the response to a status request, which saves a tenth of the
CPU of the whole request (``python -m benchmarks --only status_cpu``). It is stricter than the standard library; a
billed task is not lost over that.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from kontext_async.errors import InvalidResponse
from kontext_async.redaction import truncate, truncate_body

__all__ = ["load_object", "loads_lenient"]


def loads_lenient(body: bytes) -> object:
    """Parse a response body as JSON.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # for example a byte order mark, or NaN in a field that hardly matters
        return json.loads(body)


def load_object(body: bytes, status: int) -> dict[str, Any]:
    """Parse a response body as a JSON object.

    Raises:
        InvalidResponse: It is not JSON, or no object.
    """
    try:
        payload = loads_lenient(body)
    except (ValueError, RecursionError) as error:
        reason = f"the response is not JSON: {truncate(str(error), 100)}"
        raise InvalidResponse(reason, status=status, body=truncate_body(body)) from None
    if not isinstance(payload, dict):
        reason = f"the response is not a JSON object, but {type(payload).__name__}"
        raise InvalidResponse(reason, status=status, body=truncate_body(body))
    return payload

"""JSON bytes to Python values.

orjson needs an eighth of the standard library's CPU for the response to a status request, which saves a tenth of the
CPU of the whole request (``python -m benchmarks --only status_cpu``). It is stricter than the standard library; a
billed task is not lost over that.
"""

from __future__ import annotations

import json

import orjson

__all__ = ["loads_lenient"]


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

"""JSON as it comes from the gateway. No I/O in here.

orjson takes an eighth of the standard library's CPU for an answer to a status request, and so a tenth of all that one
costs (``python -m benchmarks --only status_cpu``). It is also stricter, and what a task is worth is not lost over that.
"""

from __future__ import annotations

import json

import orjson

__all__ = ["loads_lenient"]


def loads_lenient(body: bytes) -> object:
    """What a body says.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # a byte order mark, for one, or NaN in a field that hardly matters
        return json.loads(body)

"""Input images in the JSON of a request that travels. No I/O.

Text that is a data URI or a URL travels as it is, and bytes as a data URI. A path is an object,
``{"path": "fox.jpg"}``: it never looks like what a stranger wrote.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kontext_async import images
from kontext_async.base_errors import InvalidRequest

__all__ = ["source_from_json", "source_to_json"]

TRAVEL_RULE = "it cannot travel: pass a path, a URL or bytes"
PATHS_RULE = "a path is read only from data of your own: from_dict(…, allow_paths=True)"


def source_to_json(source: Any, name: str) -> str | dict[str, str]:
    """Return an input image as JSON.

    Raises:
        InvalidRequest: It is a file object, a reader or a Pillow image.
    """
    if images.is_path(source):
        return {"path": os.fsdecode(source)}
    if isinstance(source, str):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        return f"data:image/{images.detect_format(data[:64]) or 'jpeg'};base64,{b64encode(data).decode()}"
    raise InvalidRequest(name, source, TRAVEL_RULE)


def source_from_json(source: Any, name: str, *, allow_paths: bool) -> Any:
    """Return the input image that JSON describes.

    Raises:
        InvalidRequest: It is a path, and paths are not allowed.
    """
    if not isinstance(source, Mapping):
        return source
    path = source.get("path")
    if not isinstance(path, str):
        raise InvalidRequest(name, source, TRAVEL_RULE)
    if not allow_paths:
        raise InvalidRequest(name, path, PATHS_RULE)
    return Path(path)

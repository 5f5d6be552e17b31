"""A connection that keeps what aiohttp's parser refused.

The parser discards a whole response if its body has a wrong length, or something behind it. The response to a create
request may have the ID of a billed task, so create requests use these connections. aiohttp has no public way to set the
class of a connection; without the private one, responses are lost as before.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

__all__ = ["LenientConnector", "refused_bytes"]

MARK = "kontext_async_refused"
"""The attribute of an error that has the refused bytes."""


class LenientConnector(aiohttp.TCPConnector):
    """A connector whose connections attach refused bytes to their error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = partial(_LenientHandler, loop=self._loop)


class _LenientHandler(ResponseHandler):
    def data_received(self, data: bytes) -> None:
        body = self._payload
        super().data_received(data)
        error = self.exception()
        if not isinstance(error, HttpProcessingError) or hasattr(error, MARK):
            return
        setattr(error, MARK, data)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(error)  # else its reader would wait until the deadline


def refused_bytes(error: BaseException) -> bytes:
    """Return the bytes that led to an error; none if they are unknown."""
    return getattr(error, MARK, b"")

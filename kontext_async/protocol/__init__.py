"""The wire protocol as pure functions: models to bytes, and bytes and status codes to models and errors.

No I/O (but an image's own), no await, no clock. PROTOCOL.md describes the wire. The modules, in the order in which a
request passes them:

``endpoints``
    URLs, and the rules for a task ID in a URL.
``requests``
    The create request: its body and its fingerprint.
``framing``
    A response whose end is missing.
``cleaning``
    A response body without the key and without invisible characters.
``decoding``
    JSON bytes to Python values.
``values``
    Python values to money, numbers and times.
``responses``
    A task: the response to a create request or a status request.
``estimates``
    A price: the response to a precharge request.
``errors``
    Every other HTTP response, as an error; and the ``Retry-After`` header.
"""

from kontext_async.protocol.cleaning import clean_body
from kontext_async.protocol.endpoints import check_task_id, create_url, precharge_url, status_url
from kontext_async.protocol.errors import error_from_response, retry_after
from kontext_async.protocol.estimates import read_estimate
from kontext_async.protocol.requests import CreateBody, encode_create, fingerprint
from kontext_async.protocol.responses import (
    InProgress,
    accepted_despite_error,
    read_accepted,
    read_created,
    read_poll,
    read_status,
)

__all__ = [
    "CreateBody",
    "InProgress",
    "accepted_despite_error",
    "check_task_id",
    "clean_body",
    "create_url",
    "encode_create",
    "error_from_response",
    "fingerprint",
    "precharge_url",
    "read_accepted",
    "read_created",
    "read_estimate",
    "read_poll",
    "read_status",
    "retry_after",
    "status_url",
]

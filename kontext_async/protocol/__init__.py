"""The parts that all gateways share, as pure functions: models to bytes, and bytes to values and errors.

No I/O (but an image's own), no await, no clock. PROTOCOL.md describes the wire. The modules, in the order in which a
request passes them:

``task_ids``
    The rules for a task ID in a URL.
``requests``
    The create request: its body and its fingerprint.
``http``
    A complete HTTP response.
``framing``
    A response whose end is missing.
``cleaning``
    A response body without the key and without invisible characters.
``decoding``
    JSON bytes to Python values.
``values``
    Python values to money, numbers and times.
``tasks``
    The parts of a task that all dialects share.
``errors``
    Every other HTTP response, as an error; and the ``Retry-After`` header.
"""

from kontext_async.protocol.cleaning import clean_body
from kontext_async.protocol.errors import error_from_response, retry_after
from kontext_async.protocol.requests import CreateBody, encode_create, fingerprint
from kontext_async.protocol.task_ids import check_task_id
from kontext_async.protocol.tasks import InProgress

__all__ = [
    "CreateBody",
    "InProgress",
    "check_task_id",
    "clean_body",
    "encode_create",
    "error_from_response",
    "fingerprint",
    "retry_after",
]

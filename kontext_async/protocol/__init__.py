"""PROTOCOL.md without I/O: models to bytes, bytes and status codes to models and errors. No await, no clock."""

from kontext_async.protocol.endpoints import check_task_id, create_url, precharge_url, status_url
from kontext_async.protocol.errors import error_from_response, retry_after
from kontext_async.protocol.estimates import read_estimate
from kontext_async.protocol.requests import CreateBody, encode_create, fingerprint
from kontext_async.protocol.responses import InProgress, accepted_despite_error, read_created, read_poll, read_status

__all__ = [
    "CreateBody",
    "InProgress",
    "accepted_despite_error",
    "check_task_id",
    "create_url",
    "encode_create",
    "error_from_response",
    "fingerprint",
    "precharge_url",
    "read_created",
    "read_estimate",
    "read_poll",
    "read_status",
    "retry_after",
    "status_url",
]

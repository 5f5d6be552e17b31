"""PROTOCOL.md without I/O: models to bytes, bytes and status codes to models and errors. No await, no clock."""

from kontext_async.protocol.addresses import check_task_id, create_url, precharge_url, status_url
from kontext_async.protocol.answers import read_accepted, read_created, read_status, read_unfinished
from kontext_async.protocol.precharge import read_estimate
from kontext_async.protocol.refusals import refusal, retry_after
from kontext_async.protocol.requests import CreateBody, encode_create, fingerprint

__all__ = [
    "CreateBody",
    "check_task_id",
    "create_url",
    "encode_create",
    "fingerprint",
    "precharge_url",
    "read_accepted",
    "read_created",
    "read_estimate",
    "read_status",
    "read_unfinished",
    "refusal",
    "retry_after",
    "status_url",
]

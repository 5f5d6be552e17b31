"""Responses about a task, for the tests of `kontext_async.protocol`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kontext_async.gateways.vtrix_tasks import read_status

if TYPE_CHECKING:
    from kontext_async.models import TaskStatus

ID = "d8ejq1de878c739e2lrg"


def encode_response(**fields: Any) -> bytes:
    """Return the response for a task in progress, with fields added or replaced."""
    return json.dumps({"id": ID, "status": "in_progress", **fields}).encode()


def read_response(**fields: Any) -> TaskStatus:
    """Return the status that is read from this response."""
    return read_status(encode_response(**fields), ID)

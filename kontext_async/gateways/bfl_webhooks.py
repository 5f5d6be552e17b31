"""The deliveries of Black Forest Labs' webhooks: PROTOCOL-BFL.md, "Webhooks".

Two accounts of the secret exclude each other: it is sent in a header, or the body is signed with it. Either is
accepted, and a delivery with neither is not. Nothing of a delivery is believed: its ID says which task to poll.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from kontext_async.protocol.decoding import loads_lenient
from kontext_async.protocol.task_ids import is_task_id

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_authentic", "read_task_id"]

SECRET_HEADER = "x-webhook-secret"  # noqa: S105 # the name of a header
SIGNATURE_HEADER = "x-bfl-signature"
SIGNATURE_PREFIX = "sha256="


def is_authentic(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Return True if a delivery has the secret, or a signature with it. Both are compared in constant time.

    Args:
        headers: The headers, with names in any case.
        body: The body as it came.
        secret: The secret of the webhook; an empty one is never authentic.
    """
    given = {name.lower(): value for name, value in headers.items()}
    if not secret:
        return False
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    is_secret = _equals(given.get(SECRET_HEADER), secret)
    is_signed = _equals(given.get(SIGNATURE_HEADER), SIGNATURE_PREFIX + digest)
    return is_secret or is_signed


def read_task_id(body: bytes) -> str | None:
    """Return the ID of the task that a delivery is about, in either form of its body; None if it names none."""
    try:
        payload = loads_lenient(body)
    except (ValueError, RecursionError):
        return None
    task_id = payload.get("id") if isinstance(payload, dict) else None
    return task_id.strip() if isinstance(task_id, str) and is_task_id(task_id) else None


def _equals(given: str | None, expected: str) -> bool:
    """Compare two texts in a time that does not show where they differ."""
    return hmac.compare_digest((given or "").encode("utf-8", "surrogateescape"), expected.encode())

"""Reads a delivery of a webhook within a bound, and gives it to the session. No framework.

A delivery only says which task to poll: `KontextSession.receive_webhook`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from kontext_async.integrations.problems import RequestTooLarge
from kontext_async.integrations.serving import read_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping

    from kontext_async.session import KontextSession

__all__ = ["MAX_DELIVERY_BYTES", "receive_delivery"]

MAX_DELIVERY_BYTES = 1024 * 1024
"""The largest delivery. It has the prompt and a URL, and no image."""


async def receive_delivery(
    session: KontextSession, headers: Mapping[str, str], chunks: AsyncIterable[bytes], *, secret: str | None = None
) -> HTTPStatus:
    """Read a delivery, give it to the session, and return the HTTP status to respond with.

    Args:
        session: The session.
        headers: The headers of the delivery.
        chunks: Its body. No more of it is read than `MAX_DELIVERY_BYTES` and one chunk.
        secret: The secret of the webhook; None is that of the session's.

    Returns:
        204 if the delivery was taken; 401 if it does not show that it knows the secret; 413 if it is too large.

    Raises:
        ConfigurationError: The gateway has no webhooks, or there is no secret.
        SessionError: The session is not running.
    """
    try:
        body = await read_body(chunks, MAX_DELIVERY_BYTES)
    except RequestTooLarge:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    is_taken = session.receive_webhook(headers, body, secret=secret)
    return HTTPStatus.NO_CONTENT if is_taken else HTTPStatus.UNAUTHORIZED

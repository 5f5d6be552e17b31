"""A handler of webhooks for Starlette, and so for FastAPI.

.. code-block:: python

    app.add_route("/webhooks/bfl", webhook_handler(get_session), methods=["POST"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from kontext_async.integrations.webhooks import receive_delivery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from kontext_async.session import KontextSession

__all__ = ["webhook_handler"]


def webhook_handler(
    get_session: Callable[[Request], KontextSession], secret: str | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler for the address of a webhook.

    It responds 204 to a delivery of the gateway, and 401 to one that does not show that it knows the secret.

    Args:
        get_session: Returns the session for a request.
        secret: The secret of the webhook; None is that of the session's.
    """

    async def handle(request: Request) -> Response:
        status = await receive_delivery(get_session(request), request.headers, request.stream(), secret=secret)
        return Response(status_code=status)

    return handle

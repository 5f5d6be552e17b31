"""A handler of webhooks for aiohttp's server.

.. code-block:: python

    app.router.add_post("/webhooks/bfl", webhook_handler(get_session))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from kontext_async.integrations.webhooks import receive_delivery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kontext_async.session import KontextSession

__all__ = ["webhook_handler"]


def webhook_handler(
    get_session: Callable[[web.Request], KontextSession], secret: str | None = None
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler for the address of a webhook.

    It responds 204 to a delivery of the gateway, and 401 to one that does not show that it knows the secret.

    Args:
        get_session: Returns the session for a request.
        secret: The secret of the webhook; None is that of the session's.
    """

    async def handle(request: web.Request) -> web.Response:
        chunks = request.content.iter_any()
        status = await receive_delivery(get_session(request), request.headers, chunks, secret=secret)
        return web.Response(status=status)

    return handle

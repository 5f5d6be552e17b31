"""Servers that take webhooks for a session, by the handlers of the integrations."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from attrs import define, field
from starlette.applications import Starlette
from web_support import serve_asgi

from kontext_async import KontextSession, Webhook
from kontext_async.integrations import aiohttp_webhook, starlette_webhook
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.emulator import Emulator

__all__ = ["SECRET", "SERVERS", "WebhookServer", "connect_with_webhook", "count_polls", "serve_webhooks"]

SECRET = "the-secret-of-the-webhook"
SERVERS = ("aiohttp", "starlette")
PATH = "/webhooks/bfl"


@define
class WebhookServer:
    """A server that takes webhooks.

    Attributes:
        url: The address of the webhook.
        session: The session that gets the deliveries.
        statuses: The HTTP statuses that it responded with.
    """

    url: str = ""
    session: KontextSession | None = None
    statuses: list[int] = field(factory=list)

    def get_session(self, request: Any) -> KontextSession:
        del request
        assert self.session
        return self.session

    @property
    def webhook(self) -> Webhook:
        return Webhook(url=self.url, secret=SECRET)


@asynccontextmanager
async def serve_webhooks(framework: str) -> AsyncIterator[WebhookServer]:
    """Serve the handler of a framework under its real server."""
    receiver = WebhookServer()
    async with _serve_aiohttp(receiver) if framework == "aiohttp" else _serve_starlette(receiver) as base_url:
        receiver.url = base_url + PATH
        yield receiver


@asynccontextmanager
async def _serve_aiohttp(receiver: WebhookServer) -> AsyncIterator[str]:
    handler = aiohttp_webhook.webhook_handler(receiver.get_session)

    async def record(request: web.Request) -> web.StreamResponse:
        response = await handler(request)
        receiver.statuses.append(response.status)
        return response

    app = web.Application()
    app.router.add_post(PATH, record)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@asynccontextmanager
async def _serve_starlette(receiver: WebhookServer) -> AsyncIterator[str]:
    handler = starlette_webhook.webhook_handler(receiver.get_session)

    async def record(request: Any) -> Any:
        response = await handler(request)
        receiver.statuses.append(response.status_code)
        return response

    app = Starlette()
    app.add_route(PATH, record, methods=["POST"])
    async with serve_asgi(app, lifespan="off") as address:
        yield address


def connect_with_webhook(emulator: Emulator, webhook: Webhook | None, **options: Any) -> KontextSession:
    """Return a session of `bfl` with a webhook, not started. All servers of the emulator know every task."""
    given: dict[str, Any] = {"settings": FAST, "single_cluster": True, **options}
    return KontextSession(emulator.api_key, base_url=emulator.base_url, gateway="bfl", webhook=webhook, **given)


def count_polls(emulator: Emulator) -> int:
    """Return the number of status requests that arrived."""
    return sum(record.path == "/v1/get_result" for record in emulator.requests)

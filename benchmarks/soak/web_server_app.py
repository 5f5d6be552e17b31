"""A web server that generates one image for each key. `benchmarks.soak.web_server` kills it.

``python -m benchmarks.soak.web_server_app PORT`` reads ``KONTEXT_STORE``. It serves ``POST /images/KEY``, whose
body is the prompt, and responds with the task ID.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from aiohttp import web

from kontext_async import KontextSession, SubmissionUncertain
from kontext_async.settings import Settings, StoreSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["build_app"]

SESSION = web.AppKey("session", KontextSession)


async def run_session(app: web.Application) -> AsyncIterator[None]:
    """Keep a session open while the server runs."""
    settings = Settings(store=StoreSettings(lease=3.0, beat=1.0))
    async with KontextSession(store=os.environ["KONTEXT_STORE"], settings=settings) as app[SESSION]:
        yield


async def image(request: web.Request) -> web.Response:
    """Generate an image, and respond with its task ID."""
    try:
        generation = await request.app[SESSION].generate(await request.text(), key=request.match_info["key"])
    except SubmissionUncertain as error:
        return web.Response(status=503, text=str(error))
    return web.Response(text=generation.task_id)


def build_app() -> web.Application:
    """Return the application."""
    app = web.Application()
    app.cleanup_ctx.append(run_session)
    app.router.add_post("/images/{key}", image)
    return app


if __name__ == "__main__":
    web.run_app(build_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None)

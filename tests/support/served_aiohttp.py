"""The application of the server tests in aiohttp."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from served_sessions import GRACE, TASK_ID, make_session

from kontext_async.integrations import aiohttp_web


async def send_image(request: web.Request) -> web.StreamResponse:
    wanted = await aiohttp_web.read_request(request)
    session = aiohttp_web.get_session(request)
    generation = await session.generate(wanted, abandoned=aiohttp_web.disconnected(request))
    return await aiohttp_web.send_image(request, session, generation.image, headers={TASK_ID: generation.task_id})


async def submit_task(request: web.Request) -> web.Response:
    task = await aiohttp_web.get_session(request).submit(await aiohttp_web.read_request(request))
    return web.json_response({"task_id": task.id}, status=202)


async def send_events(request: web.Request) -> web.StreamResponse:
    task = aiohttp_web.get_session(request).attach(request.match_info["task_id"])
    return await aiohttp_web.send_events(request, task, every=0.05)


def make_app(argv: Any = None) -> web.Application:
    app = web.Application()
    aiohttp_web.setup(app, make_session, grace=GRACE)
    app.router.add_post("/images", send_image)
    app.router.add_post("/tasks", submit_task)
    app.router.add_get("/tasks/{task_id}/events", send_events)
    app.router.add_get("/healthz", aiohttp_web.healthz)
    return app


async def make_served_app() -> web.Application:
    """Return the application for a worker of gunicorn."""
    return make_app()

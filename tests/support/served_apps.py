"""One application in aiohttp, Starlette, FastAPI and Litestar each, for servers in processes of their own.

``POST /images`` returns an image, ``POST /tasks`` the ID of a task, and ``GET /tasks/ID/events`` its events.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from aiohttp import web
from fastapi import Depends, FastAPI
from litestar import Litestar, Request as LitestarRequest, Response as LitestarResponse, get, post
from starlette.applications import Starlette
from starlette.requests import Request  # noqa: TC002 # FastAPI resolves it
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kontext_async import KontextError, KontextRequest, KontextSession, Limits, UntrustedRules
from kontext_async.integrations import aiohttp_web, serving, starlette
from kontext_async.integrations.problems import MEDIA_TYPE, problem_of
from kontext_async.integrations.serving import ServedSession
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GRACE = float(os.environ.get("GRACE", "3"))
TASK_ID = "X-Task-ID"


def make_session() -> KontextSession:
    """Return a session with a few slots, so that requests wait for one."""
    limits = attrs.evolve(FAST.limits, max_in_flight=int(os.environ.get("MAX_IN_FLIGHT", "8")))
    assert isinstance(limits, Limits)
    return KontextSession(settings=FAST, limits=limits)


async def aiohttp_image(request: web.Request) -> web.StreamResponse:
    wanted = await aiohttp_web.read_request(request)
    session = aiohttp_web.get_session(request)
    generation = await session.generate(wanted, abandoned=aiohttp_web.disconnected(request))
    return await aiohttp_web.send_image(request, session, generation.image, headers={TASK_ID: generation.task_id})


async def aiohttp_task(request: web.Request) -> web.Response:
    task = await aiohttp_web.get_session(request).submit(await aiohttp_web.read_request(request))
    return web.json_response({"task_id": task.id}, status=202)


async def aiohttp_events(request: web.Request) -> web.StreamResponse:
    task = aiohttp_web.get_session(request).attach(request.match_info["task_id"])
    return await aiohttp_web.send_events(request, task, every=0.05)


def make_aiohttp_app(argv: Any = None) -> web.Application:
    app = web.Application()
    aiohttp_web.setup(app, make_session, grace=GRACE)
    app.router.add_post("/images", aiohttp_image)
    app.router.add_post("/tasks", aiohttp_task)
    app.router.add_get("/tasks/{task_id}/events", aiohttp_events)
    app.router.add_get("/healthz", aiohttp_web.healthz)
    return app


async def starlette_image(request: Request) -> Response:
    wanted = await starlette.read_request(request)
    session = starlette.get_session(request)
    generation = await session.generate(wanted, abandoned=starlette.disconnected(request))
    return starlette.ImageResponse(session, generation.image, headers={TASK_ID: generation.task_id})


async def starlette_task(request: Request) -> Response:
    task = await starlette.get_session(request).submit(await starlette.read_request(request))
    return JSONResponse({"task_id": task.id}, status_code=202)


async def starlette_events(request: Request) -> Response:
    task = starlette.get_session(request).attach(request.path_params["task_id"])
    return starlette.event_response(task, every=0.05, grace=GRACE)


starlette_app = Starlette(
    routes=[
        Route("/images", starlette_image, methods=["POST"]),
        Route("/tasks", starlette_task, methods=["POST"]),
        Route("/tasks/{task_id}/events", starlette_events),
        Route("/healthz", starlette.healthz),
    ],
    lifespan=starlette.lifespan(make_session, grace=GRACE),
    exception_handlers=starlette.EXCEPTION_HANDLERS,
)

fastapi_app = FastAPI(
    lifespan=starlette.lifespan(make_session, grace=GRACE), exception_handlers=starlette.EXCEPTION_HANDLERS
)
fastapi_app.add_route("/healthz", starlette.healthz)
Session = Annotated[KontextSession, Depends(starlette.get_session)]
Wanted = Annotated[KontextRequest, Depends(starlette.request_reader())]


@fastapi_app.post("/images")
async def fastapi_image(request: Request, wanted: Wanted, session: Session) -> Response:
    generation = await session.generate(wanted, abandoned=starlette.disconnected(request))
    return starlette.ImageResponse(session, generation.image, headers={TASK_ID: generation.task_id})


@fastapi_app.post("/tasks", status_code=202)
async def fastapi_task(wanted: Wanted, session: Session) -> dict[str, str]:
    return {"task_id": (await session.submit(wanted)).id}


@fastapi_app.get("/tasks/{task_id}/events")
async def fastapi_events(task_id: str, session: Session) -> Response:
    return starlette.event_response(session.attach(task_id), every=0.05, grace=GRACE)


@asynccontextmanager
async def run_session(app: Litestar) -> AsyncIterator[None]:
    async with ServedSession(make_session, grace=GRACE) as app.state.kontext:
        yield


def respond_with_problem(request: LitestarRequest[Any, Any, Any], error: KontextError) -> LitestarResponse[bytes]:
    problem = problem_of(error)
    return LitestarResponse(problem.body, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


@post("/images")
async def litestar_image(request: LitestarRequest[Any, Any, Any]) -> Response:
    wanted = await serving.read_request(request.stream(), None, UntrustedRules())
    session: KontextSession = request.app.state.kontext.admit()
    generation = await session.generate(wanted, abandoned=starlette.disconnected(request))
    return starlette.ImageResponse(session, generation.image, headers={TASK_ID: generation.task_id})


@post("/tasks", status_code=202)
async def litestar_task(request: LitestarRequest[Any, Any, Any]) -> dict[str, str]:
    wanted = await serving.read_request(request.stream(), None, UntrustedRules())
    return {"task_id": (await request.app.state.kontext.admit().submit(wanted)).id}


@get("/tasks/{task_id:str}/events")
async def litestar_events(task_id: str, request: LitestarRequest[Any, Any, Any]) -> Response:
    return starlette.event_response(request.app.state.kontext.admit().attach(task_id), every=0.05, grace=GRACE)


@get("/healthz")
async def litestar_health(request: LitestarRequest[Any, Any, Any]) -> LitestarResponse[dict[str, Any]]:
    is_ready, reasons = request.app.state.kontext.health()
    return LitestarResponse(reasons, status_code=200 if is_ready else 503)


litestar_app = Litestar(
    [litestar_image, litestar_task, litestar_events, litestar_health],
    lifespan=[run_session],
    exception_handlers={KontextError: respond_with_problem},
)


async def make_served_aiohttp_app() -> web.Application:
    """Return the application for a worker of gunicorn."""
    return make_aiohttp_app()

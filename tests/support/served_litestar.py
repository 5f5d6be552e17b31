"""The application of the server tests in Litestar."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from litestar import Litestar, Request as LitestarRequest, Response as LitestarResponse, get, post
from served_sessions import GRACE, TASK_ID, make_session
from starlette.responses import Response  # noqa: TC002 # Litestar resolves it

from kontext_async import KontextError, KontextSession, UntrustedRules
from kontext_async.integrations import serving, starlette
from kontext_async.integrations.problems import MEDIA_TYPE, problem_of
from kontext_async.integrations.serving import ServedSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def run_session(app: Litestar) -> AsyncIterator[None]:
    async with ServedSession(make_session, grace=GRACE) as app.state.kontext:
        yield


def respond_with_problem(request: LitestarRequest[Any, Any, Any], error: KontextError) -> LitestarResponse[bytes]:
    problem = problem_of(error)
    return LitestarResponse(problem.body, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


@post("/images")
async def send_image(request: LitestarRequest[Any, Any, Any]) -> Response:
    wanted = await serving.read_request(request.stream(), None, UntrustedRules())
    session: KontextSession = request.app.state.kontext.admit()
    generation = await session.generate(wanted, abandoned=starlette.disconnected(request))
    return starlette.ImageResponse(session, generation.image, headers={TASK_ID: generation.task_id})


@post("/tasks", status_code=202)
async def submit_task(request: LitestarRequest[Any, Any, Any]) -> dict[str, str]:
    wanted = await serving.read_request(request.stream(), None, UntrustedRules())
    return {"task_id": (await request.app.state.kontext.admit().submit(wanted)).id}


@get("/tasks/{task_id:str}/events")
async def send_events(task_id: str, request: LitestarRequest[Any, Any, Any]) -> Response:
    return starlette.event_response(request.app.state.kontext.admit().attach(task_id), every=0.05, grace=GRACE)


@get("/healthz")
async def report_health(request: LitestarRequest[Any, Any, Any]) -> LitestarResponse[dict[str, Any]]:
    is_ready, reasons = request.app.state.kontext.health()
    return LitestarResponse(reasons, status_code=200 if is_ready else 503)


app = Litestar(
    [send_image, submit_task, send_events, report_health],
    lifespan=[run_session],
    exception_handlers={KontextError: respond_with_problem},
)

"""The application of the server tests in Starlette."""

from __future__ import annotations

from typing import TYPE_CHECKING

from served_sessions import GRACE, TASK_ID, make_session
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from kontext_async.integrations import starlette

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def send_image(request: Request) -> Response:
    wanted = await starlette.read_request(request)
    session = starlette.get_session(request)
    generation = await session.generate(wanted, abandoned=starlette.disconnected(request))
    return starlette.ImageResponse(session, generation.image, headers={TASK_ID: generation.task_id})


async def submit_task(request: Request) -> Response:
    task = await starlette.get_session(request).submit(await starlette.read_request(request))
    return JSONResponse({"task_id": task.id}, status_code=202)


async def send_events(request: Request) -> Response:
    task = starlette.get_session(request).attach(request.path_params["task_id"])
    return starlette.event_response(task, every=0.05, grace=GRACE)


app = Starlette(
    routes=[
        Route("/images", send_image, methods=["POST"]),
        Route("/tasks", submit_task, methods=["POST"]),
        Route("/tasks/{task_id}/events", send_events),
        Route("/healthz", starlette.healthz),
    ],
    lifespan=starlette.lifespan(make_session, grace=GRACE),
    exception_handlers=starlette.EXCEPTION_HANDLERS,
)

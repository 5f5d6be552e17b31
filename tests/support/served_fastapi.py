"""The application of the server tests in FastAPI."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI
from served_sessions import GRACE, TASK_ID, make_session
from starlette.requests import Request  # noqa: TC002 # FastAPI resolves it
from starlette.responses import Response  # noqa: TC002

from kontext_async import KontextRequest, KontextSession
from kontext_async.integrations import starlette

app = FastAPI(lifespan=starlette.lifespan(make_session, grace=GRACE), exception_handlers=starlette.EXCEPTION_HANDLERS)
app.add_route("/healthz", starlette.healthz)
Session = Annotated[KontextSession, Depends(starlette.get_session)]
Wanted = Annotated[KontextRequest, Depends(starlette.request_reader())]


@app.post("/images")
async def send_image(request: Request, wanted: Wanted, session: Session) -> Response:
    generation = await session.generate(wanted, abandoned=starlette.disconnected(request))
    return starlette.ImageResponse(session, generation.image, headers={TASK_ID: generation.task_id})


@app.post("/tasks", status_code=202)
async def submit_task(wanted: Wanted, session: Session) -> dict[str, str]:
    return {"task_id": (await session.submit(wanted)).id}


@app.get("/tasks/{task_id}/events")
async def send_events(task_id: str, session: Session) -> Response:
    return starlette.event_response(session.attach(task_id), every=0.05, grace=GRACE)

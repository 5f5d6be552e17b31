"""The files origin's handlers: pictures behind URLs that expire, with Range requests."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs
from aiohttp import web

from kontext_async.emulator.context import brief_of
from kontext_async.emulator.delivery import hang_up, interrupt, refuse, stall
from kontext_async.emulator.kinds import FaultKind, Operation
from kontext_async.emulator.links import Verdict
from kontext_async.emulator.ranges import UnsatisfiableError, wanted_range
from kontext_async.emulator.world import Refusal, State

if TYPE_CHECKING:
    from kontext_async.emulator.context import Context
    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.world import Task

_PIECES = 10
_MISSING_BYTES = 64
_NO_FILE = Refusal(status=404, code="NOT_FOUND", message="no such file")


@attrs.frozen(kw_only=True)
class Plan:
    """How a body is sent: what Content-Length says, what comes, over how long, and what follows.

    Attributes:
        declared: The Content-Length.
        body: The bytes that are sent.
        seconds: The seconds that they are spread over.
        then: `finish`, `close` the connection, or `stall`.
    """

    declared: int
    body: bytes = attrs.field(repr=False)
    seconds: float = 0.0
    then: str = "finish"


def plan_for(body: bytes, fault: Fault | None) -> Plan:
    """How the fault has a body sent."""
    whole, half = len(body), body[: len(body) // 2]
    plans = {
        FaultKind.CUT_HALFWAY: Plan(declared=whole, body=half, then="close"),
        FaultKind.STALL_HALFWAY: Plan(declared=whole, body=half, then="stall"),
        FaultKind.SHORT_BODY: Plan(declared=whole + _MISSING_BYTES, body=body, then="close"),
        FaultKind.TRUNCATED_FILE: Plan(declared=len(half), body=half),
        FaultKind.EMPTY_FILE: Plan(declared=0, body=b""),
    }
    ordinary = Plan(declared=whole, body=body)
    if fault is None:
        return ordinary
    if fault.kind is FaultKind.TRICKLE:
        return attrs.evolve(ordinary, seconds=fault.seconds or 0.0)
    return plans.get(fault.kind, ordinary)


def keeps_ranges(fault: Fault | None) -> bool:
    """Whether Range requests are honoured under this fault."""
    return fault is None or (fault.kind is not FaultKind.NO_RANGES and fault.ranges)


class Files:
    """The handlers, over the shared `context`."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def routes(self) -> list[web.RouteDef]:
        """What is served where. What was moved meets no faults: a redirect must come to an end."""
        return [
            web.get("/results/{id}/{name}", self.download),
            web.get("/moved/{id}/{name}", self.moved),
        ]

    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET /results/{id}/{name}`."""
        fault = self.context.draw(Operation.DOWNLOAD)
        instead = await interrupt(self.context, request, fault)
        return await self._serve(request, fault) if instead is None else instead.response()

    async def moved(self, request: web.Request) -> web.StreamResponse:
        """`GET /moved/{id}/{name}`."""
        return await self._serve(request, None)

    async def _serve(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        found = self._find(request)
        if isinstance(found, Refusal):
            return refuse(self.context, found).response()
        task, number = found
        data = await self.context.gallery.picture(brief_of(task, number))
        etag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"Content-Type": f"image/{task.request.output_format}", "ETag": etag}
        wanted = None
        if keeps_ranges(fault):
            headers["Accept-Ranges"] = "bytes"
            asked = request.headers
            try:
                wanted = wanted_range(asked.get("Range"), asked.get("If-Range"), etag=etag, size=len(data))
            except UnsatisfiableError as error:
                return web.Response(status=416, headers={"Content-Range": str(error)})
        if wanted is None:
            return await self._send(request, 200, headers, plan_for(data, fault))
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(data)}"
        return await self._send(request, 206, headers, plan_for(data[wanted.start : wanted.stop], fault))

    def _find(self, request: web.Request) -> tuple[Task, int] | Refusal:
        task_id, name = request.match_info["id"], request.match_info["name"]
        now = self.context.clock()
        verdict = self.context.links.check(f"{task_id}/{name}", request.query, now)
        if verdict is Verdict.FORGED:
            return Refusal(status=403, code="FORBIDDEN", message="the signature does not match")
        if verdict is Verdict.EXPIRED:
            return Refusal(status=self.context.expired_status, code="URL_EXPIRED", message="request has expired")
        task = self.context.world.of_any_key(task_id)
        number, _, extension = name.partition(".")
        if task is None or task.state(now) is not State.COMPLETED:
            return _NO_FILE
        if not number.isdecimal() or extension != task.request.output_format:
            return _NO_FILE
        return task, int(number)

    async def _send(self, request: web.Request, status: int, headers: dict[str, str], plan: Plan) -> web.StreamResponse:
        if plan.then == "finish" and not plan.seconds:
            return web.Response(status=status, headers=headers, body=plan.body)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = plan.declared
        await response.prepare(request)
        size = max(1, -(-len(plan.body) // (_PIECES if plan.seconds else 1)))
        for start in range(0, len(plan.body), size):
            await response.write(plan.body[start : start + size])
            if plan.seconds:
                await self.context.pause(plan.seconds / _PIECES)
        if plan.then == "stall":
            await stall(self.context, request)
        if plan.then == "close":
            hang_up(request)
        return response

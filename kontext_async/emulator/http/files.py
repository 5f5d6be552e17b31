"""The handlers of the files origin: images behind URLs that expire, with Range requests."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

from aiohttp import web
from attrs import evolve, field, frozen

from kontext_async.emulator.fault_kinds import FaultKind, Operation
from kontext_async.emulator.http.responder import (
    MISSING_BYTES,
    disconnect,
    perform_fault,
    prepare_refusal,
    stall,
)
from kontext_async.emulator.http.state import create_brief
from kontext_async.emulator.ranges import Unsatisfiable, parse_range
from kontext_async.emulator.signed_urls import UrlCheck
from kontext_async.emulator.world import Refusal, TaskPhase

if TYPE_CHECKING:
    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.state import GatewayState
    from kontext_async.emulator.world import Task

TRICKLE_PIECES = 10
NO_FILE = Refusal(status=HTTPStatus.NOT_FOUND, code="NOT_FOUND", message="no such file")


@frozen(kw_only=True)
class TransferPlan:
    """The plan for sending a body.

    Attributes:
        declared: The Content-Length.
        body: The bytes to send.
        seconds: The duration of the transfer in seconds.
        then: The last step: `finish` the response, `close` the connection, or `stall`.
    """

    declared: int
    body: bytes = field(repr=False)
    seconds: float = 0.0
    then: Literal["finish", "close", "stall"] = "finish"


def plan_transfer(body: bytes, fault: Fault | None) -> TransferPlan:
    """Return the plan for sending a body under the fault."""
    whole, half = len(body), body[: len(body) // 2]
    plans = {
        FaultKind.CUT_HALFWAY: TransferPlan(declared=whole, body=half, then="close"),
        FaultKind.STALL_HALFWAY: TransferPlan(declared=whole, body=half, then="stall"),
        FaultKind.SHORT_BODY: TransferPlan(declared=whole + MISSING_BYTES, body=body, then="close"),
        FaultKind.TRUNCATED_FILE: TransferPlan(declared=len(half), body=half),
        FaultKind.EMPTY_FILE: TransferPlan(declared=0, body=b""),
    }
    ordinary = TransferPlan(declared=whole, body=body)
    if fault is None:
        return ordinary
    if fault.kind is FaultKind.TRICKLE:
        return evolve(ordinary, seconds=fault.seconds or 0.0)
    return plans.get(fault.kind, ordinary)


def supports_ranges(fault: Fault | None) -> bool:
    """Return whether Range requests work under this fault."""
    return fault is None or (fault.kind is not FaultKind.NO_RANGES and fault.ranges)


class Files:
    """The handlers of the files origin, over the shared `state`."""

    def __init__(self, state: GatewayState) -> None:
        self.state = state

    def list_routes(self) -> list[web.RouteDef]:
        """Return the routes. Moved files have no faults: a chain of redirects must end."""
        return [
            web.get("/results/{id}/{name}", self.download),
            web.get("/moved/{id}/{name}", self.download_moved),
        ]

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /results/{id}/{name}`."""
        fault = self.state.draw_fault(Operation.DOWNLOAD)
        replacement = await perform_fault(self.state, request, fault)
        return await self._serve(request, fault) if replacement is None else replacement.build()

    async def download_moved(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /moved/{id}/{name}`."""
        return await self._serve(request, None)

    async def _serve(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        found = self._find(request)
        if isinstance(found, Refusal):
            return prepare_refusal(self.state, found).build()
        task, number = found
        data = await self.state.image_cache.get_image(create_brief(task, number))
        etag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"Content-Type": f"image/{task.request.output_format}", "ETag": etag}
        wanted = None
        if supports_ranges(fault):
            headers["Accept-Ranges"] = "bytes"
            range_header, if_range = request.headers.get("Range"), request.headers.get("If-Range")
            try:
                wanted = parse_range(range_header, if_range, etag=etag, size=len(data))
            except Unsatisfiable as error:
                status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                return web.Response(status=status, headers={"Content-Range": str(error)})
        if wanted is None:
            return await self._send(request, HTTPStatus.OK, headers, plan_transfer(data, fault))
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(data)}"
        plan = plan_transfer(data[wanted.start : wanted.stop], fault)
        return await self._send(request, HTTPStatus.PARTIAL_CONTENT, headers, plan)

    def _find(self, request: web.Request) -> tuple[Task, int] | Refusal:
        """Return the task of a request, and the number of its image."""
        task_id, name = request.match_info["id"], request.match_info["name"]
        now = self.state.clock()
        url_check = self.state.url_signer.check(f"{task_id}/{name}", request.query, now)
        if url_check is UrlCheck.FORGED:
            return Refusal(status=HTTPStatus.FORBIDDEN, code="FORBIDDEN", message="the signature does not match")
        if url_check is UrlCheck.EXPIRED:
            return Refusal(status=self.state.expired_status, code="URL_EXPIRED", message="request has expired")
        task = self.state.world.find_of_any_key(task_id)
        number, _, extension = name.partition(".")
        if task is None or task.phase_at(now) is not TaskPhase.COMPLETED:
            return NO_FILE
        if not number.isdecimal() or extension != task.request.output_format:
            return NO_FILE
        return task, int(number)

    async def _send(
        self, request: web.Request, status: int, headers: dict[str, str], plan: TransferPlan
    ) -> web.StreamResponse:
        if plan.then == "finish" and not plan.seconds:
            return web.Response(status=status, headers=headers, body=plan.body)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = plan.declared
        await response.prepare(request)
        size = max(1, -(-len(plan.body) // (TRICKLE_PIECES if plan.seconds else 1)))
        for start in range(0, len(plan.body), size):
            await response.write(plan.body[start : start + size])
            if plan.seconds:
                await self.state.pause(plan.seconds / TRICKLE_PIECES)
        if plan.then == "stall":
            await stall(self.state, request)
        if plan.then == "close":
            disconnect(request)
        return response

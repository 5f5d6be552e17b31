"""The handlers of the files origin: images behind URLs that expire, with Range requests."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from kontext_async.emulator.fault_kinds import FaultKind, Operation
from kontext_async.emulator.file_faults import (
    ServedFile,
    TransferPlan,
    build_part_headers,
    change_file,
    is_another_file,
    plan_transfer,
    supports_ranges,
)
from kontext_async.emulator.hostile_json import OPAQUE_PATH, OPAQUE_QUERY
from kontext_async.emulator.http.responder import (
    build_extra_headers,
    disconnect,
    perform_fault,
    prepare_refusal,
    prepare_status_error,
    send_wrongly,
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
FORGED = Refusal(status=HTTPStatus.FORBIDDEN, code="FORBIDDEN", message="the signature does not match")
NO_FILE = Refusal(status=HTTPStatus.NOT_FOUND, code="NOT_FOUND", message="no such file")


class Files:
    """The handlers of the files origin, over the shared `state`."""

    def __init__(self, state: GatewayState) -> None:
        self.state = state

    def list_routes(self) -> list[web.RouteDef]:
        """Return the routes. Moved files have no faults: a chain of redirects must end."""
        return [
            web.get("/results/{id}/{name}", self.download),
            web.get("/opaque/{part}/{id}/{name}", self.download_opaque),
            web.get("/moved/{id}/{name}", self.download_moved),
        ]

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /results/{id}/{name}`."""
        fault = self.state.draw_fault(Operation.DOWNLOAD)
        if fault is not None and fault.kind is FaultKind.RANGE_REFUSED:
            replacement = prepare_status_error(self.state, fault) if "Range" in request.headers else None
        else:
            replacement = await perform_fault(self.state, request, fault)
        return await self._serve(request, fault) if replacement is None else replacement.build()

    async def download_opaque(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /opaque/{part}/{id}/{name}`, and refuse each URL that is not written as it was given."""
        path, _, query = request.raw_path.partition("?")
        if path.startswith(f"{OPAQUE_PATH}/") and query.endswith(f"&{OPAQUE_QUERY}"):
            return await self.download(request)
        return prepare_refusal(self.state, FORGED).build()

    async def download_moved(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /moved/{id}/{name}`."""
        return await self._serve(request, None)

    async def _serve(self, request: web.Request, fault: Fault | None) -> web.StreamResponse:
        found = self._find(request)
        if isinstance(found, Refusal):
            return prepare_refusal(self.state, found).build()
        task, number = found
        painted = await self.state.image_cache.get_image(create_brief(task, number))
        file = ServedFile(data=painted, content_type=f"image/{task.request.output_format}")
        file = change_file(file, fault, request.headers.get("Accept", ""))
        data = file.data
        etag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"Content-Type": file.content_type, "ETag": etag, **build_extra_headers(fault)}
        if file.encoding:
            headers["Content-Encoding"] = file.encoding
        wanted = None
        if supports_ranges(fault):
            headers["Accept-Ranges"] = "bytes"
            range_header = request.headers.get("Range")
            if_range = None if is_another_file(fault) else request.headers.get("If-Range")
            try:
                wanted = parse_range(range_header, if_range, etag=etag, size=len(data))
            except Unsatisfiable as error:
                status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                return web.Response(status=status, headers={"Content-Range": str(error)})
        if wanted is None:
            return await self._send(request, HTTPStatus.OK, headers, plan_transfer(data, fault))
        headers |= build_part_headers(wanted, len(data), etag, fault)
        part = data[wanted.start : wanted.stop]
        plan = plan_transfer(part[::-1] if is_another_file(fault) else part, fault)
        return await self._send(request, HTTPStatus.PARTIAL_CONTENT, headers, plan)

    def _find(self, request: web.Request) -> tuple[Task, int] | Refusal:
        """Return the task of a request, and the number of its image."""
        task_id, name = request.match_info["id"], request.match_info["name"]
        now = self.state.clock()
        url_check = self.state.url_signer.check(f"{task_id}/{name}", request.query, now)
        if url_check is UrlCheck.FORGED:
            return FORGED
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
        if plan.declared is None:
            await send_wrongly(request, web.Response(status=status, headers=headers, body=plan.body), length=None)
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

"""The handlers of Black Forest Labs' dialect, and of Fireworks' variant of it.

A task lives in one region. A create request at a region's own address stays there; at the base URL the regions take
turns. A status request at the base URL meets any region, which need not be that of the task.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from attrs import evolve

from kontext_async.emulator import bfl_json
from kontext_async.emulator.bfl_validation import MODELS, parse_bfl_create
from kontext_async.emulator.contracts import UNLIMITED_BALANCE
from kontext_async.emulator.fault_kinds import FaultKind, Operation
from kontext_async.emulator.hostile_json import apply_hostile_shape
from kontext_async.emulator.http.dialects import BFL, FIREWORKS
from kontext_async.emulator.http.responder import PreparedResponse, perform_fault, send
from kontext_async.emulator.odd_dialects import apply_odd_bfl_shape
from kontext_async.emulator.validation import RuleViolation, parse_json
from kontext_async.emulator.world import Refusal

if TYPE_CHECKING:
    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.creation import CreateHandler
    from kontext_async.emulator.http.dialects import Dialect
    from kontext_async.emulator.http.state import GatewayState
    from kontext_async.emulator.task_json import Json
    from kontext_async.emulator.world import Task

FIREWORKS_PATH = "/inference/v1/workflows/accounts/fireworks/models/{model}"
NO_MODEL = Refusal(status=HTTPStatus.NOT_FOUND, code="NOT_FOUND", message="Not Found")


class BflApi:
    """The handlers of Black Forest Labs' dialect, over the shared `state`."""

    def __init__(self, state: GatewayState, create_handler: CreateHandler) -> None:
        self.state = state
        self.create_handler = create_handler

    def list_routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/v1/get_result", self.get_result),
            web.get("/v1/credits", self.get_credits),
            web.post("/v1/{model}", self.create),
            web.post(FIREWORKS_PATH, self.create_at_fireworks),
            web.post(f"{FIREWORKS_PATH}/get_result", self.get_result_at_fireworks),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Handle `POST /v1/flux-kontext-pro` and `POST /v1/flux-kontext-max`."""
        return await self._create(request, BFL)

    async def create_at_fireworks(self, request: web.Request) -> web.StreamResponse:
        """Handle a create request at Fireworks' address."""
        return await self._create(request, FIREWORKS)

    async def _create(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        model = request.match_info["model"]
        if model not in MODELS:
            return dialect.prepare_refusal(self.state, NO_MODEL).build()
        region = self.state.find_region(request.host)
        region = next(self.state.region_turns) if region is None else region
        respond = self._send_created if dialect is BFL else self._send_created_at_fireworks
        parse = partial(parse_bfl_create, model=model)
        return await self.create_handler.handle(request, parse, respond, dialect, region=region)

    async def _send_created(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        origin = self.state.regions[task.region] if self.state.regions else self.state.base_url
        polling_url = f"{origin}/v1/get_result?id={task.id}"
        price = self.state.world.cost if self.state.cost_at in ("create", "both") else None
        value = bfl_json.build_created(task, polling_url, price, task.request.webhook_url)
        return await self._send(request, value, fault, task.key)

    async def _send_created_at_fireworks(
        self, request: web.Request, task: Task, fault: Fault | None
    ) -> web.StreamResponse:
        return await self._send(request, {"request_id": task.id}, fault, task.key)

    async def get_result(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /v1/get_result`, which needs no key."""
        region = self.state.find_region(request.host)
        region = next(self.state.region_turns) if region is None else region
        return await self._respond_about_task(request, BFL, request.query.get("id", ""), region=region)

    async def get_result_at_fireworks(self, request: web.Request) -> web.StreamResponse:
        """Handle a status request at Fireworks' address, which has the ID in its body and needs the key."""
        try:
            fields = parse_json(await request.read())
        except RuleViolation:
            fields = {}
        task_id = fields.get("id") if isinstance(fields, dict) else None
        if not FIREWORKS.read_key(request):
            unauthorized = Refusal(status=HTTPStatus.UNAUTHORIZED, code="UNAUTHORIZED", message="Not authenticated")
            return FIREWORKS.prepare_refusal(self.state, unauthorized).build()
        return await self._respond_about_task(request, FIREWORKS, task_id if isinstance(task_id, str) else "")

    async def _respond_about_task(
        self, request: web.Request, dialect: Dialect, task_id: str, *, region: int | None = None
    ) -> web.StreamResponse:
        """Find the task with an ID in a region, or in any, and send its JSON. A key counts if there is one."""
        state = self.state
        fault = dialect.adapt_fault(state.draw_fault(Operation.STATUS))
        key = dialect.read_key(request)
        if key and isinstance(account := state.authenticate(key), Refusal):
            return dialect.prepare_refusal(state, account).build()
        replacement = await perform_fault(state, request, fault)
        if replacement is not None:
            return replacement.build()
        now = state.clock()
        task = state.world.find(task_id, key, now) if key else state.world.find_of_any_key(task_id)
        is_here = task is not None and task.is_known(now) and region in (None, task.region)
        if fault is not None and fault.kind is FaultKind.NOT_FOUND_IN_SUCCESS:
            return await send(request, PreparedResponse(value=bfl_json.build_not_found(task_id)), fault)
        if task is None or not is_here:
            not_found = PreparedResponse(status=HTTPStatus.NOT_FOUND, value=bfl_json.build_not_found(task_id))
            return await send(request, not_found, fault)
        value = bfl_json.build_task(
            task,
            now=now,
            create_url=state.create_bfl_url,
            progress=state.draw_progress(task, now),
            settles=state.cost_at in ("result", "both"),
        )
        return await self._send(request, value, fault, task.key)

    async def get_credits(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /v1/credits`."""
        state = self.state
        fault = BFL.adapt_fault(state.draw_fault(Operation.BALANCE))
        account = state.authenticate(BFL.read_key(request))
        if isinstance(account, Refusal):
            return BFL.prepare_refusal(state, account).build()
        replacement = await perform_fault(state, request, fault)
        if replacement is not None:
            return replacement.build()
        balance = UNLIMITED_BALANCE if account.balance is None else account.balance
        return await send(request, PreparedResponse(value={"credits": bfl_json.to_credits(balance)}), fault)

    async def _send(self, request: web.Request, value: Json, fault: Fault | None, key: str) -> web.StreamResponse:
        prepared = PreparedResponse(value=value)
        if fault is not None:
            odd = apply_hostile_shape(apply_odd_bfl_shape(value, fault), fault, key)
            prepared = evolve(prepared, value=odd)
            if fault.kind is FaultKind.STATUS_IN_ERROR:
                prepared = evolve(prepared, status=fault.status or HTTPStatus.SERVICE_UNAVAILABLE)
        return await send(request, prepared, fault)

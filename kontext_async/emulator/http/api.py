"""The handlers of the vendor's gateway: the plain dialect, the queue dialect, and the addresses around them."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from attrs import evolve

from kontext_async.emulator import contracts, task_json
from kontext_async.emulator.corruption import apply_odd_shape
from kontext_async.emulator.fault_kinds import FaultKind, Operation
from kontext_async.emulator.hostile_json import apply_hostile_shape
from kontext_async.emulator.http.dialects import PLAIN, QUEUE
from kontext_async.emulator.http.responder import PreparedResponse, disconnect, perform_fault, prepare_refusal, send
from kontext_async.emulator.http.streams import stream_task, wait_for_end
from kontext_async.emulator.odd_dialects import apply_odd_queue_shape
from kontext_async.emulator.validation import MODELS, parse_create, parse_queue_create
from kontext_async.emulator.world import Refusal, TaskPhase

if TYPE_CHECKING:
    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.creation import CreateHandler, Respond
    from kontext_async.emulator.http.dialects import Dialect
    from kontext_async.emulator.http.request_body import Parse
    from kontext_async.emulator.http.state import GatewayState
    from kontext_async.emulator.world import Task

UNKNOWN_TASK = Refusal(status=HTTPStatus.NOT_FOUND, code="TASK_NOT_FOUND", message="no such task")
UNKNOWN_MODEL = Refusal(status=HTTPStatus.NOT_FOUND, code="MODEL_NOT_FOUND", message="no such model")
BAD_CURSOR = Refusal(
    status=HTTPStatus.BAD_REQUEST, code="INVALID_PARAMETER", message="cursor: must be an integer from 0"
)


class Api:
    """The handlers of the vendor's gateway, over the shared `state`."""

    def __init__(self, state: GatewayState, create_handler: CreateHandler) -> None:
        self.state = state
        self.body_reader = create_handler.body_reader
        self.create_handler = create_handler

    def list_routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        plain, queue = "/model/v1/generation", "/model/v1/queue/{model}"
        return [
            web.post(plain, self.create),
            web.get(f"{plain}/task/{{id}}", self.get_status),
            web.post(f"{plain}/sync", self.create_and_wait),
            web.get(f"{plain}/task/{{id}}/stream", self.stream),
            web.post(f"{plain}/precharge", self.precharge),
            web.post(queue, self.create_queued),
            web.get(f"{queue}/requests/{{id}}/status", self.get_queue_status),
            web.get(f"{queue}/requests/{{id}}/response", self.get_queue_result),
            web.put(f"{queue}/requests/{{id}}/cancel", self.cancel_queued),
            web.get("/api/v1/user/balance", self.get_balance),
            web.get("/api/v1/skill/models", self.list_models),
            web.get("/api/v1/skill/model-contracts/{model}", self.get_contract),
            web.get("/_emulator/ledger", self.get_ledger),
            web.get("/_emulator/health", self.get_health),
        ]

    # The plain dialect.

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Handle `POST /model/v1/generation`."""
        return await self.create_handler.handle(request, _create_parser(request), self._send_task, PLAIN)

    async def create_and_wait(self, request: web.Request) -> web.StreamResponse:
        """Handle `POST /model/v1/generation/sync`."""
        wants_stream = "text/event-stream" in request.headers.get("Accept", "")
        respond = self._stream_created_task if wants_stream else self._send_ended_task
        return await self.create_handler.handle(request, _create_parser(request), respond, PLAIN)

    async def get_status(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /model/v1/generation/task/{id}`."""
        return await self._respond_about_task(request, self._send_task)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /model/v1/generation/task/{id}/stream`."""
        return await self._respond_about_task(request, self._stream_task_from_cursor, Operation.STREAM)

    async def precharge(self, request: web.Request) -> web.StreamResponse:
        """Handle `POST /model/v1/generation/precharge`."""
        state = self.state
        fault = state.draw_fault(Operation.PRECHARGE)
        account = state.authenticate(PLAIN.read_key(request))
        if isinstance(account, Refusal):
            return prepare_refusal(state, account).build()
        parsed = await self.body_reader.read(request, _create_parser(request, for_price=True))
        if isinstance(parsed, Refusal):
            return prepare_refusal(state, parsed).build()
        replacement = await perform_fault(state, request, fault)
        if replacement is not None:
            return replacement.build()
        is_unknown = fault is not None and fault.kind is FaultKind.COST_UNKNOWN
        value = task_json.build_precharge(
            parsed,
            None if is_unknown else state.world.cost,
            discount=state.world.limits.discount,
            currency=state.currency,
            now=state.clock(),
        )
        return await self._send_json(request, value, fault, account.key)

    async def _send_task(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        return await self._send_json(request, self.state.describe_task(task), fault, task.key)

    async def _send_json(
        self, request: web.Request, value: task_json.Json, fault: Fault | None, key: str
    ) -> web.StreamResponse:
        if fault is not None:
            value = apply_hostile_shape(apply_odd_shape(value, fault), fault, key)
        return await send(request, PreparedResponse(value=value), fault)

    async def _send_ended_task(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        if await wait_for_end(self.state, task):
            return await self._send_task(request, task, fault)
        value = task_json.build_sync_timeout(task)
        return await send(request, PreparedResponse(status=HTTPStatus.GATEWAY_TIMEOUT, value=value), fault)

    async def _stream_created_task(self, request: web.Request, task: Task, _: Fault | None) -> web.StreamResponse:
        fault = self.state.draw_fault(Operation.STREAM)
        replacement = await perform_fault(self.state, request, fault)
        if replacement is not None:
            return replacement.build()
        return await stream_task(self.state, request, task, fault=fault)

    async def _stream_task_from_cursor(
        self, request: web.Request, task: Task, fault: Fault | None
    ) -> web.StreamResponse:
        cursor = request.query.get("cursor", "0")
        if not (cursor.isascii() and cursor.isdigit()):
            return prepare_refusal(self.state, BAD_CURSOR).build()
        return await stream_task(self.state, request, task, cursor=int(cursor), fault=fault)

    # The queue dialect.

    async def create_queued(self, request: web.Request) -> web.StreamResponse:
        """Handle `POST /model/v1/queue/{model}`."""
        parse = partial(parse_queue_create, model=request.match_info["model"])
        return await self.create_handler.handle(request, parse, self._send_queue_created, QUEUE)

    async def get_queue_status(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /model/v1/queue/{model}/requests/{id}/status`."""
        return await self._respond_about_task(request, self._send_queue_status, dialect=QUEUE)

    async def get_queue_result(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /model/v1/queue/{model}/requests/{id}/response`."""
        return await self._respond_about_task(request, self._send_queue_result, dialect=QUEUE)

    async def cancel_queued(self, request: web.Request) -> web.StreamResponse:
        """Handle `PUT /model/v1/queue/{model}/requests/{id}/cancel`."""
        return await self._respond_about_task(request, self._cancel_task, Operation.CANCEL, QUEUE)

    async def _send_queue_created(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        now = self.state.clock()
        unfinished = self.state.world.get_account(task.key, now).count_unfinished(now)
        value = task_json.build_queue_created(task, self.state.base_url, max(0, unfinished - 1))
        return await self._send_queue_json(request, PreparedResponse(value=value), fault, task)

    async def _send_queue_status(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        now = self.state.clock()
        value = task_json.build_queue_status(task, now)
        if fault is not None and fault.kind is FaultKind.RESULT_IN_STATUS:
            value = {**task_json.build_queue_result(task, now, self.state.create_url), **value}
        return await self._send_queue_json(request, PreparedResponse(value=value), fault, task)

    async def _send_queue_result(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        now = self.state.clock()
        status = HTTPStatus.ACCEPTED if task.phase_at(now) is TaskPhase.IN_PROGRESS else HTTPStatus.OK
        value = task_json.build_queue_result(task, now, self.state.create_url)
        if fault is not None and fault.kind is FaultKind.FAILED_RESULT:
            value = task_json.build_failed_result(task, fault.variant or "")
        return await self._send_queue_json(request, PreparedResponse(status=status, value=value), fault, task)

    async def _send_queue_json(
        self, request: web.Request, prepared: PreparedResponse, fault: Fault | None, task: Task
    ) -> web.StreamResponse:
        if fault is not None:
            odd = apply_hostile_shape(apply_odd_queue_shape(prepared.value, fault), fault, task.key)
            prepared = evolve(prepared, value=odd)
        return await send(request, prepared, fault)

    async def _cancel_task(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        kind = None if fault is None else fault.kind
        status, text = HTTPStatus.ACCEPTED.value, "CANCELLATION_REQUESTED"
        if fault is not None and kind is FaultKind.CANCEL_REFUSED:
            status, text = fault.status or HTTPStatus.CONFLICT, "NOT_CANCELLABLE"
        elif kind is not FaultKind.CANCEL_IGNORED and not self._cancel(task, fault):
            status, text = HTTPStatus.BAD_REQUEST, "ALREADY_COMPLETED"
        if fault is not None and kind is FaultKind.CUT_AFTER_CANCEL:
            disconnect(request, fault.variant or "close")
        prepared = PreparedResponse(status=status, value={"request_id": task.id, "status": text})
        return await send(request, prepared, fault)

    def _cancel(self, task: Task, fault: Fault | None) -> bool:
        """Cancel a task, now or as late as the fault says; return False when it has already ended."""
        is_late = fault is not None and fault.kind is FaultKind.CANCEL_LATE
        after = (fault.seconds or 0.0) if fault is not None and is_late else 0.0
        is_taken = self.state.world.cancel(task, self.state.clock(), after=after)
        if is_taken and not task.cost:
            self.state.ledger.refund(task.id)
        return is_taken

    # The addresses around the gateway.

    async def get_balance(self, request: web.Request) -> web.StreamResponse:
        """Handle `GET /api/v1/user/balance`."""
        state = self.state
        fault = state.draw_fault(Operation.BALANCE)
        account = state.authenticate(PLAIN.read_key(request))
        if isinstance(account, Refusal):
            return prepare_refusal(state, account).build()
        replacement = await perform_fault(state, request, fault)
        if replacement is not None:
            return replacement.build()
        balance = contracts.build_balance(account.balance, state.world.limits.balance)
        return await self._send_json(request, contracts.build_envelope(balance), fault, account.key)

    async def list_models(self, _: web.Request) -> web.Response:
        """Handle `GET /api/v1/skill/models`."""
        return PreparedResponse(value=contracts.build_envelope(contracts.build_model_list())).build()

    async def get_contract(self, request: web.Request) -> web.Response:
        """Handle `GET /api/v1/skill/model-contracts/{model}`."""
        model = request.match_info["model"]
        if model not in MODELS:
            return prepare_refusal(self.state, UNKNOWN_MODEL).build()
        return PreparedResponse(value=contracts.build_envelope(contracts.build_contract(model))).build()

    # The emulator's own requests.

    async def get_ledger(self, request: web.Request) -> web.Response:
        """Handle `GET /_emulator/ledger`; `?entries=0` returns the counts alone."""
        entries = request.query.get("entries", "1") != "0"
        return PreparedResponse(value=self.state.ledger.as_dict(entries=entries)).build()

    async def get_health(self, _: web.Request) -> web.Response:
        """Handle `GET /_emulator/health`."""
        return PreparedResponse(value={"status": "ok"}).build()

    # Common to both dialects.

    async def _respond_about_task(
        self,
        request: web.Request,
        respond: Respond,
        operation: Operation = Operation.STATUS,
        dialect: Dialect = PLAIN,
    ) -> web.StreamResponse:
        """Find the task of a request, and `respond` with it."""
        state = self.state
        fault = state.draw_fault(operation)
        account = state.authenticate(dialect.read_key(request))
        if isinstance(account, Refusal):
            return prepare_refusal(state, account).build()
        replacement = await perform_fault(state, request, fault)
        if replacement is not None:
            return replacement.build()
        task = state.world.find(request.match_info["id"], account.key, state.clock())
        if task is None:
            return prepare_refusal(state, UNKNOWN_TASK).build()
        return await respond(request, task, fault)


def _create_parser(request: web.Request, *, for_price: bool = False) -> Parse:
    return partial(parse_create, model_header=request.headers.get("X-Model"), for_price=for_price)

"""Create requests, in every dialect: from their first byte to their entry in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kontext_async.emulator.fault_kinds import FaultKind, Operation
from kontext_async.emulator.fault_specs import OUTCOME_KINDS
from kontext_async.emulator.http.request_body import BodyLost
from kontext_async.emulator.http.responder import (
    PreparedResponse,
    disconnect,
    is_connected,
    perform_fault,
    send,
)
from kontext_async.emulator.ledger import ZERO, CreateOutcome
from kontext_async.emulator.world import Refusal, plan_outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from decimal import Decimal

    from aiohttp import web

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.dialects import Dialect
    from kontext_async.emulator.http.request_body import Parse, RequestBodyReader
    from kontext_async.emulator.http.state import GatewayState
    from kontext_async.emulator.validation import CreateRequest
    from kontext_async.emulator.world import Account, Task

    Respond = Callable[[web.Request, Task, Fault | None], Awaitable[web.StreamResponse]]


SILENT_KINDS = {FaultKind.CUT, FaultKind.STALL, FaultKind.ECHOED_HEAD}
"""The faults that send no response."""


class CreateHandler:
    """Handles create requests, over the shared `state`."""

    def __init__(self, state: GatewayState, body_reader: RequestBodyReader) -> None:
        self.state = state
        self.body_reader = body_reader

    async def handle(
        self, request: web.Request, parse: Parse, respond: Respond, dialect: Dialect, *, region: int = 0
    ) -> web.StreamResponse:
        """Perform the fault of a create request, accept or refuse it, and record its outcome in the ledger."""
        recorder = CreateRecorder(self.state, request, dialect)
        fault = dialect.adapt_fault(self.state.draw_fault(Operation.CREATE))
        if fault is not None and fault.kind is FaultKind.CUT_BEFORE_BODY:
            recorder.record(CreateOutcome.CUT, fault.kind)
            disconnect(request, fault.variant or "close")
        account = self.state.authenticate(dialect.read_key(request))
        if isinstance(account, Refusal):
            return recorder.refuse(account)
        try:
            parsed = await self.body_reader.read(request, parse)
        except BodyLost:
            recorder.record(CreateOutcome.CUT, "body-lost")
            disconnect(request)
        if isinstance(parsed, Refusal):
            return recorder.refuse(parsed)
        recorder.create_request = parsed
        replacement = await self._perform_before_acceptance(request, fault, recorder)
        if replacement is not None:
            return replacement
        task = self._find_repeated(account, parsed, fault, recorder)
        if task is None:
            outcome = plan_outcome(fault)
            accepted = self.state.accept(account, parsed, outcome, region=region, has_uuid=dialect.has_uuid)
            if isinstance(accepted, Refusal):
                return recorder.refuse(accepted)
            task = accepted
            recorder.record_accepted(task)
            self.state.start_delivery(task)
        return recorder.record_response(await self._respond_after_acceptance(request, task, fault, respond))

    def _find_repeated(
        self, account: Account, parsed: CreateRequest, fault: Fault | None, recorder: CreateRecorder
    ) -> Task | None:
        """Return the earlier task whose ID the fault repeats, once it is recorded; None for a task of its own."""
        if fault is None or fault.kind is not FaultKind.REPEATED_ID:
            return None
        is_cached = fault.variant == "cached"
        task = self.state.world.find_latest(account.key, parsed.digest if is_cached else None)
        if task is not None:
            recorder.record_repeated(task, ZERO if is_cached else self.state.world.bill(account))
        return task

    async def _perform_before_acceptance(
        self, request: web.Request, fault: Fault | None, recorder: CreateRecorder
    ) -> web.StreamResponse | None:
        """Perform a fault that prevents or delays the acceptance; return None when the request can be accepted."""
        if fault is None or fault.kind is FaultKind.SLOW_AFTER_ACCEPT:
            return None
        if fault.lets_accept and fault.kind is not FaultKind.SLOW:
            return None
        if fault.kind is FaultKind.SLOW:
            await perform_fault(self.state, request, fault)
            return None
        is_silent = fault.kind in SILENT_KINDS
        recorder.record(CreateOutcome.CUT if is_silent else CreateOutcome.REFUSED, fault.kind)
        replacement = await perform_fault(self.state, request, fault)
        if replacement is None:
            prepared = PreparedResponse(value={"status": "in_progress"})
            return recorder.record_response(await send(request, prepared, fault))
        return recorder.record_response(replacement.build())

    async def _respond_after_acceptance(
        self, request: web.Request, task: Task, fault: Fault | None, respond: Respond
    ) -> web.StreamResponse:
        if fault is None or fault.kind in OUTCOME_KINDS or fault.kind is FaultKind.SLOW:
            return await respond(request, task, None)
        replacement = await perform_fault(self.state, request, fault)
        return await respond(request, task, fault) if replacement is None else replacement.build()


class CreateRecorder:
    """Records one create request in the ledger: first its outcome, and later that its response was sent."""

    def __init__(self, state: GatewayState, http_request: web.Request, dialect: Dialect) -> None:
        self.state = state
        self.dialect = dialect
        self.http_request = http_request
        self.create_request: CreateRequest | None = None
        self.index = -1

    def record(self, outcome: CreateOutcome, reason: str, **details: Any) -> None:
        """Record the outcome of the request."""
        if self.create_request is not None:
            names = ("prompt", "digest", "moderation", "metadata")
            details |= {name: getattr(self.create_request, name) for name in names}
        at = self.state.clock()
        self.index = self.state.ledger.record(at=at, outcome=outcome, reason=str(reason), **details)

    def record_accepted(self, task: Task) -> None:
        """Record an accepted task and its bill."""
        self.record(CreateOutcome.ACCEPTED, "accepted", task_id=task.id, cost=task.cost)

    def record_repeated(self, task: Task, cost: Decimal) -> None:
        """Record a request that was accepted as an earlier task."""
        self.record(CreateOutcome.ACCEPTED, FaultKind.REPEATED_ID, task_id=task.id, cost=cost)

    def refuse(self, refusal: Refusal) -> web.Response:
        """Record a refusal, and return its response."""
        self.record(CreateOutcome.REFUSED, refusal.code)
        response = self.dialect.prepare_refusal(self.state, refusal).build()
        self.record_response(response)
        return response

    def record_response(self, response: web.StreamResponse) -> web.StreamResponse:
        """Record that the response was sent, if the client is still connected; return the response."""
        if is_connected(self.http_request):
            self.state.ledger.record_response(self.index, response.status)
        return response

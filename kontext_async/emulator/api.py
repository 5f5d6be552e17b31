"""The API origin's handlers: create, status, sync, stream, precharge, and the queue dialect."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kontext_async.emulator import answers
from kontext_async.emulator.delivery import Answer, deliver, hang_up, interrupt, is_connected, refuse
from kontext_async.emulator.intake import BodyLostError, Intake
from kontext_async.emulator.kinds import FATES, FaultKind, Operation
from kontext_async.emulator.ledger import CreateOutcome
from kontext_async.emulator.reshape import odd
from kontext_async.emulator.streams import stream_task, wait_for_end
from kontext_async.emulator.validation import CreateRequest, parse_create, parse_queue_create
from kontext_async.emulator.world import Refusal, State, fate_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kontext_async.emulator.context import Context
    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.intake import Parse
    from kontext_async.emulator.world import Task

    Finish = Callable[[web.Request, Task, Fault | None], Awaitable[web.StreamResponse]]

_BEARER = ("bearer",)
_BEARER_OR_KEY = ("bearer", "key")
_UNKNOWN_TASK = Refusal(status=404, code="TASK_NOT_FOUND", message="no such task")


class Api:
    """The handlers, over the shared `context`."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.intake = Intake(context)

    def routes(self) -> list[web.RouteDef]:
        """What is served where."""
        plain, queue = "/model/v1/generation", "/model/v1/queue/{model}"
        return [
            web.post(plain, self.create),
            web.get(f"{plain}/task/{{id}}", self.status),
            web.post(f"{plain}/sync", self.sync),
            web.get(f"{plain}/task/{{id}}/stream", self.stream),
            web.post(f"{plain}/precharge", self.precharge),
            web.post(queue, self.queue_create),
            web.get(f"{queue}/requests/{{id}}/status", self.queue_status),
            web.get(f"{queue}/requests/{{id}}/response", self.queue_response),
            web.put(f"{queue}/requests/{{id}}/cancel", self.queue_cancel),
            web.get("/_emulator/ledger", self.ledger),
            web.get("/_emulator/health", self.health),
        ]

    # The plain dialect.

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`POST /model/v1/generation`."""
        return await self._create(request, _plain(request), self._answer_task)

    async def sync(self, request: web.Request) -> web.StreamResponse:
        """`POST /model/v1/generation/sync`."""
        streams = "text/event-stream" in request.headers.get("Accept", "")
        return await self._create(request, _plain(request), self._stream_created if streams else self._answer_ended)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """`GET /model/v1/generation/task/{id}`."""
        return await self._ask(request, self._answer_task)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /model/v1/generation/task/{id}/stream`."""
        return await self._ask(request, self._stream_asked, Operation.STREAM)

    async def precharge(self, request: web.Request) -> web.StreamResponse:
        """`POST /model/v1/generation/precharge`."""
        context = self.context
        fault = context.draw(Operation.PRECHARGE)
        known = context.authenticate(request.headers.get("Authorization"), _BEARER)
        if isinstance(known, Refusal):
            return refuse(context, known).response()
        parsed = await self.intake.read(request, _plain(request))
        if isinstance(parsed, Refusal):
            return refuse(context, parsed).response()
        instead = await interrupt(context, request, fault)
        if instead is not None:
            return instead.response()
        unknown = fault is not None and fault.kind is FaultKind.COST_UNKNOWN
        cost = None if unknown else context.world.cost
        value = answers.precharge(parsed.model, cost, context.world.limits.discount)
        return await deliver(request, Answer(value=value), fault)

    async def _answer_task(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        value = self.context.task_answer(task)
        return await deliver(request, Answer(value=value if fault is None else odd(value, fault)), fault)

    async def _answer_ended(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        if await wait_for_end(self.context, task):
            return await self._answer_task(request, task, fault)
        return await deliver(request, Answer(status=504, value=answers.sync_timeout(task)), fault)

    async def _stream_created(self, request: web.Request, task: Task, _: Fault | None) -> web.StreamResponse:
        fault = self.context.draw(Operation.STREAM)
        instead = await interrupt(self.context, request, fault)
        if instead is not None:
            return instead.response()
        return await stream_task(self.context, request, task, fault=fault)

    async def _stream_asked(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        text = request.query.get("cursor", "0")
        if not (text.isascii() and text.isdigit()):
            refusal = Refusal(status=400, code="INVALID_PARAMETER", message="cursor: must be an integer from 0")
            return refuse(self.context, refusal).response()
        return await stream_task(self.context, request, task, cursor=int(text), fault=fault)

    # The queue dialect.

    async def queue_create(self, request: web.Request) -> web.StreamResponse:
        """`POST /model/v1/queue/{model}`."""
        parse = partial(parse_queue_create, model=request.match_info["model"])
        return await self._create(request, parse, self._answer_queued, _BEARER_OR_KEY)

    async def queue_status(self, request: web.Request) -> web.StreamResponse:
        """`GET /model/v1/queue/{model}/requests/{id}/status`."""
        return await self._ask(request, self._answer_queue_status, schemes=_BEARER_OR_KEY)

    async def queue_response(self, request: web.Request) -> web.StreamResponse:
        """`GET /model/v1/queue/{model}/requests/{id}/response`."""
        return await self._ask(request, self._answer_queue_response, schemes=_BEARER_OR_KEY)

    async def queue_cancel(self, request: web.Request) -> web.StreamResponse:
        """`PUT /model/v1/queue/{model}/requests/{id}/cancel`."""
        return await self._ask(request, self._answer_cancelled, schemes=_BEARER_OR_KEY)

    async def _answer_queued(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        now = self.context.clock()
        waiting = self.context.world.account(task.key, now).unfinished(now)
        value = answers.queue_created(task, self.context.base_url, max(0, waiting - 1))
        return await deliver(request, Answer(value=value), fault)

    async def _answer_queue_status(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        value = answers.queue_status(task, self.context.clock())
        return await deliver(request, Answer(value=value), fault)

    async def _answer_queue_response(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        now = self.context.clock()
        status = 202 if task.state(now) is State.IN_PROGRESS else 200
        value = answers.queue_response(task, now, self.context.link)
        return await deliver(request, Answer(status=status, value=value), fault)

    async def _answer_cancelled(self, request: web.Request, task: Task, fault: Fault | None) -> web.StreamResponse:
        cancelled = self.context.world.cancel(task, self.context.clock())
        word = "CANCELLATION_REQUESTED" if cancelled else "ALREADY_COMPLETED"
        answer = Answer(status=202 if cancelled else 400, value={"request_id": task.id, "status": word})
        return await deliver(request, answer, fault)

    # The emulator's own.

    async def ledger(self, request: web.Request) -> web.Response:
        """`GET /_emulator/ledger`, with `?entries=0` for the counts alone."""
        entries = request.query.get("entries", "1") != "0"
        return Answer(value=self.context.ledger.as_dict(entries=entries)).response()

    async def health(self, _: web.Request) -> web.Response:
        """`GET /_emulator/health`."""
        return Answer(value={"status": "ok"}).response()

    # What they have in common.

    async def _ask(
        self,
        request: web.Request,
        finish: Finish,
        operation: Operation = Operation.STATUS,
        schemes: tuple[str, ...] = _BEARER,
    ) -> web.StreamResponse:
        """Find the task that a request is about, and `finish` with it."""
        context = self.context
        fault = context.draw(operation)
        known = context.authenticate(request.headers.get("Authorization"), schemes)
        if isinstance(known, Refusal):
            return refuse(context, known).response()
        instead = await interrupt(context, request, fault)
        if instead is not None:
            return instead.response()
        task = context.world.find(request.match_info["id"], known.key, context.clock())
        if task is None:
            return refuse(context, _UNKNOWN_TASK).response()
        return await finish(request, task, fault)

    async def _create(
        self, request: web.Request, parse: Parse, finish: Finish, schemes: tuple[str, ...] = _BEARER
    ) -> web.StreamResponse:
        """Take a create request in, through everything that can happen to one, and note what did."""
        note = _Note(self.context, request)
        fault = self.context.draw(Operation.CREATE)
        if fault is not None and fault.kind is FaultKind.CUT_BEFORE_BODY:
            note.decide(CreateOutcome.CUT, fault.kind)
            hang_up(request, fault.variant or "close")
        known = self.context.authenticate(request.headers.get("Authorization"), schemes)
        if isinstance(known, Refusal):
            return note.refused(known)
        try:
            parsed = await self.intake.read(request, parse)
        except BodyLostError:
            note.decide(CreateOutcome.CUT, "body-lost")
            hang_up(request)
        if isinstance(parsed, Refusal):
            return note.refused(parsed)
        note.request = parsed
        instead = await self._before_acceptance(request, fault, note)
        if instead is not None:
            return instead
        task = self.context.accept(known, parsed, fate_of(fault))
        if isinstance(task, Refusal):
            return note.refused(task)
        note.accepted(task)
        return note.answered(await self._after_acceptance(request, task, fault, finish))

    async def _before_acceptance(
        self, request: web.Request, fault: Fault | None, note: _Note
    ) -> web.StreamResponse | None:
        if fault is None or fault.kind is FaultKind.SLOW_AFTER_ACCEPT:
            return None
        if fault.lets_accept and fault.kind is not FaultKind.SLOW:
            return None
        if fault.kind is FaultKind.SLOW:
            await interrupt(self.context, request, fault)
            return None
        silent = fault.kind in (FaultKind.CUT, FaultKind.STALL)
        note.decide(CreateOutcome.CUT if silent else CreateOutcome.REFUSED, fault.kind)
        instead = await interrupt(self.context, request, fault)
        if instead is None:
            return note.answered(await deliver(request, Answer(value={"status": "in_progress"}), fault))
        return note.answered(instead.response())

    async def _after_acceptance(
        self, request: web.Request, task: Task, fault: Fault | None, finish: Finish
    ) -> web.StreamResponse:
        if fault is None or fault.kind in FATES or fault.kind is FaultKind.SLOW:
            return await finish(request, task, None)
        instead = await interrupt(self.context, request, fault)
        return await finish(request, task, fault) if instead is None else instead.response()


def _plain(request: web.Request) -> Parse:
    return partial(parse_create, model_header=request.headers.get("X-Model"))


class _Note:
    """Writes a create request into the ledger: once what it came to, and once that it was answered."""

    def __init__(self, context: Context, request: web.Request) -> None:
        self.context = context
        self.http = request
        self.request: CreateRequest | None = None
        self.index = -1

    def decide(self, outcome: CreateOutcome, reason: str, **known: Any) -> None:
        """Enter what the request came to."""
        if self.request is not None:
            known |= {"prompt": self.request.prompt, "digest": self.request.digest}
        self.index = self.context.ledger.record(at=self.context.clock(), outcome=outcome, reason=str(reason), **known)

    def accepted(self, task: Task) -> None:
        """Enter an accepted task and its bill."""
        self.decide(CreateOutcome.ACCEPTED, "accepted", task_id=task.id, cost=task.cost)

    def refused(self, refusal: Refusal) -> web.Response:
        """Enter a refusal, and return its answer."""
        self.decide(CreateOutcome.REFUSED, refusal.code)
        response = refuse(self.context, refusal).response()
        self.answered(response)
        return response

    def answered(self, response: web.StreamResponse) -> web.StreamResponse:
        """Enter that the answer was sent, if somebody is there to get it."""
        if is_connected(self.http):
            self.context.ledger.note_answer(self.index, response.status)
        return response

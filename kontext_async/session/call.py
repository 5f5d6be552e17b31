"""One call of `generate` or `submit`: what it submits, and what its deadline means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable  # noqa: TC003 # typing.get_type_hints resolves it
from typing import TYPE_CHECKING

from attrs import evolve

from kontext_async.engine.flight import StoreCall
from kontext_async.engine.submission import Submission
from kontext_async.errors import CallerLeft, ConfigurationError, GatewayUnavailable, SubmissionUncertain
from kontext_async.gateways import Webhook  # noqa: TC001 # typing.get_type_hints resolves it
from kontext_async.models import Generation, KontextRequest, RequestFields
from kontext_async.session.caller import CallerWatch
from kontext_async.session.task import check_seconds, last_status, unwrap

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from kontext_async.decisions.shares import Queueing
    from kontext_async.engine.engine import Engine
    from kontext_async.engine.flight import Flight
    from kontext_async.engine.submission_journal import SubmissionJournal
    from kontext_async.engine.task_record import TaskRecord
    from kontext_async.models import RequestLike

__all__ = ["Call", "CallOptions"]

STORE_OPTIONS = ("key", "run", "resend_uncertain", "retry_failed")
NO_OPTIONS = StoreCall()


class CallOptions(RequestFields, total=False):
    """The options of one call: fields of the request, the wait for a slot, the caller, the webhook, and the store.

    See `KontextSession.generate`.
    """

    queue_timeout: float
    abandoned: Awaitable[object]
    webhook: Webhook | None
    key: str
    run: str
    resend_uncertain: bool
    retry_failed: bool


class Call:
    """One call of `generate` or `submit`, what its deadline means, and what it means that its caller leaves.

    As a context manager it ends its body when the caller has left.
    """

    def __init__(
        self,
        engine: Engine,
        given: RequestLike,
        options: CallOptions,
        queueing: Queueing,
        journal: SubmissionJournal | None = None,
    ) -> None:
        fields: dict[str, Any] = {**options}
        store_options: dict[str, Any] = {}
        self._watch: CallerWatch | None = None
        self._engine = engine
        self._queueing = queueing
        self._webhook: Webhook | None = engine.webhook
        if fields:
            store_options = {name: fields.pop(name) for name in STORE_OPTIONS if name in fields}
            self._read_options(fields)
        try:
            if "webhook" in fields:
                engine.gateway.check_webhook(webhook := fields.pop("webhook"))
                self._webhook = webhook
            self._request = KontextRequest.of(given, **fields)
            engine.gateway.check(self._request)
        except BaseException:
            self._discard()
            raise
        self._is_prompt_only = isinstance(given, str) and not fields
        self._submission: Submission | None = None
        self._flight: Flight | None = None
        self._accept_body: bytes | None = None
        self._task: TaskRecord | None = None
        self._journal = journal
        if store_options and not engine.has_store:
            self._discard()
            raise ConfigurationError(f"{next(iter(store_options))} needs a store: pass store= to the session")
        has_options = store_options or self._webhook
        self._options = StoreCall(**store_options, webhook=self._webhook) if has_options else NO_OPTIONS

    @property
    def accept_body(self) -> bytes | None:
        """The body of the response that accepted the task, if this session submitted it."""
        submission = self._find_submission()
        return submission.accept_body if submission else self._accept_body

    async def submit(self) -> TaskRecord:
        """Submit the request, and return its task once the gateway has accepted it.

        Raises:
            KontextError: As for `KontextSession.submit`.
        """
        self._engine.ensure_running()
        if self._engine.stored and self._journal is None:
            self._task = await self._engine.stored.submit(self._request, self._options, self._on_flight, self._queueing)
        else:
            self._submission = Submission(
                self._request,
                self._journal,
                is_prompt_only=self._is_prompt_only,
                queueing=self._queueing,
                webhook=self._webhook,
            )
            self._task = await self._engine.scheduler.submit(self._submission)
        self._accept_body = self.accept_body
        self._submission = self._flight = None  # all that they refer to is free while the task runs
        return self._task

    def __enter__(self) -> None:
        if self._watch:
            if self._watch.has_left:
                self._discard()
                raise self._left_error()
            self._watch.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the body. Report the result that came in the moment in which the caller left.

        Raises:
            CallerLeft: The caller has left.
        """
        has_left = self._watch is not None and self._watch.__exit__(kind, error, traceback)
        if kind is not None and issubclass(kind, asyncio.CancelledError) and self._task and self._task.result:
            self._engine.poll_loop.report_unreceived(self._task, "the caller left as it completed")
        if has_left:
            raise self._left_error() from None

    def _read_options(self, fields: dict[str, Any]) -> None:
        """Take what does not concern the request out of the options."""
        if "abandoned" in fields and (abandoned := fields.pop("abandoned")) is not None:
            self._watch = CallerWatch(abandoned)
        if "queue_timeout" in fields and (seconds := fields.pop("queue_timeout")) is not None:
            until = self._engine.clock.time() + check_seconds(seconds, "queue_timeout")
            self._queueing = evolve(self._queueing, until=until)

    def _discard(self) -> None:
        if self._watch:
            self._watch.discard()

    def _left_error(self) -> CallerLeft:
        """Make the error of a call whose caller has left."""
        submission = self._find_submission()
        task = self._task or (submission.task if submission else None)
        if task:
            text = f"the caller left; the task keeps running and is billed: resume it with attach({task.task_id!r})"
            return CallerLeft(text, task_id=task.task_id, may_be_charged=True)
        if submission and submission.may_be_billed:
            return CallerLeft("the caller left, and the gateway may have accepted the request", may_be_charged=True)
        return CallerLeft("the caller left before the request was sent")

    def _find_submission(self) -> Submission | None:
        return self._submission or (self._flight.submission if self._flight else None)

    def _on_flight(self, flight: Flight) -> None:
        self._flight = flight

    async def resolve_deadline(self, waited: float) -> Generation:
        """Return the result that came in the moment of the deadline, or raise what the deadline means."""
        submission = self._find_submission()
        task = self._task or (submission.task if submission else None)
        if task:
            status = last_status(self._engine.gateway, task, self.accept_body)
            return unwrap(await self._engine.canceller.end_wait(task, waited, status))
        if self._flight and (error := self._flight.deadline_error(waited)):
            raise error
        if submission and submission.may_be_billed:
            raise SubmissionUncertain(
                request=submission.request,
                fingerprint=submission.fingerprint or "",
                seen=f"no response within {waited:.1f} s",
            )
        raise GatewayUnavailable(f"not submitted within {waited:.1f} s: nothing was sent, or the gateway refused")

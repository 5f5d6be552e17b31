"""One call of `generate` or `submit`: what it submits, and what its deadline means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kontext_async.engine.flight import StoreCall
from kontext_async.engine.submission import Submission
from kontext_async.engine.task_record import reference_text
from kontext_async.errors import ConfigurationError, GatewayUnavailable, SubmissionUncertain, TaskTimeout
from kontext_async.models import Generation, KontextRequest, RequestFields
from kontext_async.session.task import last_status, unwrap

if TYPE_CHECKING:
    from typing import Any

    from kontext_async.engine.engine import Engine
    from kontext_async.engine.flight import Flight
    from kontext_async.engine.submission_journal import SubmissionJournal
    from kontext_async.engine.task_record import TaskRecord
    from kontext_async.models import RequestLike

__all__ = ["Call", "CallOptions"]

STORE_OPTIONS = ("key", "run", "resend_uncertain", "retry_failed")
NO_OPTIONS = StoreCall()


class CallOptions(RequestFields, total=False):
    """The options of one call: fields of the request, and what concerns the store. See `KontextSession.generate`."""

    key: str
    run: str
    resend_uncertain: bool
    retry_failed: bool


class Call:
    """One call of `generate` or `submit`, and what its deadline means."""

    def __init__(
        self, engine: Engine, given: RequestLike, options: CallOptions, journal: SubmissionJournal | None = None
    ) -> None:
        fields: dict[str, Any] = {**options}
        store_options = {name: fields.pop(name) for name in STORE_OPTIONS if name in fields} if fields else fields
        self._engine = engine
        self._request = KontextRequest.of(given, **fields)
        engine.gateway.check(self._request)
        self._is_prompt_only = isinstance(given, str) and not fields
        self._submission: Submission | None = None
        self._flight: Flight | None = None
        self._task: TaskRecord | None = None
        self._journal = journal
        if store_options and not engine.has_store:
            raise ConfigurationError(f"{next(iter(store_options))} needs a store: pass store= to the session")
        self._options = StoreCall(**store_options) if store_options else NO_OPTIONS

    @property
    def accept_body(self) -> bytes | None:
        """The body of the response that accepted the task, if this session submitted it."""
        submission = self._submission or (self._flight and self._flight.submission)
        return submission.accept_body if submission else None

    async def submit(self) -> TaskRecord:
        """Submit the request, and return its task once the gateway has accepted it.

        Raises:
            KontextError: As for `KontextSession.submit`.
        """
        self._engine.ensure_running()
        if self._engine.stored and self._journal is None:
            self._task = await self._engine.stored.submit(self._request, self._options, self._on_flight)
        else:
            self._submission = Submission(self._request, self._journal, is_prompt_only=self._is_prompt_only)
            self._task = await self._engine.scheduler.submit(self._submission)
        return self._task

    def _on_flight(self, flight: Flight) -> None:
        self._flight = flight

    def resolve_deadline(self, waited: float) -> Generation:
        """Return the result that came in the moment of the deadline, or raise what the deadline means."""
        submission = self._submission or (self._flight and self._flight.submission)
        task = self._task or (submission.task if submission else None)
        if task:
            gateway = self._engine.gateway
            timeout = TaskTimeout(
                task_id=task.task_id,
                waited=waited,
                last_status=last_status(gateway, task, self.accept_body),
                reference=reference_text(task, gateway),
            )
            return unwrap(task.copy_result() or timeout)
        if self._flight and (error := self._flight.deadline_error(waited)):
            raise error
        if submission and submission.may_be_billed:
            raise SubmissionUncertain(
                request=submission.request,
                fingerprint=submission.fingerprint or "",
                seen=f"no response within {waited:.1f} s",
            )
        raise GatewayUnavailable(f"not submitted within {waited:.1f} s: nothing was sent, or the gateway refused")

"""Writes what happens in a session to the standard logger ``kontext_async``. It adds no handler and sets no level.

Nothing is logged where no handler listens: Python would print warnings on stderr.

=======  ==================================================================================================
level    records
=======  ==================================================================================================
ERROR    the session's background work failed
WARNING  a refusal, a failed or uncertain request, a retry, throttling, an outage, an abandoned task, a slow request
INFO     the session starts or closes; a task is accepted, completes, is to be cancelled, or is left running by the
         close; a download
DEBUG    each HTTP request: what it was, its attempt, the HTTP status, milliseconds, the task ID
=======  ==================================================================================================

`SessionLog` listens to the event stream for all but the last row; it subscribes to no event that is costly to make. An
event for each HTTP request would be too costly, so the code that sends one calls `LoggedRequest` or `log_poll`.
A request of more than `SLOW_AFTER` seconds is reported with those that it spent queued, sent, pending and downloading,
in the text and as attributes; the first two are known where the logger is enabled for INFO.

Records carry ``task_id``, ``attempt``, ``status`` and ``milliseconds`` as attributes where they apply. No record has a
key, a header, a payload or the query of a URL: all texts are those of events and errors, which have none.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kontext_async.engine.request_times import RequestTimer
from kontext_async.errors import SessionClosed, SessionCrashed
from kontext_async.events import (
    Abandoned,
    Accepted,
    CancelRequested,
    CircuitClosed,
    CircuitOpened,
    Completed,
    Downloaded,
    Failed,
    Retrying,
    Throttled,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from kontext_async.cancellation import CancelOutcome
    from kontext_async.engine.clock import Clock
    from kontext_async.engine.event_hub import EventHub
    from kontext_async.engine.transport import Response
    from kontext_async.errors import KontextError, SessionError
    from kontext_async.events import Event
    from kontext_async.models import Generation

__all__ = ["LOGGER", "LoggedRequest", "SessionLog", "log_poll"]

LOGGER = logging.getLogger("kontext_async")

SLOW_AFTER = 30.0
"""Seconds after which a request is reported as slow: browsers and proxies begin to give up then or soon after."""

REQUESTS = {"submit": "create requests", "poll": "status requests"}

LEVELS: dict[type[Event], int] = {
    Accepted: logging.INFO,
    Completed: logging.INFO,
    Downloaded: logging.INFO,
    CancelRequested: logging.INFO,
    CircuitClosed: logging.WARNING,
    CircuitOpened: logging.WARNING,
    Throttled: logging.WARNING,
    Retrying: logging.WARNING,
    Failed: logging.WARNING,
    Abandoned: logging.WARNING,
}
"""The level of each kind of event. The kinds that are missing say no more than the lines about requests."""


class SessionLog:
    """Logs the life of a session, and its events.

    Args:
        base_url: The gateway's address; only its origin is logged.
    """

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._timer = RequestTimer()

    def start(self, hub: EventHub, on_end: set[Callable[[SessionError], object]]) -> None:
        """Log that the session has started, and log its events until it ends."""
        _log(logging.INFO, f"session with {self._origin} started")
        hub.subscribe(_log_event, *LEVELS, listens=_is_logged)
        hub.subscribe(self._log_if_slow, Accepted, Completed, Downloaded, listens=_is_timed, heeds=self._is_slow)
        on_end.add(self._log_end)

    def _is_slow(self, completed: Generation) -> bool:
        """Take note of a completed task, and return True if its request was slow."""
        if not _is_timed(Completed):
            return False
        return self._timer.observe_completed(completed.task_id, completed.elapsed).total >= SLOW_AFTER

    def _log_if_slow(self, event: Event) -> None:
        """Log a request that is slow: when it completes, and again when its slow download is there."""
        times = self._timer.observe(event)
        last = event.seconds if isinstance(event, Downloaded) else times.total
        if isinstance(event, Accepted) or max(last, times.total) < SLOW_AFTER:
            return
        if isinstance(event, Completed) or last >= SLOW_AFTER or times.total - last < SLOW_AFTER:
            stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times.stages.items())
            text = f"task {event.task_id}: slow, {times.total:.1f} s: {stages}"
            _log(logging.WARNING, text, task_id=event.task_id, fingerprint=event.fingerprint, **times.stages)

    def _log_end(self, error: SessionError) -> None:
        if isinstance(error, SessionCrashed):
            _log(logging.ERROR, f"session with {self._origin} crashed: {error}")
        else:
            _log(logging.INFO, f"session with {self._origin} closed")


def _is_logged(kind: type[Event]) -> bool:
    return LOGGER.isEnabledFor(LEVELS[kind])


def _is_timed(kind: type[Event]) -> bool:
    return LOGGER.isEnabledFor(logging.INFO if kind is Accepted else logging.WARNING)


def _log_event(event: Event) -> None:
    level = LEVELS[type(event)]
    if isinstance(event, Failed) and isinstance(event.error, SessionClosed):  # the user closed it
        level = logging.INFO
    if LOGGER.isEnabledFor(level):
        text = describe(event)
        _log(level, text, task_id=event.task_id, reference=event.reference, fingerprint=event.fingerprint)


def _log(level: int, text: str, **attributes: object) -> None:
    """Log a text, if there is a handler."""
    if LOGGER.hasHandlers():
        LOGGER.log(level, "%s", text, extra=attributes)


def describe(event: Event) -> str:
    """Return an event as a sentence that names its task."""
    text = type(event).__name__
    subject = f"task {event.task_id}" if event.task_id else f"request {(event.fingerprint or 'unknown')[:12]}"
    match event:
        case Accepted(status=status):
            text = f"accepted as {status.raw_status} (request {(event.fingerprint or 'unknown')[:12]})"
        case Completed(generation=generation):
            cost = generation.usage.cost
            text = f"completed after {generation.elapsed:.2f} s, {'cost unknown' if cost is None else f'{cost} USD'}"
        case Downloaded(path=path, size=size, note=note):
            text = f"downloaded {size} bytes {'into memory' if path is None else f'to {path}'}"
            text += f"; {note}" if note else ""
        case Throttled(seconds=seconds, scope=scope):
            text = f"the gateway asked to slow down: no {REQUESTS[scope]} for {seconds:.1f} s"
        case Retrying(operation=operation, attempt=attempt, error=error):
            text = f"{operation} request failed and is retried, attempt {attempt}: {error}"
        case Failed(error=error):
            text = f"failed: {type(error).__name__}: {error}"
        case Abandoned(reason=reason):
            text = f"abandoned, {_describe_abandoned(event)}: {reason}"
        case CancelRequested(outcome=outcome):
            text = f"to be cancelled: {outcome.cancellation.value}, {_describe_cost(outcome)}"
        case CircuitOpened() | CircuitClosed():
            return _describe_circuit(event)
    return f"{subject}: {text}"


def _describe_circuit(event: CircuitOpened | CircuitClosed) -> str:
    if isinstance(event, CircuitClosed):
        return f"submitting continues after {event.seconds:.0f} s"
    probe = "for good" if event.seconds == math.inf else f"next probe in {event.seconds:.0f} s"
    return f"submitting has stopped, {probe}: {type(event.error).__name__}: {event.error}"


def _describe_abandoned(event: Event) -> str:
    if event.task_id is None:
        return "it may have been accepted and billed"
    return f"it keeps running and is billed (to resume it, attach {event.reference or event.task_id})"


def _describe_cost(outcome: CancelOutcome) -> str:
    if outcome.cost is not None:
        return f"{outcome.cost} USD"
    return "cost unknown" if outcome.may_be_charged else "not billed"


class LoggedRequest:
    """Logs one HTTP request when the block that sends it ends, at DEBUG.

    Args:
        what: The kind of request: ``create``, ``price``, ``cancel`` or ``download``.
        clock: The source of the time.
        attempt: The number of the attempt, from 1.
        task_id: The task's ID, if it is known before.

    Attributes:
        task_id: The task's ID.
        error: What went wrong, if the block does not raise it.
    """

    __slots__ = ("_attempt", "_began", "_clock", "_ended", "_status", "_what", "error", "task_id")

    def __init__(self, what: str, clock: Clock, *, attempt: int, task_id: str | None = None) -> None:
        self.task_id = task_id
        self.error: BaseException | None = None
        self._what = what
        self._clock = clock
        self._attempt = attempt
        self._status: int | None = None
        self._began = clock.time()
        self._ended: float | None = None

    def responded(self, status: int, *, complete: bool = True) -> None:
        """Note the HTTP status; the request ends here if its body was read too."""
        self._status = status
        self._ended = self._clock.time() if complete else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if LOGGER.isEnabledFor(logging.DEBUG):
            ended = self._clock.time() if self._ended is None else self._ended
            _log_request(
                self._what,
                attempt=self._attempt,
                status=self._status,
                seconds=ended - self._began,
                task_id=self.task_id,
                error=self.error or error,
            )


def log_poll(task_id: str, attempt: int, polled: Response | KontextError | None, seconds: float) -> None:
    """Log one status request, at DEBUG. Call it only if the logger is enabled for that."""
    error = polled if isinstance(polled, Exception) else None
    status = getattr(polled, "status", None)
    _log_request("status", attempt=attempt, status=status, seconds=seconds, task_id=task_id, error=error)


def _log_request(
    what: str, *, attempt: int, status: int | None, seconds: float, task_id: str | None, error: BaseException | None
) -> None:
    milliseconds = round(1000 * seconds, 1)
    outcome = "no response" if status is None else str(status)
    reason = "" if error is None else f" ({str(error) or type(error).__name__})"
    subject = f", task {task_id}" if task_id else ""
    text = f"{what} request, attempt {attempt}: {outcome} after {milliseconds:.1f} ms{subject}{reason}"
    _log(logging.DEBUG, text, task_id=task_id, attempt=attempt, status=status, milliseconds=milliseconds)

"""Session events, as frozen classes: progress displays, journals, logs and metrics all listen to this one stream.

Subscribe with `KontextSession.subscribe`. Every event has `at`, an aware UTC datetime; `task_id`, the gateway's task
ID, if there is one; `reference`, the text that leads to that task again (pass it to `KontextSession.attach`); and
`fingerprint`, the request's fingerprint, if the request is known.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 # attrs resolves it
from pathlib import Path  # noqa: TC003 # as above
from typing import Literal, TypeAlias

from attrs import frozen

from kontext_async.cancellation import CancelOutcome  # noqa: TC001 # as above
from kontext_async.errors import KontextError  # noqa: TC001 # as above
from kontext_async.models import GeneratedImage, Generation, TaskStatus  # noqa: TC001 # as above

__all__ = [
    "Abandoned",
    "Accepted",
    "CancelRequested",
    "CircuitClosed",
    "CircuitOpened",
    "Completed",
    "Downloaded",
    "Event",
    "Failed",
    "Retrying",
    "StatusReceived",
    "Submitting",
    "Throttled",
]


@frozen(kw_only=True)
class _SessionEvent:
    at: datetime
    task_id: str | None = None
    reference: str | None = None
    fingerprint: str | None = None


@frozen(kw_only=True)
class Submitting(_SessionEvent):
    """The session sends a create request; `attempt` counts from 1."""

    attempt: int


@frozen(kw_only=True)
class Accepted(_SessionEvent):
    """The gateway accepted a create request and bills it.

    It waited for a slot for `queued` seconds, and its last attempt took `sent` seconds; `model` is what was requested.
    """

    status: TaskStatus
    model: str | None = None
    queued: float = 0.0
    sent: float = 0.0


@frozen(kw_only=True)
class StatusReceived(_SessionEvent):
    """The gateway returned a task's status."""

    status: TaskStatus


@frozen(kw_only=True)
class Throttled(_SessionEvent):
    """The gateway asked the session to slow down.

    For `seconds`, the session sends no create requests (`scope` is ``submit``) or no status requests (``poll``).
    """

    seconds: float
    scope: Literal["submit", "poll"]


@frozen(kw_only=True)
class Retrying(_SessionEvent):
    """A request failed with `error`, and the session sends it again.

    `operation` is the kind of request; `attempt`, which counts from 1, is the number of the one that failed. A request
    that was throttled is reported as `Throttled` instead.
    """

    operation: Literal["create", "status", "download"]
    attempt: int
    error: KontextError


@frozen(kw_only=True)
class Completed(_SessionEvent):
    """A task completed with at least one image."""

    generation: Generation


@frozen(kw_only=True)
class Failed(_SessionEvent):
    """A submission or a task failed, or its outcome is unknown: see `error`.

    `elapsed` is the seconds since a submission began to wait for a slot; None for a task.
    """

    error: KontextError
    elapsed: float | None = None


@frozen(kw_only=True)
class Abandoned(_SessionEvent):
    """Nobody waits any longer for an accepted task, or for the response to a create request.

    An accepted task keeps running and is billed; resume it with `KontextSession.attach(reference)`.
    """

    reason: str


@frozen(kw_only=True)
class CancelRequested(_SessionEvent):
    """The gateway was asked to cancel a task; `outcome` says what became of it.

    If it was in time, a `Failed` event with `TaskCancelled` has come before.
    """

    outcome: CancelOutcome


@frozen(kw_only=True)
class CircuitOpened(_SessionEvent):
    """Submitting has stopped because of `error`; polling and downloads continue. The next probe is in `seconds`."""

    error: KontextError
    seconds: float


@frozen(kw_only=True)
class CircuitClosed(_SessionEvent):
    """Submitting continues after an outage of `seconds`."""

    seconds: float


@frozen(kw_only=True)
class Downloaded(_SessionEvent):
    """An image of `size` bytes was downloaded: to `path`, or into memory if `path` is None.

    `note` says what is unusual about it, such as a format that was not requested; None for a usual one. The download
    took `seconds`.
    """

    image: GeneratedImage
    path: Path | None
    size: int
    note: str | None = None
    seconds: float = 0.0


Event: TypeAlias = (
    Submitting
    | Accepted
    | StatusReceived
    | Throttled
    | Retrying
    | Completed
    | Failed
    | Abandoned
    | CancelRequested
    | CircuitOpened
    | CircuitClosed
    | Downloaded
)

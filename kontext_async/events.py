"""What happened in a session, as frozen classes: the one stream that progress, journals, logs and metrics listen to.

Times are aware UTC datetimes. `fingerprint` is the request's, where the request is known; `task_id` the gateway's,
where there is one.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 # attrs resolves it
from pathlib import Path  # noqa: TC003 # as above
from typing import TypeAlias

from attrs import frozen

from kontext_async.errors import KontextError  # noqa: TC001 # as above
from kontext_async.models import GeneratedImage, Generation, TaskStatus  # noqa: TC001 # as above

__all__ = [
    "Abandoned",
    "Accepted",
    "Asked",
    "Downloaded",
    "Event",
    "Failed",
    "Finished",
    "HeldBack",
    "Submitting",
]


@frozen(kw_only=True)
class _Happened:
    at: datetime
    task_id: str | None = None
    fingerprint: str | None = None


@frozen(kw_only=True)
class Submitting(_Happened):
    """A create request goes out; `attempt` counts from 1."""

    attempt: int


@frozen(kw_only=True)
class Accepted(_Happened):
    """The gateway has accepted a create, and bills it."""

    status: TaskStatus


@frozen(kw_only=True)
class Asked(_Happened):
    """The gateway has said how a task is getting on."""

    status: TaskStatus


@frozen(kw_only=True)
class HeldBack(_Happened):
    """The gateway asked to slow down: nothing of this kind goes out for so many seconds."""

    seconds: float
    creates: bool


@frozen(kw_only=True)
class Finished(_Happened):
    """A task was seen completed."""

    generation: Generation


@frozen(kw_only=True)
class Failed(_Happened):
    """A submit or a task came to an end without a picture, or without one that is known of."""

    error: KontextError


@frozen(kw_only=True)
class Abandoned(_Happened):
    """Nobody waits any more for an accepted task, or for the answer to a create. What was accepted is paid for.

    With a `task_id`, `attach` takes it up.
    """

    reason: str


@frozen(kw_only=True)
class Downloaded(_Happened):
    """A picture was fetched: `size` bytes, to `path` or, where that is None, into memory."""

    image: GeneratedImage
    path: Path | None
    size: int


Event: TypeAlias = Submitting | Accepted | Asked | HeldBack | Finished | Failed | Abandoned | Downloaded

"""What listens to a session's events on behalf of the user: every event as a line, and the ids of what is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kontext_async.errors import SubmissionUncertain, TaskFailed
from kontext_async.events import (
    Abandoned,
    Accepted,
    Completed,
    Downloaded,
    Failed,
    StatusReceived,
    Submitting,
    Throttled,
)

if TYPE_CHECKING:
    from kontext_async.cli.output import Output
    from kontext_async.events import Event

__all__ = ["EventLines", "Lost", "Paid", "described"]


class Paid:
    """The ids of accepted tasks whose pictures are not saved yet, in the order of acceptance."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def __call__(self, event: Event) -> None:
        """Take down one event."""
        if isinstance(event, Accepted) and event.task_id:
            self.add(event.task_id)
        elif isinstance(event, Failed) and isinstance(event.error, TaskFailed):
            self.settle(event.task_id)

    def add(self, task_id: str) -> None:
        """A task that somebody pays for."""
        self._ids[task_id] = None

    def settle(self, task_id: str | None) -> None:
        """A task's pictures are saved, or there are none to be had."""
        if task_id is not None:
            self._ids.pop(task_id, None)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids."""
        return tuple(self._ids)


class Lost:
    """Says which creates were on the wire when the run was broken off, and may have been accepted."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __call__(self, event: Event) -> None:
        """Take down one event."""
        if isinstance(event, Failed) and isinstance(event.error, SubmissionUncertain):
            self._output.error(event.error)
        elif isinstance(event, Abandoned) and event.task_id is None:
            self._output.error(
                "nobody knows whether the gateway accepted a request that was on the wire "
                f"(fingerprint {(event.fingerprint or 'unknown')[:12]}): {event.reason}"
            )


class EventLines:
    """Prints every event."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __call__(self, event: Event) -> None:
        """Print one event."""
        about = event.task_id or (event.fingerprint or "")[:12]
        words = (f"{event.at.astimezone():%H:%M:%S.%f}"[:-3], type(event).__name__.lower(), about, described(event))
        self._output.warn(" ".join(word for word in words if word))


def described(event: Event) -> str:
    """What an event says beside its kind and its task."""
    words = ""
    match event:
        case Submitting(attempt=attempt):
            words = f"attempt {attempt}"
        case StatusReceived(status=status) if status.progress is not None:
            words = f"{status.raw_status} {status.progress:.0%}"
        case Accepted(status=status) | StatusReceived(status=status):
            words = status.raw_status
        case Throttled(seconds=seconds, scope=scope):
            words = f"{'create' if scope == 'submit' else 'status'} requests paused for {seconds:.1f} s"
        case Completed(generation=generation):
            words = f"after {generation.elapsed:.2f} s, {generation.usage.cost} USD"
        case Failed(error=error):
            words = str(error)
        case Abandoned(reason=reason):
            words = reason
        case Downloaded(path=path, size=size):
            words = f"{size} bytes, {path}"
    return words

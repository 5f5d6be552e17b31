"""Listens to a session's events: prints them, and keeps the IDs of tasks that are billed but not saved."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from kontext_async.cli.output import count_of
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
    from pathlib import Path

    from kontext_async.cli.options import GatewayOptions
    from kontext_async.cli.output import Output
    from kontext_async.events import Event

__all__ = ["EventPrinter", "UncertainReporter", "UnsavedTasks", "describe", "print_resume_commands"]

WORD_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])")


class UnsavedTasks:
    """The IDs of accepted tasks whose images are not saved yet, in order of acceptance."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def __call__(self, event: Event) -> None:
        """Record an event: an accepted task is unsaved, a failed one has no images."""
        if isinstance(event, Accepted) and event.task_id:
            self.add(event.task_id)
        elif isinstance(event, Failed) and isinstance(event.error, TaskFailed):
            self.discard(event.task_id)

    def add(self, task_id: str) -> None:
        """Add a task that is billed."""
        self._ids[task_id] = None

    def discard(self, task_id: str | None) -> None:
        """Remove a task whose images are saved, or that has none."""
        if task_id is not None:
            self._ids.pop(task_id, None)

    @property
    def ids(self) -> tuple[str, ...]:
        """The task IDs."""
        return tuple(self._ids)


def print_resume_commands(unsaved: UnsavedTasks, options: GatewayOptions, target: Path, output: Output) -> None:
    """Print which tasks are billed but not saved, and the commands that fetch their images into `target`."""
    if not unsaved.ids:
        return
    if getattr(options, "emulator", False):
        output.warn(f"Not saved, and gone with the private emulator: {', '.join(unsaved.ids)}")
        return
    output.warn(f"{count_of(len(unsaved.ids), 'task')} accepted and billed, but not saved. To fetch at no extra cost:")
    address = ["--base-url", options.base_url] if options.base_url else []
    for task_id in unsaved.ids:
        output.warn(shlex.join(["kontext-async", "fetch", task_id, "--out", str(target), *address]))


class UncertainReporter:
    """Prints which create requests were in flight when the command was interrupted, and may have been accepted."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __call__(self, event: Event) -> None:
        """Print an event if it leaves open whether a request was accepted."""
        if isinstance(event, Failed) and isinstance(event.error, SubmissionUncertain):
            self._output.error(event.error)
        elif isinstance(event, Abandoned) and event.task_id is None:
            self._output.error(
                "the gateway may have accepted and billed a request that was in flight "
                f"(fingerprint {(event.fingerprint or 'unknown')[:12]}): {event.reason}"
            )


class EventPrinter:
    """Prints every event as a line: the time, the event, the task and what happened."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __call__(self, event: Event) -> None:
        """Print one event."""
        time = f"{event.at.astimezone():%H:%M:%S.%f}"[:-3]
        name = WORD_BOUNDARY.sub(" ", type(event).__name__).lower()
        subject = event.task_id or (event.fingerprint or "")[:12]
        self._output.warn(" ".join(word for word in (time, name, subject, describe(event)) if word))


def describe(event: Event) -> str:
    """Return the details of an event, apart from its name and its task."""
    text = ""
    match event:
        case Submitting(attempt=attempt):
            text = f"attempt {attempt}"
        case StatusReceived(status=status) if status.progress is not None:
            text = f"{status.raw_status} {status.progress:.0%}"
        case Accepted(status=status) | StatusReceived(status=status):
            text = status.raw_status
        case Throttled(seconds=seconds, scope=scope):
            text = f"{'create' if scope == 'submit' else 'status'} requests paused for {seconds:.1f} s"
        case Completed(generation=generation):
            cost = generation.usage.cost
            text = f"after {generation.elapsed:.2f} s, {'cost unknown' if cost is None else f'{cost} USD'}"
        case Failed(error=error):
            text = str(error)
        case Abandoned(reason=reason):
            text = reason
        case Downloaded(path=path, size=size):
            text = f"{size} bytes, {path}"
    return text

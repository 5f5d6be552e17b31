"""Keeps the IDs of tasks that are billed but not saved, and prints requests that are uncertain."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kontext_async.cli.output import count_of
from kontext_async.errors import SubmissionUncertain, TaskFailed
from kontext_async.events import Abandoned, Accepted, Failed

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.cli.options import GatewayOptions
    from kontext_async.cli.output import Output
    from kontext_async.events import Event

__all__ = ["UncertainReporter", "UnsavedTasks", "print_resume_commands"]


class UnsavedTasks:
    """The IDs of accepted tasks whose images are not saved yet, in order of acceptance."""

    def __init__(self) -> None:
        self._references: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Record an event: an accepted task is unsaved, a failed one has no images."""
        if isinstance(event, Accepted) and event.task_id:
            self.add(event.task_id, event.reference)
        elif isinstance(event, Failed) and isinstance(event.error, TaskFailed):
            self.discard(event.task_id)

    def add(self, task_id: str, reference: str | None) -> None:
        """Add a task that is billed."""
        self._references[task_id] = reference or task_id

    def discard(self, task_id: str | None) -> None:
        """Remove a task whose images are saved, or that has none."""
        if task_id is not None:
            self._references.pop(task_id, None)

    @property
    def ids(self) -> tuple[str, ...]:
        """The task IDs."""
        return tuple(self._references)

    @property
    def references(self) -> tuple[str, ...]:
        """The texts that lead to the tasks again."""
        return tuple(self._references.values())


def print_resume_commands(unsaved: UnsavedTasks, options: GatewayOptions, target: Path, output: Output) -> None:
    """Print which tasks are billed but not saved, and the commands that fetch their images into `target`."""
    if not unsaved.ids:
        return
    if getattr(options, "emulator", False):
        output.warn(f"Not saved, and gone with the private emulator: {', '.join(unsaved.ids)}")
        return
    output.warn(f"{count_of(len(unsaved.ids), 'task')} accepted and billed, but not saved. To fetch at no extra cost:")
    for reference in unsaved.references:
        output.warn(shlex.join(["kontext-async", "fetch", reference, "--out", str(target), *options.arguments()]))


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

"""Events as lines, the list of unsaved tasks, and reports of uncertain requests."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from cli_support import NOW, make_abandoned, make_generation

from kontext_async import SubmissionUncertain, TaskFailed, TaskState, TaskStatus, Usage
from kontext_async.cli.event_log import EventPrinter, UncertainReporter, UnsavedTasks, print_resume_commands
from kontext_async.cli.options import GatewayOptions, OutputOptions, RunOptions
from kontext_async.cli.output import Output
from kontext_async.events import Accepted, Completed, Event, Failed, StatusReceived, Submitting, Throttled

if TYPE_CHECKING:
    from collections.abc import Iterable


def make_status(state: TaskState = TaskState.IN_PROGRESS, progress: float | None = None) -> TaskStatus:
    return TaskStatus(task_id="id", state=state, raw_status=state.value, progress=progress)


def make_unsaved(task_ids: Iterable[str]) -> UnsavedTasks:
    unsaved = UnsavedTasks()
    for task_id in task_ids:
        unsaved(Accepted(at=NOW, task_id=task_id, status=make_status()))
    return unsaved


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Submitting(at=NOW, fingerprint="e" * 64, attempt=2), "submitting eeeeeeeeeeee attempt 2"),
        (make_abandoned(None), "abandoned ffffffffffff gone"),
        (Accepted(at=NOW, task_id="id", status=make_status()), "accepted id in_progress"),
        (StatusReceived(at=NOW, task_id="id", status=make_status()), "status received id in_progress"),
        (StatusReceived(at=NOW, task_id="id", status=make_status(progress=0.42)), "status received id in_progress 42%"),
        (Throttled(at=NOW, seconds=2, scope="submit"), "throttled create requests paused for 2.0 s"),
        (Throttled(at=NOW, seconds=2, scope="poll"), "throttled status requests paused for 2.0 s"),
        (Completed(at=NOW, task_id="id", generation=make_generation("id")), "completed id after 0.00 s, cost unknown"),
        (
            Completed(
                at=NOW,
                task_id="id",
                generation=attrs.evolve(make_generation("id"), usage=Usage(cost=Decimal("0.04")), elapsed=1.5),
            ),
            "completed id after 1.50 s, 0.04 USD",
        ),
        (Failed(at=NOW, task_id="id", error=TaskFailed(task_id="id", code=None, message="no")), "failed id the task"),
    ],
)
def test_each_event_is_printed_as_a_line(event: Event, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    EventPrinter(Output(OutputOptions(quiet=True)))(event)
    time, _, rest = capsys.readouterr().err.partition(" ")
    assert time.endswith("5.678")
    assert rest.startswith(words)


def test_accepted_tasks_are_unsaved_until_they_fail_or_are_discarded() -> None:
    unsaved = make_unsaved(("a", "b", "c"))
    unsaved(Failed(at=NOW, task_id="b", error=TaskFailed(task_id="b", code=None, message="no")))
    unsaved(make_abandoned("a"))
    unsaved.discard("c")
    unsaved.discard(None)
    assert unsaved.ids == ("a",)


def test_resume_commands_are_printed_for_each_unsaved_task(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(OutputOptions(quiet=True))
    options = GatewayOptions(base_url="http://localhost:1")
    print_resume_commands(make_unsaved(()), options, Path("a dir"), output)
    assert capsys.readouterr().err == ""
    print_resume_commands(make_unsaved(("a", "b")), options, Path("a dir"), output)
    assert capsys.readouterr().err.splitlines() == [
        "2 tasks accepted and billed, but not saved. To fetch at no extra cost:",
        "kontext-async fetch a --out 'a dir' --base-url http://localhost:1",
        "kontext-async fetch b --out 'a dir' --base-url http://localhost:1",
    ]
    print_resume_commands(make_unsaved(("a", "b")), RunOptions(emulator=True), Path("a dir"), output)
    assert capsys.readouterr().err == "Not saved, and gone with the private emulator: a, b\n"


def test_requests_that_may_have_been_accepted_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = UncertainReporter(Output(OutputOptions(quiet=True)))
    reporter(make_abandoned("a"))
    reporter(make_abandoned(None))
    reporter(Failed(at=NOW, error=SubmissionUncertain(request=None, fingerprint="e" * 64, seen="nothing")))
    first, second = capsys.readouterr().err.splitlines()
    assert "(fingerprint ffffffffffff): gone" in first
    assert "(fingerprint eeeeeeeeeeee)" in second

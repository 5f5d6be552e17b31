"""The list of unsaved tasks, and reports of uncertain requests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli_support import NOW, make_abandoned

from kontext_async import SubmissionUncertain, TaskFailed, TaskState, TaskStatus
from kontext_async.cli.options import GatewayOptions, OutputOptions, RunOptions
from kontext_async.cli.output import Output
from kontext_async.cli.unsaved_tasks import UncertainReporter, UnsavedTasks, print_resume_commands
from kontext_async.events import Accepted, Failed

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest


def make_status() -> TaskStatus:
    return TaskStatus(task_id="id", state=TaskState.IN_PROGRESS, raw_status="in_progress")


def make_unsaved(task_ids: Iterable[str]) -> UnsavedTasks:
    unsaved = UnsavedTasks()
    for task_id in task_ids:
        unsaved(Accepted(at=NOW, task_id=task_id, status=make_status()))
    return unsaved


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

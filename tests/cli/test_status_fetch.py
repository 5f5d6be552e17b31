"""`status` and `fetch`, for tasks that an earlier command submitted."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from kontext_async.emulator import Emulator, Fault, FaultKind

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from cli_support import RunCommand, Serve, SignalWhen


def serve_a_task(serve: Serve, command: RunCommand, **options: Any) -> tuple[Emulator, str]:
    """Return an emulator, and the ID of a task that it accepted."""
    emulator = serve(**options)
    command("generate", "a fox", "-q", "--timeout", "0.2", "--out", "generated")
    return emulator, emulator.ledger.task_ids[0]


def test_status_of_completed_and_unknown_tasks(serve: Serve, command: RunCommand) -> None:
    _, task_id = serve_a_task(serve, command)
    ran = command("status", task_id, "unknown")
    assert ran.code == 1
    assert ran.lines == [f"{task_id} completed 0.04 USD"]
    assert "error: " in ran.err
    assert "(task unknown)" in ran.err
    known, unknown = command("status", task_id, "unknown", "--json").objects
    assert (known["task_id"], known["state"], known["cost"], known["error"]) == (task_id, "completed", "0.04", None)
    assert (known["raw_status"], known["task_error"]) == ("completed", None)
    assert len(known["urls"]) == 1
    assert (unknown["task_id"], unknown["state"], unknown["error"]["type"]) == ("unknown", None, "TaskNotFound")


def test_status_of_running_and_failed_tasks(serve: Serve, command: RunCommand) -> None:
    emulator, task_id = serve_a_task(serve, command, service_time=60)
    ran = command("status", task_id, "--verbose")
    assert ran.code == 0
    assert ran.lines[0].startswith(f"{task_id} in_progress ")
    assert ran.lines[0].endswith("%")
    emulator.faults.script("status", [Fault(kind=FaultKind.ODD_STATUS, variant="queued")])
    assert command("status", task_id).lines[0].startswith(f"{task_id} unknown (queued)")
    emulator.faults.script("create", ["failed-at-once"])
    command("generate", "a wolf", "-q")
    ran = command("status", emulator.ledger.task_ids[1])
    assert ran.code == 0, "the status request succeeded"
    assert ran.lines[0].endswith("failed generation failed [002014001]")
    (failed,) = command("status", emulator.ledger.task_ids[1], "--json").objects
    assert failed["task_error"] == {"code": "002014001", "message": "generation failed"}


def test_status_with_a_wrong_api_key_is_refused(
    serve: Serve, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    monkeypatch.setenv("KONTEXT_API_KEY", "wrong-key")
    assert command("status", "some-id").code == 3


def test_fetch_saves_the_image_to_a_file_or_into_a_directory(serve: Serve, command: RunCommand, tmp_path: Path) -> None:
    _, task_id = serve_a_task(serve, command)
    ran = command("fetch", task_id, "--out", "got/fox.png")
    assert (ran.code, ran.lines) == (0, ["got/fox.jpg"])
    ran = command("fetch", task_id, "--out", "new/", "--json")
    (result,) = ran.objects
    assert (ran.code, result["paths"], result["cost"]) == (0, [f"new/{task_id}.jpg"], "0.04")
    assert (tmp_path / "new" / f"{task_id}.jpg").exists()


def test_fetch_numbers_several_images(serve: Serve, command: RunCommand) -> None:
    emulator, task_id = serve_a_task(serve, command)
    emulator.faults.script("status", ["several-urls"])
    ran = command("fetch", task_id, "--out", "fox.jpg")
    assert ran.lines == ["fox-1.jpg", "fox-2.jpg", "fox-3.jpg"]


def test_fetch_waits_no_longer_than_the_timeout(serve: Serve, command: RunCommand) -> None:
    _, task_id = serve_a_task(serve, command, service_time=60)
    ran = command("fetch", task_id, "--out", "fox.jpg", "--timeout", "0.3", "--json")
    assert ran.code == 1
    assert ran.objects[0]["error"]["type"] == "TaskTimeout"
    assert task_id in ran.err


def test_interrupted_fetch_prints_how_to_resume(serve: Serve, command: RunCommand, signal_when: SignalWhen) -> None:
    emulator, task_id = serve_a_task(serve, command, service_time=60)
    earlier = len(emulator.requests)
    signal_when(signal.SIGINT, lambda: len(emulator.requests) > earlier)
    ran = command("fetch", task_id, "--out", "a fox.jpg")
    assert ran.code == 130
    assert f"kontext-async fetch vtrix:{task_id} --out 'a fox.jpg'" in ran.err

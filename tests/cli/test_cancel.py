"""`cancel`, for tasks that an earlier command submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli_support import RunCommand, Serve

    from kontext_async.emulator import Emulator


def queue(emulator: Emulator) -> tuple[str, ...]:
    return "--gateway", "vtrix-queue", "--base-url", emulator.base_url


def submit(serve: Serve, command: RunCommand, service_time: float, count: int = 1) -> tuple[Emulator, list[str]]:
    """Return an emulator, and the references of tasks that it accepted."""
    emulator = serve(service_time=service_time)
    prompts = [f"fox {number}" for number in range(count)]
    command("generate", *prompts, "-q", "--timeout", "0.3", "--out", "generated", *queue(emulator))
    return emulator, [f"vtrix-queue:{each}@flux_kontext_pro" for each in emulator.ledger.task_ids]


def test_tasks_are_cancelled_in_time(serve: Serve, command: RunCommand) -> None:
    emulator, references = submit(serve, command, 600, count=2)
    ran = command("cancel", *references, *queue(emulator))
    assert ran.code == 0, ran.err
    assert ran.lines == [f"{each} in time, failed, cost unknown" for each in emulator.ledger.task_ids]
    again, _ = command("cancel", *references, "--json", *queue(emulator)).objects
    assert again == {
        "task_id": emulator.ledger.task_ids[0],
        "reference": references[0],
        "cancellation": "in time",
        "state": "failed",
        "cost": None,
        "may_be_charged": True,
        "error": None,
    }


def test_a_task_that_has_completed_is_too_late(serve: Serve, command: RunCommand) -> None:
    emulator, [reference] = submit(serve, command, 0.0)
    ran = command("cancel", reference, *queue(emulator))
    assert ran.code == 1
    assert ran.lines == [f"{emulator.ledger.task_ids[0]} too late, completed, cost unknown"]


def test_a_task_that_cannot_be_cancelled_is_unknown(serve: Serve, command: RunCommand) -> None:
    emulator, [reference] = submit(serve, command, 600)
    emulator.faults.script("cancel", ["cancel-refused"])
    ran = command("cancel", reference, *queue(emulator))
    assert ran.code == 1
    assert " unknown, in_progress" in ran.lines[0]


def test_an_unknown_task_is_an_error(serve: Serve, command: RunCommand) -> None:
    emulator, [reference] = submit(serve, command, 600)
    other = "vtrix-queue:other@flux_kontext_pro"
    unknown, known = command("cancel", other, reference, "--json", *queue(emulator)).objects
    assert (unknown["task_id"], unknown["error"]["type"]) == (other, "TaskNotFound")
    assert known["cancellation"] == "in time"


def test_a_gateway_that_cannot_cancel_is_a_wrong_command(serve: Serve, command: RunCommand) -> None:
    emulator = serve()
    ran = command("cancel", "some-id")
    assert ran.code == 2
    assert "the gateway vtrix cannot cancel a task" in ran.err
    assert not emulator.requests

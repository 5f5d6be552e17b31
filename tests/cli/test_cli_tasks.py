"""`status`, `fetch` and `emulator`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from kontext_async.cli.emulator import FAULT_KINDS, BehaviourOptions
from kontext_async.emulator import Emulator, Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def made(serve: Any, command: Any, **options: Any) -> tuple[Emulator, str]:
    """An emulator, and the id of a task that it accepted."""
    emulator = serve(**options)
    command("generate", "a fox", "-q", "--timeout", "0.2", "--out", "made")
    return emulator, emulator.ledger.task_ids[0]


def test_status_of_finished_and_unknown_tasks(serve: Any, command: Any) -> None:
    _, task_id = made(serve, command)
    ran = command("status", task_id, "unknown")
    assert ran.code == 1
    assert ran.lines == [f"{task_id} completed 0.04 USD"]
    assert "error: " in ran.err
    assert "(task unknown)" in ran.err
    known, unknown = (json.loads(line) for line in command("status", task_id, "unknown", "--json").lines)
    assert (known["task_id"], known["state"], known["cost"], known["error"]) == (task_id, "completed", "0.04", None)
    assert len(known["urls"]) == 1
    assert (unknown["task_id"], unknown["state"], unknown["error"]["type"]) == ("unknown", None, "TaskNotFound")


def test_status_of_unfinished_and_failed_tasks(serve: Any, command: Any) -> None:
    emulator, task_id = made(serve, command, service_time=60)
    ran = command("status", task_id, "--verbose")
    assert ran.code == 0
    assert ran.lines[0].startswith(f"{task_id} in_progress ")
    assert ran.lines[0].endswith("%")
    emulator.faults.script("status", [Fault(kind=FaultKind.ODD_STATUS, variant="queued")])
    assert command("status", task_id).lines[0].startswith(f"{task_id} unknown (queued)")
    emulator.faults.script("create", ["failed-at-once"])
    command("generate", "a wolf", "-q")
    ran = command("status", emulator.ledger.task_ids[1])
    assert ran.code == 0, "it was asked for successfully"
    assert ran.lines[0].endswith("failed generation failed [002014001]")
    (problem,) = (
        json.loads(line)["problem"] for line in command("status", emulator.ledger.task_ids[1], "--json").lines
    )
    assert problem == {"code": "002014001", "message": "generation failed"}


def test_status_with_a_wrong_key(serve: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()
    monkeypatch.setenv("KONTEXT_API_KEY", "wrong-key")
    assert command("status", "some-id").code == 3


def test_fetch_saves_the_picture(serve: Any, command: Any, tmp_path: Path) -> None:
    _, task_id = made(serve, command)
    ran = command("fetch", task_id, "--out", "got/fox.png")
    assert (ran.code, ran.lines) == (0, ["got/fox.jpg"])
    ran = command("fetch", task_id, "--out", "new/", "--json")
    result = json.loads(ran.out)
    assert (ran.code, result["paths"], result["cost"]) == (0, [f"new/{task_id}.jpg"], "0.04")
    assert (tmp_path / "new" / f"{task_id}.jpg").exists()


def test_fetch_of_several_pictures(serve: Any, command: Any) -> None:
    emulator, task_id = made(serve, command)
    emulator.faults.script("status", ["several-urls"])
    ran = command("fetch", task_id, "--out", "fox.jpg")
    assert ran.lines == ["fox-1.jpg", "fox-2.jpg", "fox-3.jpg"]


def test_fetch_waits_no_longer_than_it_is_told(serve: Any, command: Any) -> None:
    _, task_id = made(serve, command, service_time=60)
    ran = command("fetch", task_id, "--out", "fox.jpg", "--timeout", "0.3", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["error"]["type"] == "TaskTimeout"
    assert task_id in ran.err


def test_an_interrupted_fetch_says_how_to_go_on(serve: Any, command: Any, signal_when: Callable[..., None]) -> None:
    emulator, task_id = made(serve, command, service_time=60)
    asked = len(emulator.requests)
    signal_when(signal.SIGINT, lambda: len(emulator.requests) > asked)
    ran = command("fetch", task_id, "--out", "a fox.jpg")
    assert ran.code == 130
    assert f"kontext-async fetch {task_id} --out 'a fox.jpg'" in ran.err


def test_the_listed_kinds_of_fault_are_the_emulators() -> None:
    assert FAULT_KINDS.split(", ") == list(FaultKind)


def test_defaults_are_the_emulators() -> None:
    ours, theirs = BehaviourOptions(), Emulator()
    assert (ours.pixels, ours.url_lifetime, ours.seed) == (theirs.pixels, theirs.url_lifetime, theirs.seed)
    assert ours.service_time == "lognormal:0.3,0.5"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_emulator_of_its_own(number: int, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "kontext_async.cli"]
    with subprocess.Popen(  # noqa: S603
        [*arguments, "emulator", "--service-time", "0", "--key", "k", "--fault", "odd-cost=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        address = server.stdout.readline().strip()
        environment = {**os.environ, "KONTEXT_BASE_URL": address, "KONTEXT_API_KEY": "k"}
        ran = subprocess.run(  # noqa: S603
            [*arguments, "generate", "a fox", "--out", str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, len(ran.stdout.splitlines())) == (0, 1), ran.stderr
        server.send_signal(number)
        _, errors = server.communicate(timeout=20)
    assert server.returncode == 0
    first, last = errors.splitlines()
    assert f"KONTEXT_BASE_URL={address} KONTEXT_API_KEY=k kontext-async generate" in first
    assert last == "ledger: 1 accepted, 1 billed, 0.04 USD"


def test_a_port_that_is_taken(command: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = command("emulator", "--port", port)
    assert ran.code == 2
    assert ran.err.startswith(f"error: the emulator cannot listen at 127.0.0.1:{port}: ")


def test_an_emulator_in_this_process(command: Any, signal_when: Callable[..., None]) -> None:
    end = time.monotonic() + 0.7
    signal_when(signal.SIGTERM, lambda: time.monotonic() > end)
    ran = command("emulator", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].startswith("http://127.0.0.1:")

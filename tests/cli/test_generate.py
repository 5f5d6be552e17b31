"""`generate`: its results, its exit codes, and its messages about tasks that are billed."""

from __future__ import annotations

import signal
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from cli_support import image_names

from kontext_async import Timeouts
from kontext_async.cli import options
from kontext_async.emulator import Emulator, Fault, FaultKind

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from cli_support import RunCommand, Serve, SignalWhen


def test_generate_prints_the_path_of_each_image(serve: Serve, command: RunCommand, tmp_path: Path) -> None:
    emulator = serve()
    ran = command("generate", "a red fox", "../../un loup à Paris", "--out", "new/out")
    assert ran.code == 0
    assert sorted(ran.lines) == [f"new/out/{name}" for name in image_names(tmp_path / "new/out")]
    fox, wolf = emulator.ledger.task_ids
    assert set(image_names(tmp_path / "new/out")) in (
        {f"a-red-fox-{fox}.jpg", f"un-loup-a-paris-{wolf}.jpg"},
        {f"a-red-fox-{wolf}.jpg", f"un-loup-a-paris-{fox}.jpg"},
    )
    assert "2 done, 0 failed, 0 uncertain, 0.08 USD spent" in ran.err
    assert "ledger" not in ran.err


def test_every_request_field_is_an_option(serve: Serve, command: RunCommand, tmp_path: Path) -> None:
    emulator = serve()
    assert command("generate", "a fox", "-q").code == 0
    (source,) = tmp_path.glob("*.jpg")
    ran = command(
        *("generate", "make it dusk", "--input-image", source, "-i", source, "--seed", "-7", "--aspect-ratio", "16:9"),
        *("--output-format", "png", "--prompt-upsampling", "--safety-tolerance", 6, "--model", "flux_kontext_max"),
        *("--moderation", "--metadata", "run=7", "--metadata", "note=a=b"),
        *("--json", "--quiet", "--out", tmp_path / "edits"),
    )
    assert (ran.code, ran.err) == (0, "")
    (result,) = ran.objects
    assert emulator.ledger.entries[-1].metadata == {"run": "7", "note": "a=b"}
    (path,) = result.pop("paths")
    task_id = result.pop("task_id")
    assert path == str(tmp_path / "edits" / f"make-it-dusk-{task_id}.png")
    assert result == {"index": 0, "prompt": "make it dusk", "seed": -7, "cost": "0.04", "error": None}


def test_private_emulator_needs_no_key_and_verbose_prints_the_log(command: RunCommand, tmp_path: Path) -> None:
    ran = command("generate", "a fox", "--emulator", "--verbose")
    assert ran.code == 0
    assert len(image_names(tmp_path)) == 1
    assert "ledger: 1 accepted, 1 billed, 0.04 USD" in ran.err
    for name in ("create request,", "accepted", "status request,", "completed", "downloaded"):
        assert f" {name} " in ran.err


def test_several_images_of_one_task_are_numbered(serve: Serve, command: RunCommand, tmp_path: Path) -> None:
    serve().faults.script("create", ["several-urls"])
    ran = command("generate", "a fox", "--json")
    (result,) = ran.objects
    assert sorted(result["paths"]) == image_names(tmp_path)
    assert [name[-6:] for name in image_names(tmp_path)] == ["-1.jpg", "-2.jpg", "-3.jpg"]


def test_failed_task_is_reported_and_has_nothing_to_fetch(serve: Serve, command: RunCommand, tmp_path: Path) -> None:
    emulator = serve()
    emulator.faults.script("create", [Fault(kind=FaultKind.FAILED_AT_ONCE, message="moderated\x1b[2J\nout")])
    ran = command("generate", "a fox", "a wolf", "--json")
    assert ran.code == 1
    failed, done = sorted(ran.objects, key=lambda each: each["paths"])
    assert failed["error"]["type"] == "TaskFailed"
    assert failed["error"]["code"] == "002014001"
    assert failed["error"]["task_id"] == failed["task_id"] == emulator.ledger.task_ids[0]
    assert done["error"] is None
    assert len(image_names(tmp_path)) == 1
    assert "the task failed: moderated\\x1b[2J out [002014001] (task " in ran.err
    assert "1 done, 1 failed, 0 uncertain" in ran.err
    assert "kontext-async fetch" not in ran.err


def test_failed_download_prints_the_command_that_fetches_it(serve: Serve, command: RunCommand) -> None:
    emulator = serve()
    emulator.faults.set_rate("url-expired", 1.0)
    ran = command("generate", "a fox", "--json")
    assert ran.code == 1
    (result,) = ran.objects
    (task_id,) = emulator.ledger.task_ids
    assert result["error"]["type"] == "DownloadFailed"
    assert result["task_id"] == result["error"]["task_id"] == task_id
    assert (result["paths"], result["cost"]) == ([], "0.04")
    assert ran.messages[-2:] == [
        "1 task accepted and billed, but not saved. To fetch at no extra cost:",
        f"kontext-async fetch vtrix:{task_id} --out .",
    ]


def test_timeout_prints_the_command_that_fetches_the_image(serve: Serve, command: RunCommand) -> None:
    emulator = serve(service_time=60)
    ran = command("generate", "a fox", "--timeout", "0.3")
    (task_id,) = emulator.ledger.task_ids
    assert ran.code == 1
    assert f"the task keeps running and is billed: resume it with attach('vtrix:{task_id}')" in ran.err
    assert ran.out == ""
    assert ran.messages[-1] == f"kontext-async fetch vtrix:{task_id} --out ."


def test_uncertain_submission_sets_the_exit_code_even_if_another_request_failed(
    serve: Serve, command: RunCommand
) -> None:
    serve().faults.script("create", ["cut-after-accept", "failed-at-once"])
    ran = command("generate", "a fox", "a wolf", "a bear", "--max-in-flight", 1, "--json")
    assert ran.code == 4
    uncertain, failed, done = sorted(ran.objects, key=lambda each: each["index"])
    assert uncertain["error"]["type"] == "SubmissionUncertain"
    assert uncertain["error"]["may_be_charged"] is True
    assert len(uncertain["error"]["fingerprint"]) >= 12
    assert failed["error"]["type"] == "TaskFailed"
    assert done["paths"]
    assert "1 done, 1 failed, 1 uncertain" in ran.err


def test_missing_api_key_is_reported_before_anything_is_submitted(
    command: RunCommand, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = serve()
    monkeypatch.delenv("KONTEXT_API_KEY")
    ran = command("generate", "a fox")
    assert ran.code == 3
    assert ran.err.startswith("error: there is no API key")
    assert ran.messages[0].endswith("set KONTEXT_API_KEY, or use --key-file PATH")
    assert len(ran.messages) == 1
    assert emulator.ledger.accepted == 0


def test_api_key_can_come_from_a_file(
    serve: Serve, command: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    monkeypatch.delenv("KONTEXT_API_KEY")
    (tmp_path / "key").write_text("emulator-key\n")
    assert command("generate", "a fox", "--key-file", "key").code == 0
    (tmp_path / "key").write_bytes(b"\xff")
    ran = command("generate", "a fox", "--key-file", "key")
    assert (ran.code, ran.err) == (3, "error: the key file key cannot be read: it is not text in UTF-8\n")
    ran = command("generate", "a fox", "--key-file", "nowhere")
    assert (ran.code, ran.err) == (3, "error: the key file nowhere cannot be read: No such file or directory\n")


def test_refused_api_key_stops_submitting(serve: Serve, command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = serve()
    monkeypatch.setenv("KONTEXT_API_KEY", "wrong-key")
    ran = command("generate", *("a fox" for _ in range(300)), "--max-in-flight", 2)
    assert ran.code == 3
    assert "wrong-key" not in ran.err
    (line,) = [line for line in ran.messages if "requests not submitted: " in line]
    assert int(line.split()[1]) > 200
    assert emulator.ledger.accepted == 0


def test_unusable_directory_is_reported_before_anything_is_billed(
    serve: Serve, command: RunCommand, tmp_path: Path
) -> None:
    emulator = serve()
    (tmp_path / "file").write_text("")
    assert command("generate", "a fox", "--out", "file").code == 2
    assert emulator.ledger.accepted == 0
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)


def test_interrupt_waits_for_the_responses_to_create_requests_in_flight(
    serve: Serve, command: RunCommand, signal_when: SignalWhen
) -> None:
    emulator = serve(service_time=60)
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.5)])
    signal_when(signal.SIGINT, lambda: emulator.ledger.accepted >= 1)
    ran = command("generate", "a fox")
    assert ran.code == 130
    assert "Stopping: no new submissions, waiting for the responses to requests in flight." in ran.err
    assert f"kontext-async fetch vtrix:{emulator.ledger.task_ids[0]} --out ." in ran.err


def test_termination_reports_which_create_requests_are_uncertain(
    serve: Serve, command: RunCommand, signal_when: SignalWhen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "Timeouts", partial(Timeouts, cancel=0.2))
    emulator = serve()
    emulator.faults.script("create", ["stall-after-accept"])
    signal_when(signal.SIGTERM, lambda: emulator.ledger.accepted >= 1)
    ran = command("generate", "a fox")
    assert ran.code == 143
    assert "error: the gateway may have accepted and billed a request that was in flight (fingerprint" in ran.err


def test_unfinished_tasks_of_a_private_emulator_cannot_be_fetched(
    command: RunCommand, signal_when: SignalWhen, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulators: list[Emulator] = []

    def make_emulator(**options: Any) -> Emulator:
        emulators.append(Emulator(service_time=60, **options))
        return emulators[-1]

    monkeypatch.setattr("kontext_async.emulator.Emulator", make_emulator)
    signal_when(signal.SIGTERM, lambda: emulators and emulators[0].ledger.accepted)
    ran = command("generate", "a fox", "--emulator")
    assert ran.code == 143
    assert "Not saved, and gone with the private emulator: " in ran.err
    assert "kontext-async fetch" not in ran.err


def test_progress_bar_is_drawn_if_stderr_is_a_terminal(
    serve: Serve, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    ran = command("generate", "a fox", "--out", "out")
    assert ran.code == 0
    assert len(ran.lines) == 1
    assert "1 done, 0 failed" in ran.err


def test_results_are_printed_above_the_progress_bar_if_both_streams_are_terminals(
    serve: Serve, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve().faults.script("create", ["failed-at-once"])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    ran = command("generate", "a fox", "a wolf", "--out", "out")
    assert ran.out == ""
    assert "out/a-" in ran.err
    assert "error: request" in ran.err

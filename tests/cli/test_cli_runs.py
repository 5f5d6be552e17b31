"""`generate` and `bulk`: results, exit codes, and what is said of what is paid for."""

from __future__ import annotations

import json
import signal
import stat
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from kontext_async import Timeouts
from kontext_async.cli import options
from kontext_async.emulator import Fault, FaultKind
from kontext_async.images import detect_format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def pictures(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir())
    assert all(detect_format((folder / name).read_bytes()) for name in names)
    return names


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_generate_prints_the_path_of_each_picture(serve: Any, command: Any, tmp_path: Path) -> None:
    emulator = serve()
    ran = command("generate", "a red fox", "../../un loup à Paris", "--out", "new/out")
    assert ran.code == 0
    assert sorted(ran.lines) == [f"new/out/{name}" for name in pictures(tmp_path / "new/out")]
    fox, wolf = emulator.ledger.task_ids
    assert set(pictures(tmp_path / "new/out")) in (
        {f"a-red-fox-{fox}.jpg", f"un-loup-a-paris-{wolf}.jpg"},
        {f"a-red-fox-{wolf}.jpg", f"un-loup-a-paris-{fox}.jpg"},
    )
    assert "2 done, 0 failed, 0 uncertain, 0.08 USD spent" in ran.err
    assert "ledger" not in ran.err


def test_every_field_is_an_option(serve: Any, command: Any, tmp_path: Path) -> None:
    serve()
    assert command("generate", "a fox", "-q").code == 0
    (source,) = tmp_path.glob("*.jpg")
    ran = command(
        *("generate", "make it dusk", "--input-image", source, "-i", source, "--seed", "-7", "--aspect-ratio", "16:9"),
        *("--output-format", "png", "--prompt-upsampling", "--safety-tolerance", 6, "--model", "flux_kontext_max"),
        *("--json", "--quiet", "--out", tmp_path / "edits"),
    )
    assert (ran.code, ran.err) == (0, "")
    (result,) = objects(ran.out)
    (path,) = result.pop("paths")
    task_id = result.pop("task_id")
    assert path == str(tmp_path / "edits" / f"make-it-dusk-{task_id}.png")
    assert result == {"index": 0, "prompt": "make it dusk", "seed": -7, "cost": "0.04", "error": None}


def test_a_private_emulator_needs_no_key(command: Any, tmp_path: Path) -> None:
    ran = command("generate", "a fox", "--emulator", "--verbose")
    assert ran.code == 0
    assert len(pictures(tmp_path)) == 1
    assert "ledger: 1 accepted, 1 billed, 0.04 USD" in ran.err
    for word in ("submitting", "accepted", "asked", "finished", "downloaded"):
        assert f" {word} " in ran.err


def test_several_pictures_of_one_task(serve: Any, command: Any, tmp_path: Path) -> None:
    serve().faults.script("create", ["several-urls"])
    ran = command("generate", "a fox", "--json")
    (result,) = objects(ran.out)
    assert sorted(result["paths"]) == pictures(tmp_path)
    assert [name[-6:] for name in pictures(tmp_path)] == ["-1.jpg", "-2.jpg", "-3.jpg"]


def test_failed_tasks(serve: Any, command: Any, tmp_path: Path) -> None:
    emulator = serve()
    emulator.faults.script("create", [Fault(kind=FaultKind.FAILED_AT_ONCE, message="moderated\x1b[2J\nout")])
    ran = command("generate", "a fox", "a wolf", "--json")
    assert ran.code == 1
    failed, done = sorted(objects(ran.out), key=lambda each: each["paths"])
    assert failed["error"]["type"] == "TaskFailed"
    assert failed["error"]["code"] == "002014001"
    assert failed["error"]["task_id"] == failed["task_id"] == emulator.ledger.task_ids[0]
    assert done["error"] is None
    assert len(pictures(tmp_path)) == 1
    assert "the task failed: moderated [2J out [002014001] (task " in ran.err
    assert "1 done, 1 failed, 0 uncertain" in ran.err
    assert "kontext-async fetch" not in ran.err, "there is nothing to be had of it"


def test_a_failed_download_keeps_the_id(serve: Any, command: Any) -> None:
    emulator = serve()
    emulator.faults.set_rate("url-expired", 1.0)
    ran = command("generate", "a fox", "--json")
    assert ran.code == 1
    (result,) = objects(ran.out)
    (task_id,) = emulator.ledger.task_ids
    assert result["error"]["type"] == "DownloadFailed"
    assert result["task_id"] == result["error"]["task_id"] == task_id
    assert (result["paths"], result["cost"]) == ([], "0.04")
    assert ran.err.splitlines()[-1] == f"kontext-async fetch {task_id} --out ."


def test_a_timeout_keeps_the_id(serve: Any, command: Any) -> None:
    emulator = serve(service_time=60)
    ran = command("generate", "a fox", "--timeout", "0.3")
    assert ran.code == 1
    assert f"the task goes on and is paid for: attach('{emulator.ledger.task_ids[0]}')" in ran.err
    assert ran.out == ""
    assert ran.err.splitlines()[-1] == f"kontext-async fetch {emulator.ledger.task_ids[0]} --out ."


def test_uncertain_submissions_win_over_failed_ones(serve: Any, command: Any) -> None:
    serve().faults.script("create", ["cut-after-accept", "failed-at-once"])
    ran = command("generate", "a fox", "a wolf", "a bear", "--max-in-flight", 1, "--json")
    assert ran.code == 4
    uncertain, failed, done = sorted(objects(ran.out), key=lambda each: each["index"])
    assert uncertain["error"]["type"] == "SubmissionUncertain"
    assert uncertain["error"]["may_be_charged"] is True
    assert len(uncertain["error"]["fingerprint"]) >= 12
    assert failed["error"]["type"] == "TaskFailed"
    assert done["paths"]
    assert "1 done, 1 failed, 1 uncertain" in ran.err


def test_no_key(command: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = serve()
    monkeypatch.delenv("KONTEXT_API_KEY")
    ran = command("generate", "a fox")
    assert ran.code == 3
    assert ran.err.startswith("error: there is no API key")
    assert len(ran.err.splitlines()) == 1
    assert emulator.ledger.accepted == 0


def test_a_key_from_a_file(serve: Any, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()
    monkeypatch.delenv("KONTEXT_API_KEY")
    (tmp_path / "key").write_text("emulator-key\n")
    assert command("generate", "a fox", "--key-file", "key").code == 0
    (tmp_path / "key").write_bytes(b"\xff")
    ran = command("generate", "a fox", "--key-file", "key")
    assert (ran.code, ran.err) == (3, "error: the key file key cannot be read: it is not UTF-8\n")
    ran = command("generate", "a fox", "--key-file", "nowhere")
    assert (ran.code, ran.err) == (3, "error: the key file nowhere cannot be read: No such file or directory\n")


def test_bad_lines_are_all_named_before_anything_is_submitted(serve: Any, command: Any, tmp_path: Path) -> None:
    emulator = serve()
    (tmp_path / "p.csv").write_text("prompt,aspect_ratio,input_image\na,1:1,\nb,5:1,\nc,,gone.png\n")
    ran = command("bulk", "p.csv", "--out", "out")
    assert ran.code == 2
    ratio_rule = "it must be W:H in whole numbers, between 21:9 and 9:21"
    file_rule = "it must be readable: No such file or directory"
    assert ran.err.splitlines() == [
        f"error: p.csv, line 3: aspect_ratio: '5:1' is not allowed; {ratio_rule}",
        f"error: p.csv, line 4: input_images[0]: 'gone.png' is not allowed; {file_rule}",
        "nothing was submitted",
    ]
    assert emulator.ledger.entries == ()
    assert not (tmp_path / "out").exists()


def test_the_list_of_bad_lines_is_bounded(command: Any, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("7\n" * 1000)
    ran = command("bulk", "p.jsonl", "--out", "out", "-q")
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 21


def test_a_file_without_requests(command: Any, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n")
    ran = command("bulk", "p.txt", "--out", "out", "-q")
    assert (ran.code, ran.err) == (2, "error: p.txt holds no requests\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate"], "PROMPT requires an argument"),
        (["generate", "a", "--nonsense"], "Unknown option"),
        (["generate", "a", "--seed", "x"], "--seed"),
        (["generate", "a", "--api-key", "k"], "Unknown option"),
        (["generate", " "], "prompt: ' ' is not allowed"),
        (["generate", "a", "--aspect-ratio", "5:1"], "aspect_ratio: '5:1' is not allowed"),
        (["generate", "a", "-i", "gone.png"], "input_images[0]: 'gone.png' is not allowed"),
        (["generate", "a", "--emulator", "--base-url", "http://h"], "--emulator is a gateway of its own"),
        (["generate", "a", "--emulator", "--max-in-flight", "0"], "max_in_flight"),
        (["generate", "a", "--emulator", "--timeout", "-1"], "wait"),
        (["generate", "a", "--base-url", "ftp://h", "--key-file", "key"], "the base URL must be"),
        (["generate", "a", "--emulator", "--out", "key/sub"], "--out key/sub cannot be made: Not a directory"),
        (["bulk", "p.xls", "--out", "out"], "extension must be one of"),
        (["bulk", "gone.txt", "--out", "out"], "must be readable"),
        (["bulk", "p.txt"], "--out"),
        (["status"], "ID requires an argument"),
        (["status", "x", "--emulator"], "Unknown option"),
        (["fetch", "..", "--out", "x", "--key-file", "key"], "task_id: '..' is not allowed"),
        (["emulator", "--service-time", "often"], "the emulator cannot be made"),
        (["emulator", "--price", "much"], "the emulator cannot be made"),
        (["emulator", "--fault", "cut"], "--fault cut: it must be KIND=RATE"),
        (["emulator", "--fault", "cat=0.1"], "kind must be one of"),
        (["nonsense"], "nonsense"),
    ],
)
def test_misuse_is_told_in_one_line(command: Any, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "key").write_text("some-key")
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert words in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_directory_that_cannot_be_written_is_found_before_paying(serve: Any, command: Any, tmp_path: Path) -> None:
    emulator = serve()
    (tmp_path / "file").write_text("")
    assert command("generate", "a fox", "--out", "file").code == 2
    assert emulator.ledger.accepted == 0
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)


def test_an_interrupt_waits_for_the_answers_to_creates_on_the_wire(
    serve: Any, command: Any, signal_when: Callable[..., None]
) -> None:
    emulator = serve(service_time=60)
    emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.5)])
    signal_when(signal.SIGINT, lambda: emulator.ledger.accepted >= 1)
    ran = command("generate", "a fox")
    assert ran.code == 130
    assert f"kontext-async fetch {emulator.ledger.task_ids[0]} --out ." in ran.err


def test_an_end_says_which_creates_are_uncertain(
    serve: Any, command: Any, signal_when: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "Timeouts", partial(Timeouts, cancel=0.2))
    emulator = serve()
    emulator.faults.script("create", ["stall-after-accept"])
    signal_when(signal.SIGTERM, lambda: emulator.ledger.accepted >= 1)
    ran = command("generate", "a fox")
    assert ran.code == 143
    assert "error: nobody knows whether the gateway accepted a request that was on the wire (fingerprint" in ran.err


def test_with_a_private_emulator_the_unfinished_are_gone(command: Any, signal_when: Callable[..., None]) -> None:
    began = time.monotonic()
    signal_when(signal.SIGTERM, lambda: time.monotonic() > began + 0.5)
    ran = command("generate", "a fox", "--emulator")
    assert ran.code == 143
    assert "not saved, and gone with their emulator: " in ran.err
    assert "kontext-async fetch" not in ran.err

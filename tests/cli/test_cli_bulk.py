"""`bulk` and `report`: what is printed, what goes on, and what the exit codes are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from kontext_async.emulator import Fault, FaultKind
from kontext_async.images import detect_format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def pictures(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    assert all(detect_format((folder / name).read_bytes()) for name in names)
    return names


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def prompts(tmp_path: Path) -> Callable[[int], str]:
    def write(count: int) -> str:
        (tmp_path / "p.txt").write_text("".join(f"fox {number}\n" for number in range(count)))
        return "p.txt"

    return write


def test_bulk_names_pictures_by_place_and_prompt(serve: Any, command: Any, tmp_path: Path) -> None:
    emulator = serve()
    (tmp_path / "p.tsv").write_text('Prompt\tCategory\tSeed\n"A" fox\tAnimals\t3\n狐\tAnimals\t\n', encoding="utf-8")
    call = ("bulk", "p.tsv", "--out", "out", "--seed", 5, "--output-format", "png", "--json")
    ran = command(*call)
    assert ran.code == 0
    assert pictures(tmp_path / "out") == ["000000-a-fox.png", "000001-picture.png"]
    results = sorted(objects(ran.out), key=lambda each: each["index"])
    assert [(each["prompt"], each["seed"], each["error"]) for each in results] == [
        ('"A" fox', 3, None),
        ("狐", 5, None),
    ]
    assert {each["task_id"] for each in results} == set(emulator.ledger.task_ids)
    assert sum(Decimal(each["cost"]) for each in results) == emulator.ledger.spent
    assert "columns ignored: Category" in ran.err
    assert "to go on" not in ran.err
    again = command(*call)
    assert (again.code, again.out) == (0, "")
    assert "from earlier runs: 2 there, 0 fetched, 0.08 USD not paid again" in again.err
    assert emulator.ledger.accepted == 2


def test_many_downloads_go_on_at_once(serve: Any, command: Any, tmp_path: Path, prompts: Any) -> None:
    emulator = serve()
    emulator.faults.set_rate(Fault(kind=FaultKind.SLOW, on="download", seconds=0.3), 1.0)
    ran = command("bulk", prompts(40), "--out", "out")
    assert len(pictures(tmp_path / "out")) == 40
    seconds = float(ran.err.splitlines()[-1].removesuffix(" s").rpartition(" ")[2])
    assert seconds < 6, "one after the other they would take 12 s"


def test_a_refused_key_stops_the_run(serve: Any, command: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    serve()
    monkeypatch.setenv("KONTEXT_API_KEY", "wrong-key")
    ran = command("bulk", prompts(300), "--out", "out", "--max-in-flight", 2)
    assert ran.code == 3
    assert "wrong-key" not in ran.err
    (line,) = [line for line in ran.err.splitlines() if "requests were not submitted" in line]
    assert int(line.split()[1]) > 200
    assert ran.err.splitlines()[-1] == "to go on: kontext-async bulk p.txt --out out --max-in-flight 2"


def test_an_empty_balance_stops_the_run(serve: Any, command: Any, tmp_path: Path, prompts: Any) -> None:
    emulator = serve(balance="0.10")
    ran = command("bulk", prompts(300), "--out", "out", "--max-in-flight", 2)
    assert ran.code == 3
    assert emulator.ledger.billed == 2
    assert len(pictures(tmp_path / "out")) == 2
    assert "2 done" in ran.err


def test_a_limit_stops_the_run(serve: Any, command: Any, prompts: Any) -> None:
    emulator = serve()
    ran = command("bulk", prompts(30), "--out", "out", "--max-cost", "0.2")
    assert ran.code == 1
    assert "error: 25 requests were not submitted: 0.20 USD are spent or in flight, the limit is 0.2 USD" in ran.err
    assert emulator.ledger.spent == Decimal("0.20")


def test_uncertain_requests(serve: Any, command: Any, prompts: Any) -> None:
    emulator = serve()
    emulator.faults.script("create", ["cut-after-accept"])
    call = ("bulk", prompts(3), "--out", "out", "--max-in-flight", 1)
    for _ in range(2):
        ran = command(*call)
        assert ran.code == 4
        assert "uncertain: request 0 (fingerprint " in ran.err
        assert "--resend-uncertain submits them again, and may pay twice" in ran.err
    assert emulator.ledger.accepted == 3
    assert command(*call, "--resend-uncertain").code == 0
    assert emulator.ledger.accepted == 4


def test_failed_requests(serve: Any, command: Any, prompts: Any) -> None:
    serve().faults.script("create", ["failed-at-once"])
    call = ("bulk", prompts(3), "--out", "out", "--max-in-flight", 1)
    assert command(*call).code == 1
    again = command(*call)
    assert again.code == 1
    assert "error: request 0: the task failed: generation failed" in again.err
    assert command(*call, "--retry-failed").code == 0


def test_a_dry_run(serve: Any, command: Any, tmp_path: Path, prompts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = serve()
    call = ("bulk", prompts(30), "--out", "out")
    ran = command(*call, "--dry-run", "--max-cost", 1)
    assert (ran.code, ran.lines) == (0, ["30 requests", "30 to submit, about 1.20 USD"])
    assert "--max-cost 1 would stop it" in ran.err
    assert not (tmp_path / "out").exists()
    monkeypatch.delenv("KONTEXT_API_KEY")
    assert command(*call, "--dry-run").lines[1] == "30 to submit, nobody knows what they cost"
    assert emulator.ledger.entries == ()


def test_report_rebuilds_everything(serve: Any, command: Any, tmp_path: Path, prompts: Any) -> None:
    serve()
    assert command("bulk", prompts(5), "--out", "out", "-q").code == 0
    results = (tmp_path / "out" / "results.jsonl").read_text()
    (tmp_path / "out" / "results.jsonl").write_text("{torn")
    (tmp_path / "out" / "index.html").unlink()
    ran = command("report", "out")
    assert (ran.code, ran.lines) == (0, ["out/index.html"])
    assert ran.err == "5 saved; 0.20 USD spent, 5 results\n"
    assert (tmp_path / "out" / "results.jsonl").read_text() == results
    assert command("report", "nowhere").code == 2


def test_torn_results_are_put_right(serve: Any, command: Any, tmp_path: Path, prompts: Any) -> None:
    serve()
    call = ("bulk", prompts(5), "--out", "out", "-q")
    command(*call)
    path = tmp_path / "out" / "results.jsonl"
    whole = path.read_text()
    path.write_text(whole[: len(whole) - 700])
    assert command(*call).code == 0
    assert path.read_text() == whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-cost", "much"], "--max-cost much: it must be a number of USD"),
        (["--max-cost", "-1"], "max_cost must be"),
        (["--grace", "-1"], "--grace -1.0"),
        (["--name", "{nonsense}"], "asks for 'nonsense'"),
        (["--journal", "nonsense"], "the journal's URL"),
    ],
)
def test_misuse(serve: Any, command: Any, prompts: Any, options: list[str], words: str) -> None:
    emulator = serve()
    ran = command("bulk", prompts(3), "--out", "out", "-q", *options)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert emulator.ledger.entries == ()


def test_a_journal_from_the_future(serve: Any, command: Any, prompts: Any, tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    serve()
    call = ("bulk", prompts(3), "--out", "out", "-q")
    command(*call)
    with closing(sqlite3.connect(tmp_path / "out" / "journal.sqlite")) as connection, connection:
        connection.execute("UPDATE kontext_meta SET value = '2'")
    connection.close()
    ran = command(*call)
    assert ran.code == 2
    assert "newer version" in ran.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_what_is_in_flight(
    serve: Any, command: Any, tmp_path: Path, prompts: Any, signal_when: Any, number: int, code: int
) -> None:
    emulator = serve(service_time=0.4)
    signal_when(number, lambda: emulator.ledger.accepted >= 4)
    ran = command("bulk", prompts(100), "--out", "out dir", "--max-in-flight", 4)
    assert ran.code == code
    assert emulator.ledger.accepted == len(pictures(tmp_path / "out dir")) == 4
    assert "stopping: nothing more is submitted; what is in flight has 30 s to be finished" in ran.err
    assert ran.err.splitlines()[-1] == "to go on: kontext-async bulk p.txt --out 'out dir' --max-in-flight 4"
    assert "Traceback" not in ran.err


def test_a_grace_that_is_over(serve: Any, command: Any, prompts: Any, signal_when: Any) -> None:
    emulator = serve(service_time=30)
    signal_when(signal.SIGINT, lambda: emulator.ledger.accepted >= 4)
    began = time.monotonic()
    ran = command("bulk", prompts(100), "--out", "out", "--max-in-flight", 4, "--grace", 0.2)
    assert ran.code == 130
    assert time.monotonic() - began < 15
    assert ran.err.splitlines()[-1].startswith("to go on: ")


def test_a_second_signal_ends_now(serve: Any, prompts: Any, tmp_path: Path) -> None:
    emulator = serve(service_time=30)
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "kontext_async.cli", "bulk", prompts(100), "--out", "out", "--max-in-flight", "4"],
        stderr=subprocess.PIPE,
        env={**os.environ},
        text=True,
    )
    deadline = time.monotonic() + 20
    while emulator.ledger.accepted < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "to go on: kontext-async bulk p.txt --out out --max-in-flight 4" in err
    assert "Traceback" not in err


def test_a_private_emulator_forgets(command: Any, tmp_path: Path, prompts: Any) -> None:
    call = ("bulk", prompts(3), "--out", "out", "--emulator")
    assert command(*call).code == 0
    (tmp_path / "out" / "000001-fox-1.jpg").unlink()
    ran = command(*call)
    assert ran.code == 1
    assert "the gateway does not know this task" in ran.err
    assert "ledger: 0 accepted" in ran.err
    assert command(*call, "--retry-failed").code == 0

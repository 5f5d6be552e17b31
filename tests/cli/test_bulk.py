"""`bulk` and `report`: what is printed, what is resumed, and the exit codes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from cli_support import image_names

from kontext_async.emulator import Fault, FaultKind

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import RunCommand, Serve, WritePrompts


def test_images_are_named_by_index_and_prompt(serve: Serve, command: RunCommand, tmp_path: Path) -> None:
    emulator = serve()
    (tmp_path / "p.tsv").write_text('Prompt\tCategory\tSeed\n"A" fox\tAnimals\t3\n狐\tAnimals\t\n', encoding="utf-8")
    call = ("bulk", "p.tsv", "--out", "out", "--seed", 5, "--output-format", "png", "--json")
    ran = command(*call)
    assert ran.code == 0
    assert image_names(tmp_path / "out") == ["000000-a-fox.png", "000001-狐.png"]
    results = sorted(ran.objects, key=lambda each: each["index"])
    assert [(each["prompt"], each["seed"], each["error"]) for each in results] == [
        ('"A" fox', 3, None),
        ("狐", 5, None),
    ]
    assert {each["task_id"] for each in results} == set(emulator.ledger.task_ids)
    assert sum(Decimal(each["cost"]) for each in results) == emulator.ledger.spent
    assert "ignored columns: Category" in ran.err
    assert "To resume" not in ran.err
    assert "from earlier runs" not in ran.err
    again = command(*call)
    assert (again.code, again.out) == (0, "")
    assert "from earlier runs: 2 already saved, 0 recovered, 0.08 USD not spent again" in again.err
    assert emulator.ledger.accepted == 2


def test_filename_template_names_the_images(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts
) -> None:
    serve()
    assert command("bulk", prompts(2), "--out", "out", "--filename-template", "{slug}_{index}.{ext}").code == 0
    assert image_names(tmp_path / "out") == ["fox-0_0.jpg", "fox-1_1.jpg"]


def test_images_are_downloaded_at_the_same_time(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts
) -> None:
    emulator = serve()
    emulator.faults.set_rate(Fault(kind=FaultKind.SLOW, on="download", seconds=0.3), 1.0)
    ran = command("bulk", prompts(40), "--out", "out")
    assert len(image_names(tmp_path / "out")) == 40
    seconds = float(ran.messages[-1].removesuffix(" s").rpartition(" ")[2])
    assert seconds < 6, "one after the other they would take 12 s"


def test_refused_api_key_stops_the_run(
    serve: Serve, command: RunCommand, prompts: WritePrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    monkeypatch.setenv("KONTEXT_API_KEY", "wrong-key")
    ran = command("bulk", prompts(300), "--out", "out", "--max-in-flight", 2)
    assert ran.code == 3
    assert "wrong-key" not in ran.err
    (line,) = [line for line in ran.messages if "requests not submitted: " in line]
    assert int(line.split()[1]) > 200
    assert ran.messages[-1] == "To resume: kontext-async bulk p.txt --out out --max-in-flight 2"


def test_empty_balance_stops_the_run(serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts) -> None:
    emulator = serve(balance="0.10")
    ran = command("bulk", prompts(300), "--out", "out", "--max-in-flight", 2)
    assert ran.code == 3
    assert emulator.ledger.billed == 2
    assert len(image_names(tmp_path / "out")) == 2
    assert "2 done" in ran.err


def test_cost_limit_stops_the_run(serve: Serve, command: RunCommand, prompts: WritePrompts) -> None:
    emulator = serve()
    ran = command("bulk", prompts(30), "--out", "out", "--max-cost", "0.2")
    assert ran.code == 1
    reason = "0.20 USD is spent or in flight and the limit is 0.2 USD: no further requests are submitted"
    assert f"error: 25 requests not submitted: {reason}" in ran.err
    assert emulator.ledger.spent == Decimal("0.20")


def test_uncertain_requests_are_resubmitted_only_with_the_option(
    serve: Serve, command: RunCommand, prompts: WritePrompts
) -> None:
    emulator = serve()
    emulator.faults.script("create", ["cut-after-accept"])
    call = ("bulk", prompts(3), "--out", "out", "--max-in-flight", 1)
    for _ in range(2):
        ran = command(*call)
        assert ran.code == 4
        assert "uncertain: request 0 (fingerprint " in ran.err
        assert ran.err.count("the gateway may have accepted this request") == 1
        assert "1 request uncertain: the gateway may have accepted and billed" in ran.err
        assert "To resubmit, add --resend-uncertain; this may bill twice." in ran.err
    assert emulator.ledger.accepted == 3
    assert command(*call, "--resend-uncertain").code == 0
    assert emulator.ledger.accepted == 4


def test_failed_requests_are_resubmitted_only_with_the_option(
    serve: Serve, command: RunCommand, prompts: WritePrompts
) -> None:
    serve().faults.script("create", ["failed-at-once"])
    call = ("bulk", prompts(3), "--out", "out", "--max-in-flight", 1)
    assert command(*call).code == 1
    again = command(*call)
    assert again.code == 1
    assert "error: request 0: the task failed: generation failed" in again.err
    assert command(*call, "--retry-failed").code == 0


def test_dry_run_predicts_the_cost_and_submits_nothing(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = serve()
    call = ("bulk", prompts(30), "--out", "out")
    ran = command(*call, "--dry-run", "--max-cost", 1)
    assert (ran.code, ran.lines) == (0, ["30 requests", "30 to submit, about 1.20 USD"])
    assert "--max-cost 1 would stop this run: 0 USD already spent, about 1.20 USD to come" in ran.err
    assert not (tmp_path / "out").exists()
    monkeypatch.delenv("KONTEXT_API_KEY")
    assert command(*call, "--dry-run").lines[1] == "30 to submit, cost unknown"
    assert emulator.ledger.entries == ()


def test_dry_run_of_a_completed_run_ignores_the_cost_limit(
    serve: Serve, command: RunCommand, prompts: WritePrompts
) -> None:
    serve()
    call = ("bulk", prompts(3), "--out", "out")
    assert command(*call, "-q").code == 0
    ran = command(*call, "--dry-run", "--max-cost", "0.05")
    assert (ran.code, ran.lines[1], ran.err) == (0, "0 to submit, about 0 USD", "")


def test_report_regenerates_the_results_and_the_contact_sheet(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts
) -> None:
    serve()
    assert command("bulk", prompts(5), "--out", "out", "-q").code == 0
    results = (tmp_path / "out" / "results.jsonl").read_text()
    (tmp_path / "out" / "results.jsonl").write_text("{torn")
    (tmp_path / "out" / "index.html").unlink()
    ran = command("report", "out")
    assert (ran.code, ran.lines) == (0, ["out/index.html"])
    assert ran.err == "5 saved; 0.20 USD spent, 5 results\n"
    assert (tmp_path / "out" / "results.jsonl").read_text() == results
    (tmp_path / "out" / "results.jsonl").unlink()
    assert command("report", "out").code == 0
    assert (tmp_path / "out" / "results.jsonl").read_text() == results
    assert command("report", "nowhere").code == 2


def test_torn_results_are_completed_by_the_next_run(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts
) -> None:
    serve()
    call = ("bulk", prompts(5), "--out", "out", "-q")
    command(*call)
    path = tmp_path / "out" / "results.jsonl"
    whole = path.read_text()
    path.write_text(whole[: len(whole) - 700])
    assert command(*call).code == 0
    assert path.read_text() == whole


def test_all_invalid_lines_are_reported_before_anything_is_submitted(
    serve: Serve, command: RunCommand, tmp_path: Path
) -> None:
    emulator = serve()
    (tmp_path / "p.csv").write_text("prompt,aspect_ratio,input_image\na,1:1,\nb,5:1,\nc,,gone.png\n")
    ran = command("bulk", "p.csv", "--out", "out")
    assert ran.code == 2
    ratio_rule = "it must be W:H in whole numbers, between 21:9 and 9:21"
    file_rule = "the file must be readable: No such file or directory"
    assert ran.messages == [
        f"error: p.csv, line 3: aspect_ratio: '5:1' is not allowed; {ratio_rule}",
        f"error: p.csv, line 4: input_images[0]: '{tmp_path}/gone.png' is not allowed; {file_rule}",
        "Nothing was submitted or billed.",
    ]
    assert emulator.ledger.entries == ()
    assert not (tmp_path / "out").exists()


def test_list_of_invalid_lines_is_bounded(command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("7\n" * 1000)
    ran = command("bulk", "p.jsonl", "--out", "out", "-q")
    assert ran.code == 2
    assert len(ran.messages) == 21
    assert ran.messages[-1] == "error: too many invalid lines: the rest of p.jsonl was not checked"


def test_file_without_requests_is_a_usage_error(command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n")
    ran = command("bulk", "p.txt", "--out", "out", "-q")
    assert (ran.code, ran.err) == (2, "error: p.txt contains no requests\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-cost", "much"], "--max-cost much: it must be a number of USD"),
        (["--max-cost", "-1"], "max_cost must be"),
        (["--grace", "-1"], "--grace: it must be a duration"),
        (["--outage-timeout", "0s"], "outage_timeout must be a number of seconds above 0"),
        (["--filename-template", "{nonsense}"], "'nonsense'"),
        (["--store", "nonsense:", "--run", "night"], "store: its URL must begin with"),
    ],
)
def test_invalid_option_of_bulk_is_reported_before_anything_is_submitted(
    serve: Serve, command: RunCommand, prompts: WritePrompts, options: list[str], words: str
) -> None:
    emulator = serve()
    ran = command("bulk", prompts(3), "--out", "out", "-q", *options)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert emulator.ledger.entries == ()


def test_journal_of_a_newer_version_is_refused(
    serve: Serve, command: RunCommand, prompts: WritePrompts, tmp_path: Path
) -> None:
    serve()
    call = ("bulk", prompts(3), "--out", "out", "-q")
    command(*call)
    with closing(sqlite3.connect(tmp_path / "out" / "journal.sqlite")) as connection, connection:
        connection.execute("UPDATE kontext_meta SET value = '3' WHERE name = 'version'")
    ran = command(*call)
    assert ran.code == 2
    assert "newer version" in ran.err


def test_private_emulator_is_another_gateway_for_the_tasks_of_an_earlier_one(
    command: RunCommand, tmp_path: Path, prompts: WritePrompts
) -> None:
    call = ("bulk", prompts(3), "--out", "out", "--emulator")
    assert command(*call).code == 0
    assert "3 already saved" in command(*call).err
    (tmp_path / "out" / "000001-fox-1.jpg").unlink()
    command(*call)
    ran = command(*call, "--retry-failed")
    assert ran.code == 1
    assert "the request is paid by the account" in ran.err
    assert "ledger: 0 accepted" in ran.err

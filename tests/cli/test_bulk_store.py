"""`bulk` and `report` with a store that several workers share: its URL and password, and one run in two directories."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli_support import image_names

from kontext_async.cli.passwords import contains_password, hide_passwords

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import RunCommand, Serve, WritePrompts

STORE = ("--store", "sqlite:///paid.db", "--run", "night")


def test_a_second_worker_pays_for_nothing_that_the_first_one_has(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts
) -> None:
    emulator = serve()
    call = ("bulk", prompts(5), *STORE, "-q")
    assert command(*call, "--out", "a").code == 0
    again = command(*call[:-1], "--out", "b")
    assert again.code == 0
    assert "from earlier runs: 5 already saved" in again.err
    assert emulator.ledger.accepted == 5
    assert (len(image_names(tmp_path / "a")), image_names(tmp_path / "b")) == (5, [])
    assert (tmp_path / "b" / "results.jsonl").read_text() == ""


def test_a_dry_run_from_a_fresh_directory_knows_what_is_paid_for(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts
) -> None:
    serve()
    call = ("bulk", prompts(5), *STORE)
    assert command(*call, "--out", "a", "-q").code == 0
    ran = command(*call, "--out", "b", "--dry-run")
    assert ran.lines == [
        "5 requests",
        "0 to submit, about 0 USD",
        "5 already completed; skipped",
        "0.20 USD spent by earlier runs",
    ]
    assert not (tmp_path / "b").exists()


def test_the_report_has_the_requests_of_all_workers(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts
) -> None:
    serve()
    assert command("bulk", prompts(2), *STORE, "--out", "a", "-q").code == 0
    assert command("bulk", prompts(5), *STORE, "--out", "b", "-q").code == 0
    ran = command("report", "all", *STORE)
    assert (ran.code, ran.lines) == (0, ["all/index.html"])
    assert ran.err == "5 saved; 0.20 USD spent, 5 results\n"
    lines = map(json.loads, (tmp_path / "all" / "results.jsonl").read_text().splitlines())
    assert [line["folder"] for line in lines] == [str(tmp_path / "a")] * 2 + [str(tmp_path / "b")] * 3
    assert "../b/000003-fox-3.jpg" in (tmp_path / "all" / "index.html").read_text()


def test_the_url_of_the_store_comes_from_the_environment_or_a_file(
    serve: Serve, command: RunCommand, tmp_path: Path, prompts: WritePrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = serve()
    call = ("bulk", prompts(3), "--run", "night", "-q")
    monkeypatch.setenv("KONTEXT_STORE", f"sqlite:///{tmp_path}/paid.db")
    assert command(*call, "--out", "a").code == 0
    assert command("report", "a", "-q").code == 0, "the directory knows the name of its run"
    monkeypatch.delenv("KONTEXT_STORE")
    (tmp_path / "store").write_text(f"sqlite:///{tmp_path}/paid.db\n")
    assert command(*call, "--out", "b", "--store-file", "store").code == 0
    assert emulator.ledger.accepted == 3
    assert not (tmp_path / "a" / "journal.sqlite").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--store", "postgresql://me:hidden@db/paid"], "--store contains a password"),
        (["--store", "postgresql://db/paid?password=hidden"], "--store contains a password"),
        (["--store", "sqlite:///paid.db", "--store-file", "store"], "cannot be combined"),
        (["--store-file", "gone"], "the store file gone cannot be read"),
        (["--run", "night"], "--run night needs a store"),
        (["--store", "sqlite:///paid.db"], "give the run a name"),
        (["--store", "nonsense://db/paid", "--run", "night"], "its URL must begin with sqlite:/// or postgresql://"),
        (["--store", "sqlite:///paid.db", "--run", "two\nlines"], "printable"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_an_unusable_store_is_refused_before_anything_is_submitted(
    serve: Serve, command: RunCommand, prompts: WritePrompts, options: list[str], words: str, more: list[str]
) -> None:
    emulator = serve()
    ran = command("bulk", prompts(3), "--out", "out", *options, *more)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert "hidden" not in ran.err
    assert emulator.ledger.entries == ()


def test_a_directory_with_a_run_of_its_own_is_not_continued_in_another_store(
    serve: Serve, command: RunCommand, prompts: WritePrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = serve()
    call = ("bulk", prompts(3), "--out", "out", "-q")
    assert command(*call).code == 0
    monkeypatch.setenv("KONTEXT_STORE", "sqlite:///paid.db")
    ran = command(*call, "--run", "night")
    assert ran.code == 2
    assert "out belongs to another store; nothing was submitted" in ran.err
    monkeypatch.delenv("KONTEXT_STORE")
    assert command(*call).code == 0
    assert emulator.ledger.accepted == 3


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://db/paid", False),
        ("postgresql://me@db/paid", False),
        ("postgresql://me:hidden@db/paid", True),
        ("postgresql://me:hid/den@db/paid", True),
        ("postgresql://me:hid?den@db,db2/paid", True),
        ("postgresql://db:5432/paid", False),
        ("postgresql:///paid?host=/run/postgresql&PassWord=hidden", True),
        ("postgresql://db/paid?passfile=/home/me/.pgpass", False),
        ("sqlite:////srv/me:x@y/paid.db", False),
    ],
)
def test_a_password_in_the_url_of_a_store_is_recognized(url: str, *, found: bool) -> None:
    assert contains_password(url) is found


def test_passwords_are_hidden_in_what_is_printed() -> None:
    shown = hide_passwords("postgresql://me:hid@den@db/paid?sslmode=require&password=hidden&x=y")
    assert shown == "postgresql://***@db/paid?sslmode=require&password=***&x=y"
    assert hide_passwords("https://host/fox@2x.png") == "https://host/fox@2x.png"

"""Texts on their way to a terminal."""

from __future__ import annotations

from kontext_async.cli.output import count_of, to_one_line


def test_foreign_text_becomes_one_printable_line() -> None:
    assert to_one_line("a\x1b[2Jb\r\n\tc  d") == "a [2Jb c d"


def test_nouns_follow_their_number() -> None:
    assert [count_of(number, "task") for number in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]

"""The texts of options: paths, durations and pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_async.cli.values import to_duration, to_pairs, to_path


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("0", 0),
        ("2.5", 2.5),
        ("30s", 30),
        ("250ms", 0.25),
        ("30m", 1800),
        ("30min", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1H 30M", 5400),
        ("1d", 86400),
        (" .5s ", 0.5),
    ],
)
def test_durations_are_seconds_or_have_units(text: str, seconds: float) -> None:
    assert to_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "-1", "-1s", "s", "1x", "1h,30m", "inf", "nan", "1e999", "30s30", "٣s"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="it must be a duration such as 30s"):
        to_duration(text)


def test_paths_may_begin_with_a_tilde_or_be_file_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/fox")
    assert to_path("a b.png") == Path("a b.png")
    assert to_path("~/a.png") == Path("/home/fox/a.png")
    assert to_path("~") == Path("/home/fox")
    assert to_path("a/~") == Path("a/~")
    assert to_path("file:///images/a%20b.png") == Path("/images/a b.png")
    assert to_path("FILE://localhost/images/a.png") == Path("/images/a.png")
    assert to_path("file:/images/a.png") == Path("/images/a.png")
    assert to_path("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file://elsewhere/a.png", "must name a file on this computer"),
        ("file://", "must name a file"),
        ("file:///a%00b", "must name a file"),
        ("", "it must be a path"),
    ],
)
def test_other_texts_are_no_paths(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_path(text)


def test_pairs_are_split_at_the_first_sign() -> None:
    assert to_pairs(["run=7", "note=a=b", "empty="]) == {"run": "7", "note": "a=b", "empty": ""}


@pytest.mark.parametrize(("texts", "words"), [(["run"], "KEY=VALUE"), (["=7"], "KEY=VALUE"), (["a=1", "a=2"], "twice")])
def test_other_texts_are_no_pairs(texts: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_pairs(texts)

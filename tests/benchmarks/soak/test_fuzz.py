"""The targets of the fuzzer, on their seeds and on some random bytes; `benchmarks.soak.fuzz` gives them more time."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st

from benchmarks.soak import fuzz
from benchmarks.soak.fuzz_targets import KEY, KEY_FORMS, TARGETS, Finding, check_texts, insert_key
from kontext_async import KontextError

FAST_TARGETS = ("responses", "gateways", "references", "estimates", "refusals", "image_heads")


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_every_target_cause_no_finding(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FAST_TARGETS),
    st.lists(st.sampled_from([*KEY_FORMS, b'{"error":"', b'"}', b"\\", b"%"]) | st.binary()),
)
def test_random_bytes_cause_no_finding(name: str, pieces: list[bytes]) -> None:
    TARGETS[name].run(b"".join(pieces))


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"a {KEY} b",
        quote(KEY, safe=""),
        quote(quote(KEY, safe=""), safe=""),
        "".join(f"\\u{ord(letter):04x}" for letter in KEY),
        html.escape(KEY) + "".join(f"&#{ord(letter)};" for letter in KEY),
    ],
)
def test_the_key_is_found_in_every_form(text: str) -> None:
    with pytest.raises(Finding):
        check_texts(text)
    error = KontextError("failed")
    error.__cause__ = ValueError(text)
    with pytest.raises(Finding):
        check_texts(error)


def test_texts_without_the_key_are_no_finding() -> None:
    check_texts(KontextError("failed ***"))
    assert KEY.encode() in insert_key(b"a KEY0 b")


def test_the_names_of_the_command_are_those_of_the_targets() -> None:
    assert set(fuzz.NAMES) == set(TARGETS)


def test_the_command_says_that_the_fuzzer_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "find_spec", lambda name: None)
    assert fuzz.main(["--target", "responses"]) == 2
    assert "pip install" in capsys.readouterr().out


def test_the_emulator_alone_needs_no_fuzzer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "find_spec", lambda name: None)
    assert fuzz.main(["--target", "emulator", "--requests", "50"]) == 0
    assert "50 requests" in capsys.readouterr().out


def test_a_target_is_fuzzed_for_a_second() -> None:
    pytest.importorskip("atheris")
    result = fuzz.fuzz("image_heads", 1)
    assert result.passed
    assert result.runs > 100
    assert json.loads(json.dumps(result.findings)) == []


def test_a_finding_is_described_with_its_place_and_its_input() -> None:
    finding = {"place": "ValueError at protocol/x.py:1", "error": "ValueError()", "input": "b'x'"}
    result = fuzz.FuzzResult(target="responses", runs=3, findings=[finding], crash="exit code 77")
    lines = "\n".join(fuzz.describe_result(result))
    assert lines.startswith("FAIL responses: 3 inputs")
    for text in (*finding.values(), "exit code 77"):
        assert text in lines
    with pytest.raises(ValueError, match="x") as caught:
        raise ValueError("x")
    assert fuzz.describe_place(caught.value).startswith("ValueError at ")

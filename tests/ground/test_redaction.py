"""Functions that make foreign values safe to show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kontext_async.redaction import TRUNCATED_LENGTH, safe_repr, strip_query, truncate, truncate_body

BASE64 = "iVBORw0KGgoAAAANSUhEUgAA" * 20
LONG_RUN = re.compile(r"[A-Za-z0-9+/=_-]{120,}")


@given(st.text(), st.integers(1, 50))
def test_truncate_never_exceeds_its_limit(text: str, limit: int) -> None:
    assert len(truncate(text, limit)) <= limit


@given(st.text(max_size=40), st.text(max_size=40))
def test_truncate_cuts_out_payloads(before: str, after: str) -> None:
    assert not LONG_RUN.search(truncate(before + BASE64 + after))


def test_truncate_returns_a_short_text_unchanged() -> None:
    assert truncate("no such model") == "no such model"


def test_truncate_marks_a_cut_text() -> None:
    assert truncate("word " * 1000).endswith("…")
    assert len(truncate("word " * 1000)) == TRUNCATED_LENGTH


def test_truncate_uses_the_repr_of_any_other_value() -> None:
    assert truncate({"a": 1}) == "{'a': 1}"


def test_truncate_body_returns_one_line() -> None:
    assert truncate_body(b"<html>\n  <body>Bad\tGateway") == "<html> <body>Bad Gateway"


@given(st.binary(max_size=5000))
def test_truncate_body_accepts_any_bytes(body: bytes) -> None:
    shown = truncate_body(body)
    assert len(shown) <= TRUNCATED_LENGTH
    assert not LONG_RUN.search(shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\xff\xd8secret", "<bytes, 8 bytes>"),
        (bytearray(b"secret"), "<bytearray, 6 bytes>"),
        (memoryview(b"secret!!").cast("I"), "<memoryview, 8 bytes>"),
        ("data:image/png;base64,c2VjcmV0", "<data URI, 30 characters>"),
        (" DATA:image/png;base64,c2VjcmV0", "<data URI, 31 characters>"),
        ("https://user:password@host/a.png?signature=secret#part", "'https://host/a.png'"),
        (" HTTP://host/a.png?signature=secret", "'http://host/a.png'"),
        ("16:10", "'16:10'"),
        (7, "7"),
        (None, "None"),
        ((16, 9), "(16, 9)"),
        (["a", b"secret"], "['a', <bytes, 6 bytes>]"),
        ({"image": b"secret"}, "{'image': <bytes, 6 bytes>}"),
        (["https://host/a?signature=secret"], "['https://host/a']"),
        (Path("fox.jpg"), repr(Path("fox.jpg"))),
    ],
)
def test_safe_repr_shows_only_harmless_parts_of_a_value(value: object, shown: str) -> None:
    assert safe_repr(value) == shown


def test_safe_repr_shows_the_size_of_a_huge_integer() -> None:
    assert safe_repr(10**5000) == "<int, 16610 bits>"


def test_safe_repr_accepts_a_released_memoryview() -> None:
    view = memoryview(b"gone")
    view.release()
    assert safe_repr(view) == "<memoryview, released>"


def test_safe_repr_replaces_a_repr_that_raises() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("broken repr")

    assert "Broken" in safe_repr(Broken())


def test_safe_repr_accepts_a_list_that_contains_itself() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert len(safe_repr(endless)) <= 120


@given(
    st.recursive(
        st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.none(), st.just(f"data:,{BASE64}")),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        max_leaves=10,
    )
)
def test_safe_repr_bounds_any_value(value: object) -> None:
    shown = safe_repr(value)
    assert len(shown) <= 120
    assert not LONG_RUN.search(shown)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://cdn.example/out.jpg?sig=x", "https://cdn.example/out.jpg"),
        ("https://key@cdn.example:8443/out.jpg#x", "https://cdn.example:8443/out.jpg"),
        ("https://[::1", "<an unreadable URL>"),
        ("data:image/png;base64,AAAA", "<data URI, 26 characters>"),
    ],
)
def test_strip_query_removes_everything_that_may_be_secret(url: str, shown: str) -> None:
    assert strip_query(url) == shown


@given(st.text())
def test_strip_query_accepts_any_text(text: str) -> None:
    assert isinstance(strip_query(text), str)

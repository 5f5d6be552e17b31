"""Functions that make foreign values safe to show."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from kontext_async.redaction import (
    TRUNCATED_LENGTH,
    clean_text,
    clean_url,
    contains_secret,
    safe_repr,
    strip_query,
    truncate,
    truncate_body,
)

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


KEY = "sk-0123456789abcdef/+=x"
ECHOES = {
    "as it is": KEY,
    "percent-encoded": quote(KEY),
    "percent-encoded in full": "".join(f"%{ord(each):02X}" for each in KEY),
    "percent-encoded in lower case": quote(KEY, safe="").lower(),
    "percent-encoded twice": quote(quote(KEY, safe=""), safe=""),
    "JSON-escaped": json.dumps(KEY).strip('"').replace("/", "\\/"),
    "JSON-escaped in full": "".join(f"\\u{ord(each):04x}" for each in KEY),
    "JSON-escaped twice": json.dumps("".join(f"\\u{ord(each):04X}" for each in KEY)).strip('"'),
    "hexadecimal escapes": "".join(f"\\x{ord(each):02x}" for each in KEY),
    "HTML entities": "".join(f"&#{ord(each)};" for each in KEY),
    "HTML entities in hexadecimal": "".join(f"&#x{ord(each):x};" for each in KEY),
    "HTML-escaped": html.escape(KEY),
    "as bytes": repr(KEY.encode()),
    "with zero bytes, like UTF-16": "\0".join(KEY),
    "with zero-width blanks": "\u200b".join(KEY),
    "folded": KEY[:9] + "\r\n" + KEY[9:],
    "cut": KEY[:12],
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("Bearer ", " is wrong"), ("x", "y"), ("%", "\\"), ("é", "🦊")]
)
def test_clean_text_replaces_the_secret_in_every_form(echo: str, before: str, after: str) -> None:
    cleaned = clean_text(before + echo + after, KEY)
    assert "***" in cleaned
    assert not any(piece in cleaned.lower() for piece in ("0123", "cdef", "s\\x00k", "73", "66"))


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_clean_url_replaces_the_secret_in_every_form(echo: str) -> None:
    assert "0123" not in clean_url(f"https://cdn/{echo}/a.png", KEY)


def test_clean_text_replaces_every_echo() -> None:
    assert clean_text(f"{KEY} {KEY}{KEY}", KEY) == "*** ******"


@pytest.mark.parametrize("length", range(4, len(KEY)))
def test_a_piece_of_the_secret_at_the_end_of_a_cut_text_is_replaced(length: int) -> None:
    assert clean_text("Bearer " + KEY[:length], KEY, is_cut=True) == "Bearer ***"


def test_a_short_secret_is_replaced_as_a_word() -> None:
    assert clean_text("key k-1, r-k-1; ok-12 k-10", "k-1") == "key ***, r-***; ok-12 k-10"


@pytest.mark.parametrize("text", ["", "sk-", "a fox in snow", "50 % off", "C:\\sk", "Füchslein 🦊", "sk-01234"[:7]])
def test_clean_text_leaves_an_ordinary_text_unchanged(text: str) -> None:
    assert clean_text(text, KEY) is text
    assert not contains_secret(text, KEY)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\0b\x7fc\x9bd\x85e", "a\\x00b\\x7fc\\x9bd\\x85e"),
        ("a\nb\r\nc\td\re", "a b c d e"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u200bb\ufeffc\u2066d", "a\\u200bb\\ufeffc\\u2066d"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("a\ud800b", "a\\ud800b"),
        ("\U000e0041", "\\U000e0041"),
        ("x\u200dy", "x\\u200dy"),
        ("\u200d\u200d", "\\u200d\\u200d"),
    ],
)
def test_clean_text_makes_invisible_characters_visible(text: str, shown: str) -> None:
    assert clean_text(text) == shown


@pytest.mark.parametrize("text", ["naïve café", "狐狸 在 雪", "🦊❤️👩‍👩‍👧‍👦🏳️‍🌈👋🏽", "نمی‌خواهم", "क्‍ष", "a\u0301"])
def test_clean_text_keeps_letters_accents_and_emoji(text: str) -> None:
    assert clean_text(text, KEY) == text


@given(st.text())
def test_cleaned_text_is_one_visible_line_and_stays_so(text: str) -> None:
    cleaned = clean_text(text, KEY)
    hidden = [each for each in cleaned if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert set(hidden) <= {"\u200c", "\u200d"}
    assert len(cleaned.splitlines()) <= 1
    assert clean_text(cleaned, KEY) == cleaned
    cleaned.encode()


@given(st.text(), st.text(), st.sampled_from(sorted(ECHOES.values())))
def test_no_text_around_it_hides_the_secret(before: str, after: str, echo: str) -> None:
    assert KEY[:12] not in clean_text(before + echo + after, KEY)


def test_clean_url_quotes_what_cannot_be_seen_and_nothing_else() -> None:
    url = "https://cdn/a%2Fb.png?sig=a%2Fb%2Bc%3D&x=%7E&y=é|{}"
    assert clean_url(url, KEY) is url
    assert clean_url("https://cdn/a\u200b\n\x1b.png") == "https://cdn/a%E2%80%8B%0A%1B.png"
    assert clean_url("https://cdn/\ud800.png") == "https://cdn/%3F.png"


def test_truncate_shows_invisible_characters() -> None:
    assert truncate("a\x1b[1m\nb") == "a\\x1b[1m b"
    assert truncate_body(b"\x1b[1m\n\xe2\x80\xaeb") == "\\x1b[1m \\u202eb"

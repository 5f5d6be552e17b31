"""Responses whose end is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kontext_async.protocol.framing import find_response, is_whole, read_cut_object


@pytest.mark.parametrize("body", [b'{"id": "x"}', b' {"id": "x"} \r\n', b"{}"])
def test_a_complete_object_is_a_whole_response(body: bytes) -> None:
    assert is_whole(200, body)


@pytest.mark.parametrize("body", [b"", b'{"id": "x"', b'{"id": "x}', b"[]", b'["}"]', b'"}', b"{" * 100_000 + b"}"])
def test_a_success_that_is_cut_is_not_whole(body: bytes) -> None:
    assert not is_whole(200, body)


@pytest.mark.parametrize("status", [302, 403, 429, 503])
def test_the_status_of_a_refusal_says_enough(status: int) -> None:
    assert is_whole(status, b"<html><bo")


@pytest.mark.parametrize(
    ("received", "found"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{"id": "x"}', (200, b'{"id": "x"}')),
        (b'HTTP/1.1 200 OK\r\nA\r\n\r\nb\r\n{"id": "x"}\r\nZZ\r\n', (200, b'{"id": "x"}')),
        (b'HTTP/1.0 504 Slow\r\n\r\n{"id": "x"}{"id": "y"}', (504, b'{"id": "x"}')),
        (b"HTTP/1.1 429 Too Many\r\nA\r\n\r\n<html>", (429, b"")),
        (b'HTTP/1.1 200 OK\r\nA\r\n\r\n{"id": "x"', None),
        (b"HTTP/1.1 200 OK\r\nA\r\n\r\n[1]", None),
        (b'HTTP/1.1 200 OK\r\nX: {"id": "x"}\r\n', None),
        (b'POST / HTTP/1.1\r\n\r\n{"id": "x"}', None),
        (b"", None),
    ],
)
def test_a_response_is_found_in_bytes_that_a_parser_refused(received: bytes, found: tuple[int, bytes] | None) -> None:
    assert find_response(received) == found


@pytest.mark.parametrize(
    ("body", "members"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[1, 2", {}),
        (b'"id": "x"', {}),
        (b'{"id": "x', {}),
        (b'{"id": "x"', {"id": "x"}),
        (b'{"id": "x",', {"id": "x"}),
        (b' { "id" : "x" , "n" : 4 , "url": "https://a', {"id": "x", "n": 4}),
        (b'{"id": "x", "n": 4', {"id": "x"}),
        (b'{"n": 4, "id"', {"n": 4}),
        (b'{"a": {"id": "y"}, "id": "x", "b": [1,', {"a": {"id": "y"}, "id": "x"}),
        (b'{"a": {"id": "y"', {}),
        (b'{"id": "x"}', {"id": "x"}),
        (b'{"id": "x"} "id": "y", "n": 4, ', {"id": "x"}),
        (b'{"id": "x" "id": "y"', {"id": "x"}),
        (b'{"a-b": 1, "id": "x", ', {"a-b": 1, "id": "x"}),
        (b'{"id": "a\\u0062", ', {"id": "ab"}),
        (b'{"id": "x\xff", ', {"id": "x\ufffd"}),
        (b'{"id": ' + b"[" * 100_000, {}),
    ],
)
def test_the_members_before_a_cut_are_read(body: bytes, members: dict[str, Any]) -> None:
    assert read_cut_object(body) == members


@given(st.dictionaries(st.text("abc_", min_size=1), st.text() | st.integers() | st.lists(st.none()), max_size=4))
def test_no_cut_changes_a_member(content: dict[str, Any]) -> None:
    whole = json.dumps(content).encode()
    for end in range(len(whole)):
        members = read_cut_object(whole[:end])
        assert members.items() <= content.items()

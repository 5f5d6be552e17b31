"""Data URIs, decoded piece by piece."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, strategies as st
from source_support import NAME, PNG, catch_check_error, load_and_close, make_data_uri

from kontext_async.images import MAX_IMAGE_BYTES, check
from kontext_async.images.data_uris import Base64Payload, decode_payload, decode_start, is_data_uri, parse_data_uri


@given(st.binary(min_size=1, max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_a_base64_payload_returns_any_slice_of_its_bytes(data: bytes, offset: int, length: int) -> None:
    payload = parse_data_uri(make_data_uri(data))
    assert isinstance(payload, Base64Payload)
    assert payload.size == len(data)
    assert payload.read_at(min(offset, len(data)), length) == data[offset : offset + length]


@given(st.binary(max_size=40))
def test_a_percent_encoded_payload_is_decoded_at_once(data: bytes) -> None:
    assert parse_data_uri("data:image/png," + quote_from_bytes(data)) == data


PAYLOAD = PNG + bytes(range(256)) * 3
STANDARD = base64.b64encode(PAYLOAD).decode()
LINES = base64.encodebytes(PAYLOAD).decode()


@pytest.mark.parametrize(
    "uri",
    [
        f"data:image/png;base64,{STANDARD}",
        f"DATA:IMAGE/PNG;BASE64,{STANDARD}",
        f" \r\n\tdata:image/png;base64,{STANDARD}\n",
        f"data:;base64,{STANDARD}",
        f"data:image/png;charset=utf-8;base64,{STANDARD}",
        f"data:image/png; base64 ,{STANDARD}",
        f"data:image/png;base64;charset=utf-8,{STANDARD}",
        f"data:image/png;name=a%2Cb.png;base64,{STANDARD}",
        f"data:text/html;base64,{STANDARD}",
        f"data:image/png;base64, {STANDARD}",
        f"data:image/png;base64,{LINES}",
        "data:image/png;base64," + LINES.replace("\n", "\r\n"),
        "data:image/png;base64," + LINES.replace("\n", "%0A"),
        "data:image/png;base64," + " ".join(STANDARD),
        "data:image/png;base64," + STANDARD.rstrip("="),
        "data:image/png;base64," + STANDARD.replace("=", "%3D").replace("+", "%2b").replace("/", "%2F"),
        "data:image/png;base64," + STANDARD.replace("+", "-").replace("/", "_"),
        "data:image/png;base64," + quote_from_bytes(STANDARD.encode(), safe=""),
        "data:image/png," + quote_from_bytes(PAYLOAD),
        "data:," + quote_from_bytes(PAYLOAD, safe="/;,=+"),
        "data:image/png;charset=utf-8," + "".join(f"%{byte:02x}" for byte in PAYLOAD),
    ],
    ids=lambda uri: repr(uri[:48]),
)
def test_every_way_to_write_a_data_uri_gives_the_same_bytes(uri: str) -> None:
    check(uri, NAME)
    assert load_and_close(uri).read() == PAYLOAD
    for length in range(len(uri)):
        assert PAYLOAD.startswith(decode_start(uri, length))
    assert decode_start(uri, len(uri)) == PAYLOAD


@given(st.text("data:,;base64%=+/-_ \n\u00e4\ud800", max_size=40), st.integers(0, 50))
def test_any_text_is_a_data_uri_or_a_value_error(text: str, length: int) -> None:
    uri = "data:" + text
    for read in (parse_data_uri, lambda each: decode_start(each, length)):
        with suppress(ValueError):
            read(uri)


def test_a_large_data_uri_with_line_ends_is_checked_by_its_start() -> None:
    lines = base64.encodebytes(PNG.ljust(3_000_000, b"\0")).decode()
    check(f"data:;base64,{lines}", NAME)
    error = catch_check_error(f"data:;base64,QUJD{lines}")
    assert "it must hold an image" in error.rule
    assert "QUJD" not in str(error)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes])
def test_a_data_uri_with_too_many_bytes_is_refused_when_the_request_is_made(encode: Any) -> None:
    largest = PNG.ljust(MAX_IMAGE_BYTES, b"\0")
    check("data:;base64," + encode(largest).decode(), NAME)
    assert "at most" in catch_check_error("data:;base64," + encode(largest + b"\0").decode()).rule


@given(st.binary(max_size=40))
def test_decode_payload_returns_all_bytes(data: bytes) -> None:
    assert decode_payload(parse_data_uri(make_data_uri(data))) == data


def test_data_after_the_padding_is_invalid() -> None:
    payload = parse_data_uri("data:;base64,QQ==QUJDQUJD")
    with pytest.raises(ValueError, match="base64 is invalid"):
        decode_payload(payload)


def test_the_repr_of_a_payload_hides_the_data() -> None:
    assert "QUJD" not in repr(parse_data_uri("data:;base64,QUJDQUJD"))


@pytest.mark.parametrize(("text", "expected"), [("data:,a", True), ("DATA:,a", True), ("fox.jpg", False), ("", False)])
def test_is_data_uri_looks_at_the_scheme(text: str, expected: bool) -> None:  # noqa: FBT001 # a parameter
    assert is_data_uri(text) is expected

"""Data URIs, decoded piece by piece."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, strategies as st
from source_support import make_data_uri

from kontext_async.images.data_uris import Base64Payload, decode_payload, is_data_uri, parse_data_uri


@given(st.binary(min_size=1, max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_a_base64_payload_returns_any_slice_of_its_bytes(data: bytes, offset: int, length: int) -> None:
    payload = parse_data_uri(make_data_uri(data))
    assert isinstance(payload, Base64Payload)
    assert payload.size == len(data)
    assert payload.read_at(min(offset, len(data)), length) == data[offset : offset + length]


@given(st.binary(max_size=40))
def test_a_percent_encoded_payload_is_decoded_at_once(data: bytes) -> None:
    assert parse_data_uri("data:image/png," + quote_from_bytes(data)) == data


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

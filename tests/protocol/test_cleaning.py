"""Response bodies without the key and without invisible characters."""

from __future__ import annotations

import contextlib
import json
import sys
import timeit
import unicodedata
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from gateways_support import new_gateway
from hypothesis import example, given, strategies as st
from response_support import ID, encode_response

from benchmarks.support.measure import run_interleaved
from kontext_async.errors import GatewayError, KontextError
from kontext_async.gateways.vtrix_tasks import read_created, read_poll, read_status
from kontext_async.protocol import clean_body, error_from_response
from kontext_async.protocol.cleaning import MAX_DEPTH, TEXT_BYTES
from kontext_async.protocol.http import Response

KEY = "sk-0123456789abcdefghij"
PIECE = KEY[:8]


@pytest.mark.parametrize(
    "body",
    [
        encode_response(status="in_progress", progress=0.42),
        encode_response(status="completed", output=[{"content": [{"url": "https://cdn/a%2Fb.png?x=%7E&y=1"}]}]),
        b'{"id": "t1", "status": "in_progress"}\n',
        b'{\r\n\t"id": "t1"\r\n}',
        b"{}",
        b"",
    ],
)
def test_a_clean_body_is_returned_as_it_is(body: bytes) -> None:
    assert clean_body(body, KEY) is body


@pytest.mark.parametrize(
    "prompt", ["ein Füchslein 🦊", "👩‍👩‍👧 in snow", "50 % & more", 'a "quoted" \\ word', "https", "نمی‌خواهم"]
)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_clean_body_keeps_its_meaning(prompt: str, is_ascii: bool) -> None:  # noqa: FBT001 # a parameter
    document = {"id": "t1", "metadata": {"prompt": prompt, prompt: [1, 0.1, None, True, -(2**63), 1.5e300, ""]}}
    assert json.loads(clean_body(json.dumps(document, ensure_ascii=is_ascii).encode(), KEY)) == document


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn/a%2Fb.png?sig=a%2Fb%2Bc%3D&x=%7E",
        "https://cdn/ä/🦊.png",
        "http://[::1]/a|b{c}?q=a b",
        "https://h/\\a",
    ],
)
def test_a_url_stays_as_it_is(url: str) -> None:
    body = encode_response(status="completed", output=[{"content": [{"url": url}]}], message="\x1b")
    assert read_status(clean_body(body, KEY), ID).images[0].url == url


def test_every_string_and_every_key_is_cleaned() -> None:
    document = {"id": "t1", f"a {KEY}": [{"b\x1b": f"{KEY}\x07"}, [KEY]], "url": f"https://cdn/{KEY}.png?\u202e"}
    assert json.loads(clean_body(json.dumps(document).encode(), KEY)) == {
        "id": "t1",
        "a ***": [{"b\\x1b": "***\\x07"}, ["***"]],
        "url": "https://cdn/***.png?%E2%80%AE",
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_body_in_any_unicode_encoding_is_cleaned(encoding: str) -> None:
    body = json.dumps({"id": "t1", "message": f"{KEY} é\x1b"}, ensure_ascii=False).encode(encoding)
    assert json.loads(clean_body(body, KEY)) == {"id": "t1", "message": "*** é\\x1b"}


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b'{"id": "t1", "message": "a\x1b[1m\nb"}', {"id": "t1", "message": "a\\x1b[1m b"}),
        (b'{"id": "t1", "message": "caf\xe9"}', {"id": "t1", "message": "caf\ufffd"}),
        (b'{"id": "t1", "message": "\\ud800"}', {"id": "t1", "message": "\\ud800"}),
        (b'{"id": "t1", "message": "\\u001b", "seed": 123456789012345678901234567890, "x": "\\udfff"}', None),
    ],
)
def test_a_body_that_is_nearly_json_is_read(body: bytes, document: Any) -> None:
    cleaned = json.loads(clean_body(body, KEY))
    assert cleaned["id"] == "t1"
    assert document is None or cleaned == document


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (f"<p>{KEY}</p>\n".encode(), "<p>***</p> "),
        (f"<p>{quote(KEY)} \x1b".encode(), "<p>*** \\x1b"),
        (b"HTTP/1.1 200 OK\r\nAuthorization: Bearer " + KEY[:5].encode(), "HTTP/1.1 200 OK Authorization: Bearer ***"),
        (f'{{"message": "{KEY[:11]}'.encode(), '{"message": "***'),
        (b"\xff\xfe\x00", "\ufffd"),
    ],
)
def test_the_text_of_a_body_that_is_not_json_is_cleaned(body: bytes, text: str) -> None:
    assert clean_body(body, KEY).decode() == text


def test_only_the_start_of_a_text_is_kept() -> None:
    assert len(clean_body(b"<p>\xc3\xa9" * 1_000_000, KEY)) <= 2 * TEXT_BYTES


@pytest.mark.parametrize("depth", [10, MAX_DEPTH, 1000, 1023, 1025, 5000, 100_000])
def test_a_deeply_nested_body_is_cleaned(depth: int) -> None:
    nested = b'{"id": "t1", "a": ' + b'{"a": ' * depth + f'"{KEY}\\u001b"'.encode() + b"}" * depth + b"}"
    cleaned = clean_body(nested, KEY)
    assert PIECE.encode() not in cleaned
    with contextlib.suppress(GatewayError):
        assert "\x1b" not in repr(read_status(cleaned, "t1"))
    with contextlib.suppress(ValueError):
        assert b"\\u001b" not in json.dumps(json.loads(cleaned)).encode()


def compare_cleaning_with_parsing(body: bytes, number: int, repeat: int) -> float:
    """Return the time of `clean_body` as a multiple of that of `json.loads`, by turns: other processes run, too."""
    parse = partial(timeit.timeit, lambda: json.loads(body), number=number)
    clean = partial(timeit.timeit, lambda: clean_body(body, KEY), number=number)
    seconds = run_interleaved({"parse": parse, "clean": clean}, repeat)
    return min(seconds["clean"]) / min(seconds["parse"])


def test_a_large_body_is_cut_so_that_cleaning_it_takes_a_moment() -> None:
    body = json.dumps(
        {"id": "t1", "x": ["é\x1b"] * 200_000, "y": {str(n): [[n]] for n in range(9000)}, "z": 1}
    ).encode()
    assert compare_cleaning_with_parsing(body, number=1, repeat=9) < 3
    assert len(json.loads(clean_body(body, KEY))["x"]) < 1000


def test_a_clean_body_costs_less_than_parsing_it() -> None:
    body = encode_response(status="in_progress", progress=0.42, model="flux_kontext_pro", metadata={"x": "y" * 120})
    assert compare_cleaning_with_parsing(body, number=200, repeat=50) < 0.5


texts = st.text(max_size=6) | st.sampled_from(
    [KEY, f"Bearer {KEY}", quote(KEY), "".join(f"%{ord(each):x}" for each in KEY), "\x1b[1m", "\u202e", "\ud800", ID]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    [
        *(
            "id",
            "status",
            "output",
            "content",
            "url",
            "error",
            "message",
            "code",
            "usage",
            "cost",
            "currency",
            "metadata",
        ),
        *("data", "detail", "loc", "msg", "error_code", "created_at", "progress", "request_id", "reason", "model"),
    ]
)
statuses = st.sampled_from(
    ["in_progress", "completed", "failed", "cancelled", "success", {"code": 403, "message": KEY}]
)
documents = st.recursive(
    values,
    lambda inner: st.dictionaries(names, inner, max_size=6) | st.lists(inner, max_size=3),
    max_leaves=20,
) | st.fixed_dictionaries(
    {"id": st.just(ID), "status": statuses},
    optional={
        "output": st.lists(st.fixed_dictionaries({"content": st.lists(st.fixed_dictionaries({"url": texts}))}))
        | values,
        "error": values,
        "usage": st.dictionaries(names, values),
        "metadata": values,
        "data": st.dictionaries(names, values),
        "detail": values,
    },
)
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])


def encode_document(document: object, encoding: str, *, is_ascii: bool, end: int) -> bytes:
    return json.dumps(document, ensure_ascii=is_ascii).encode(encoding, "replace")[: end or None]


bodies = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=50).map(lambda data: data + KEY.encode() + data),
    st.builds(
        encode_document,
        documents,
        encodings,
        is_ascii=st.booleans(),
        end=st.just(0) | st.integers(min_value=-40, max_value=-1),
    ),
)
READERS = [
    lambda body: read_status(body, ID),
    lambda body: read_poll(body, ID),
    read_created,
    lambda body: new_gateway("vtrix").accepted_despite_error(Response(500, body), model="flux_kontext_pro"),
    *(lambda body, status=status: error_from_response(status, body) for status in (200, 301, 400, 401, 403, 429, 502)),
]


@given(bodies)
@example(b'{"id": "d8ejq1de878c739e2lrg", "status": "in_progress", "progress": 1' + b"0" * 5000 + b"}")
@example(b'{"status": {"code": ' + b"9" * 4000 + b"}}")
@example(b'{"status": {"code": "' + b"9" * 40 + b'"}}')
@example(b'{"error": {"code": ' + b"9" * 4000 + b"}}")
@example(b'{"id": "\\ud800", "status": "completed"}')
def test_readers_of_any_body_raise_errors_of_the_tree_and_show_no_key(body: bytes) -> None:
    for read in READERS:
        read_safely(read, body)
        shown = read_safely(read, clean_body(body, KEY))
        assert KEY[:9] not in shown
        assert "\\" in shown or not {unicodedata.category(sign) for sign in shown} & {"Cc", "Cs", "Zl", "Zp"}


def read_safely(read: Any, body: bytes) -> str:
    """Return everything that a reader's result shows. Only an error of the tree may be raised."""
    result: Any = None
    try:
        result = read(body)
    except KontextError as error:
        result = error
    shown = repr(result)
    if isinstance(result, KontextError):
        shown += str(result) + repr(vars(result))
    elif result is not None and hasattr(result, "images"):
        shown += "".join(image.url for image in result.images)
    return shown


@given(bodies)
@example(b"\x0b}")
@example(b"{}\x1c")
def test_a_cleaned_body_has_neither_the_key_nor_a_control_character(body: bytes) -> None:
    cleaned = clean_body(body, KEY)
    assert KEY.encode() not in cleaned
    assert not set(cleaned) & (set(range(0x20)) - set(b"\t\r\n"))
    cleaned.decode()


@given(st.binary())
def test_any_bytes_are_cleaned(body: bytes) -> None:
    with contextlib.suppress(GatewayError):
        read_created(clean_body(body, KEY))
    assert sys.getrecursionlimit() > MAX_DEPTH

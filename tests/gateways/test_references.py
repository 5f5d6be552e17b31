"""The reference of a task: a value, its text and what neither shows."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kontext_async.errors import InvalidRequest
from kontext_async.gateways import GATEWAYS
from kontext_async.gateways.references import MAX_ADDRESS_LENGTH, Reference, is_model, plain_reference, to_address

URL = "https://api.us1.bfl.ai/v1/get_result?id=b9b172a8&x=%7E"

IDS = st.text(min_size=1, max_size=40)
MODELS = st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).filter(is_model)
ADDRESSES = st.lists(
    st.text(max_size=30)
    .map(lambda text: to_address(f"https://a.example/{text}"))
    .filter(lambda each: each is not None),
    max_size=3,
)


@pytest.mark.parametrize("task_id", ["task1", "task-1", "a/b c", "ä", "a@b|c"])
def test_the_plain_text_is_that_of_the_value(task_id: str) -> None:
    assert plain_reference("vtrix", task_id) == str(Reference(task_id, "vtrix"))


@given(task_id=IDS, model=MODELS, addresses=ADDRESSES, gateway=st.sampled_from(list(GATEWAYS)))
def test_every_reference_is_read_back_from_its_text(
    task_id: str, model: str | None, addresses: list[str], gateway: str
) -> None:
    try:
        reference = Reference(task_id, gateway, model=model, addresses=tuple(addresses))
    except InvalidRequest:
        return
    text = str(reference)
    assert Reference.parse(text, GATEWAYS) == reference
    assert not any(character.isspace() for character in text)
    assert text.isascii()
    assert text.isprintable()
    assert len(shlex.split(shlex.quote(text))) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vtrix:d8ej", Reference("d8ej", "vtrix")),
        (" vtrix:d8ej\n", Reference("d8ej", "vtrix")),
        ("vtrix:a%2Fb", Reference("a/b", "vtrix")),
        ("vtrix-queue:d8ej@flux_kontext_pro", Reference("d8ej", "vtrix-queue", model="flux_kontext_pro")),
        (f"bfl:b9b1@{URL}", Reference("b9b1", "bfl", addresses=(URL,))),
        (
            "vtrix-queue:d8ej@m@https://a.example/@x|https://a.example/2",
            Reference("d8ej", "vtrix-queue", model="m", addresses=("https://a.example/@x", "https://a.example/2")),
        ),
        ("d8ej", None),
        ("a:b", None),
        ("https://api.bfl.ai/v1/get_result?id=1", None),
        ("vtrix", None),
        ("VTRIX:d8ej", None),
    ],
)
def test_text_is_read(text: str, expected: Reference | None) -> None:
    assert Reference.parse(text, GATEWAYS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "vtrix:",
        "vtrix:..",
        "vtrix:%20",
        "vtrix:a@b@c",
        "vtrix:a@b c",
        "bfl:a@https://user:password@a.example/",
        "bfl:a@https://",
        "bfl:a@https://a.example/|",
        "bfl:a@https://a.example/|ftp://a.example/",
        "bfl:a@" + "|".join(["https://a.example/"] * 4),
        "bfl:a@https://a.example/" + "x" * MAX_ADDRESS_LENGTH,
        "vtrix:" + "x" * 600,
    ],
)
def test_text_that_begins_as_a_reference_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Reference.parse(text, GATEWAYS)
    assert caught.value.field == "reference"
    assert "password" not in str(caught.value)


def test_the_text_has_the_address_as_it_came_and_the_repr_has_no_query() -> None:
    reference = Reference("b9b1", "bfl", addresses=(URL,))
    assert str(reference) == f"bfl:b9b1@{URL}"
    assert "%7E" not in repr(reference)
    assert "https://api.us1.bfl.ai/v1/get_result" in repr(reference)


def test_the_error_for_a_bad_reference_has_no_query() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Reference.parse("bfl:a b@https://a.example/x?sig=verysecret|", GATEWAYS)
    assert "verysecret" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"task_id": ""},
        {"task_id": " a"},
        {"task_id": ".."},
        {"task_id": None},
        {"gateway": "BFL"},
        {"gateway": ""},
        {"gateway": "a b"},
        {"gateway": None},
        {"model": ""},
        {"model": ".."},
        {"model": "a/b"},
        {"model": 7},
        {"addresses": [URL]},
        {"addresses": ("https://user@a.example/",)},
        {"addresses": ("https://@a.example/",)},
        {"addresses": ("/v1/get_result?id=1",)},
        {"addresses": ("https://a.example/a b",)},
        {"addresses": ("https://a.example/a|b",)},
        {"addresses": (7,)},
        {"addresses": (URL,) * 4},
    ],
)
def test_an_unusable_part_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Reference(**{"task_id": "a", "gateway": "bfl", **fields})


def test_an_address_is_kept_byte_for_byte_if_it_can_be_sent() -> None:
    signed = "https://a.example/x%2Fy?sig=a%2Fb%2Bc%3D&se=2025-07-14T07%3A36%3A43Z&x=%7E~"
    assert to_address(signed) == signed
    assert to_address("https://a.example/ä b|c") == "https://a.example/%C3%A4%20b%7Cc"
    assert to_address("https://a.example/x#fragment") == "https://a.example/x"

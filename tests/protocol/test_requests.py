"""The body and the fingerprint of a create request."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, strategies as st

from kontext_async.images import LoadedImage, load
from kontext_async.models import KontextRequest
from kontext_async.protocol import encode_create, fingerprint
from kontext_async.protocol.requests import PIECE

if TYPE_CHECKING:
    from pathlib import Path

PARAMS = ("prompt", "seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance")
NAMES = ("input_image", "input_image_2", "input_image_3", "input_image_4")


def load_bytes(data: bytes) -> LoadedImage:
    return LoadedImage.of_bytes(data)


def load_url(url: str) -> LoadedImage:
    return LoadedImage.of_url(url)


ratios = st.integers(1, 99).flatmap(
    lambda w: st.integers(-(-9 * w // 21), 21 * w // 9).filter(bool).map(lambda h: f"{w}:{h}")
)
valid_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
requests = st.builds(
    KontextRequest,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(str.strip),
    seed=st.none() | st.integers(),
    aspect_ratio=st.none() | ratios,
    output_format=st.sampled_from([None, "jpeg", "png"]),
    prompt_upsampling=st.none() | st.booleans(),
    safety_tolerance=st.none() | st.integers(0, 6),
    model=st.sampled_from(["flux_kontext_pro", "flux_kontext_max", "x.Y-1"]),
    moderation=st.none() | st.booleans(),
    metadata=st.none() | st.dictionaries(valid_text, valid_text, max_size=3),
)
sizes = st.integers(0, 9) | st.builds(
    lambda pieces, offset: max(0, pieces * PIECE + offset), st.integers(0, 2), st.integers(-4, 4)
)
images = st.one_of(
    sizes.map(lambda size: load_bytes(bytes(index * 7 % 251 for index in range(min(size, 251))) * (size // 251 + 1))),
    st.builds(lambda size: load_bytes(bytes(size)), sizes),
    st.binary(max_size=50).map(load_bytes),
    st.sampled_from(['https://host/a.png?x="1"', "http://host/ä"]).map(load_url),
)


def expected_payload(request: KontextRequest, loaded: list[LoadedImage]) -> dict[str, Any]:
    """Return the JSON that the body must contain, built in the simplest way. It has no null."""
    params = {name: getattr(request, name) for name in PARAMS if getattr(request, name) is not None}
    for name, image in zip(NAMES, loaded, strict=False):
        params[name] = image.url or base64.b64encode(image.read()).decode()
    beside = {"moderation": request.moderation, "metadata": request.metadata and dict(request.metadata)}
    given = {name: value for name, value in beside.items() if value is not None}
    return {"model": request.model, **given, "input": [{"params": params}]}


def refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key is repeated"
    return dict(pairs)


@given(requests, st.lists(images, max_size=4))
@example(KontextRequest("}}]}"), [])
@example(KontextRequest("a", metadata={"null": ""}), [])
@example(
    KontextRequest("a"),
    [load_bytes(b"x" * PIECE), load_url("https://host/a"), load_bytes(b"y"), load_url("https://host/b")],
)
def test_a_body_is_the_json_of_the_request(request: KontextRequest, loaded: list[LoadedImage]) -> None:
    body = encode_create(request, loaded)
    text = b"".join(body.pieces())
    assert json.loads(text, object_pairs_hook=refuse_duplicate_keys) == expected_payload(request, loaded)
    assert len(text) == body.length


@given(requests, st.lists(images, max_size=4))
def test_the_pieces_of_a_body_can_be_read_again_from_the_start(
    request: KontextRequest, loaded: list[LoadedImage]
) -> None:
    body = encode_create(request, loaded)
    first = list(body.pieces())
    begun = body.pieces()
    next(begun)
    assert list(body.pieces()) == first
    assert list(itertools.chain(first[:1], begun)) == first


@given(st.lists(images, min_size=1, max_size=4))
def test_the_pieces_of_a_body_are_small_and_never_empty(loaded: list[LoadedImage]) -> None:
    pieces = list(encode_create(KontextRequest("a"), loaded).pieces())
    assert all(0 < len(piece) <= PIECE * 4 // 3 for piece in pieces)


def test_a_body_without_images_is_one_piece() -> None:
    body = encode_create(KontextRequest("a red fox in snow", aspect_ratio="16:9", output_format="png", seed=42), [])
    (piece,) = body.pieces()
    assert piece == (
        b'{"model":"flux_kontext_pro","input":[{"params":{"prompt":"a red fox in snow","seed":42,'
        b'"aspect_ratio":"16:9","output_format":"png"}}]}'
    )


def test_a_body_is_ascii() -> None:
    body = encode_create(KontextRequest("ein Füchslein 🦊"), [])
    assert b"".join(body.pieces()).isascii()


def test_every_field_of_the_protocol_is_sent_under_its_name() -> None:
    request = KontextRequest(
        "a",
        seed=-1,
        aspect_ratio="21:9",
        output_format="jpeg",
        prompt_upsampling=False,
        safety_tolerance=0,
        model="flux_kontext_max",
        moderation=False,
        metadata={"trace": "t1 ä"},
    )
    loaded = [load_bytes(b"one"), load_url("https://host/two"), load_bytes(b"three"), load_bytes(b"four")]
    assert json.loads(b"".join(encode_create(request, loaded).pieces())) == {
        "model": "flux_kontext_max",
        "moderation": False,
        "metadata": {"trace": "t1 ä"},
        "input": [
            {
                "params": {
                    "prompt": "a",
                    "seed": -1,
                    "aspect_ratio": "21:9",
                    "output_format": "jpeg",
                    "prompt_upsampling": False,
                    "safety_tolerance": 0,
                    "input_image": "b25l",
                    "input_image_2": "https://host/two",
                    "input_image_3": "dGhyZWU=",
                    "input_image_4": "Zm91cg==",
                }
            }
        ],
    }


def test_the_repr_of_a_body_hides_its_images() -> None:
    assert "b25l" not in repr(encode_create(KontextRequest("a"), [load_bytes(b"one")]))
    assert "one" not in repr(encode_create(KontextRequest("a"), [load_bytes(b"one")]))


few_requests = st.builds(
    KontextRequest,
    st.sampled_from(["a", "b"]),
    seed=st.sampled_from([None, 0, 1]),
    prompt_upsampling=st.sampled_from([None, False]),
    safety_tolerance=st.sampled_from([None, 0]),
    model=st.sampled_from(["flux_kontext_pro", "flux_kontext_max"]),
    moderation=st.sampled_from([None, False]),
    metadata=st.sampled_from([None, {"a": "b"}, {"a": "c"}]),
)
few_images = st.lists(
    st.sampled_from(
        [load_bytes(b"one"), load_bytes(b"two"), load_url("https://host/one"), load_bytes(b"https://host/two")]
    ),
    max_size=3,
)


@given(few_requests, few_images, few_requests, few_images)
def test_fingerprints_are_equal_exactly_if_the_payloads_are(
    one: KontextRequest, ones: list[LoadedImage], two: KontextRequest, twos: list[LoadedImage]
) -> None:
    same = expected_payload(one, ones) == expected_payload(two, twos)
    assert (fingerprint(one, ones) == fingerprint(two, twos)) is same


def test_a_fingerprint_is_64_hexadecimal_characters() -> None:
    digest = fingerprint(KontextRequest("ä"), [load_bytes(b"one")])
    assert len(digest) == 64
    assert int(digest, 16) >= 0


def test_a_fingerprint_never_changes_between_versions() -> None:
    request = KontextRequest("a red fox in snow", aspect_ratio="16:9", seed=42)
    digest = "8b00c24655183b6537677d1bdec04610ab6fcb9ef7eb9f418b5636461832398b"  # journals on disk contain it
    assert fingerprint(request, [load_bytes(b"one")]) == digest


@given(requests)
@example(KontextRequest("\x7f\x00\u00e4\U0001f98a", seed=2**70, metadata={"b": "1", "a": "\u2028", "\u00c4": "\x7f"}))
def test_the_fingerprint_is_that_of_the_standard_library(request: KontextRequest) -> None:
    params = {name: getattr(request, name) for name in PARAMS if getattr(request, name) is not None}
    content: dict[str, Any] = {"model": request.model, "params": params, "images": []}
    if request.moderation is not None:
        content["moderation"] = request.moderation
    if request.metadata is not None:
        content["metadata"] = dict(request.metadata)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert fingerprint(request, []) == hashlib.sha256(text.encode()).hexdigest()


def test_the_order_of_images_changes_the_fingerprint() -> None:
    request = KontextRequest("a")
    one, two = load_bytes(b"one"), load_bytes(b"two")
    assert fingerprint(request, [one, two]) != fingerprint(request, [two, one])


def test_the_source_type_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    data = b"GIF89a the very same"
    path = tmp_path / "fox.jpg"
    path.write_bytes(data)
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    sources = (data, bytearray(data), memoryview(data), path, str(path), uri, io.BytesIO(data))
    digests = set()
    for source in sources:
        with closing(load(source, "input_images[0]")) as image:
            digests.add(fingerprint(KontextRequest("a", input_images=[source]), [image]))
    assert len(digests) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "b"},
        {"seed": 2},
        {"aspect_ratio": "1:1"},
        {"output_format": "png"},
        {"prompt_upsampling": True},
        {"safety_tolerance": 3},
        {"model": "flux_kontext_max"},
        {"moderation": True},
        {"metadata": {"a": "b"}},
    ],
)
def test_every_field_changes_the_fingerprint(changed: dict[str, Any]) -> None:
    request = KontextRequest("a", seed=1)
    assert fingerprint(KontextRequest.of(request, **changed), []) != fingerprint(request, [])


def test_the_order_of_metadata_does_not_change_the_fingerprint() -> None:
    one, two = KontextRequest("a", metadata={"a": "1", "b": "2"}), KontextRequest("a", metadata={"b": "2", "a": "1"})
    assert fingerprint(one, []) == fingerprint(two, [])

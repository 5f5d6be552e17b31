from __future__ import annotations

import base64
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

NAMES = ("input_image", "input_image_2", "input_image_3", "input_image_4")


def inline(data: bytes) -> LoadedImage:
    return LoadedImage.of_bytes(data)


def linked(url: str) -> LoadedImage:
    return LoadedImage.of_url(url)


ratios = st.integers(1, 99).flatmap(
    lambda w: st.integers(-(-9 * w // 21), 21 * w // 9).filter(bool).map(lambda h: f"{w}:{h}")
)
requests = st.builds(
    KontextRequest,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(str.strip),
    seed=st.none() | st.integers(),
    aspect_ratio=st.none() | ratios,
    output_format=st.sampled_from([None, "jpeg", "png"]),
    prompt_upsampling=st.none() | st.booleans(),
    safety_tolerance=st.none() | st.integers(0, 6),
    model=st.sampled_from(["flux_kontext_pro", "flux_kontext_max", "x.Y-1"]),
)
sizes = st.integers(0, 9) | st.builds(
    lambda pieces, offset: max(0, pieces * PIECE + offset), st.integers(0, 2), st.integers(-4, 4)
)
images = st.one_of(
    sizes.map(lambda size: inline(bytes(index * 7 % 251 for index in range(min(size, 251))) * (size // 251 + 1))),
    st.builds(lambda size: inline(bytes(size)), sizes),
    st.binary(max_size=50).map(inline),
    st.sampled_from(['https://host/a.png?x="1"', "http://host/ä"]).map(linked),
)


def meaning(request: KontextRequest, loaded: list[LoadedImage]) -> dict[str, Any]:
    """What the body must mean, said in the plainest way."""
    fields = ("prompt", "seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance")
    params = {name: getattr(request, name) for name in fields if getattr(request, name) is not None}
    for name, image in zip(NAMES, loaded, strict=False):
        params[name] = image.url or base64.b64encode(image.read()).decode()
    return {"model": request.model, "input": [{"params": params}]}


def nothing_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a key is given twice"
    return dict(pairs)


@given(requests, st.lists(images, max_size=4))
@example(KontextRequest("}}]}"), [])
@example(KontextRequest("a"), [inline(b"x" * PIECE), linked("https://host/a"), inline(b"y"), linked("https://host/b")])
def test_a_body_means_what_was_asked_for(request: KontextRequest, loaded: list[LoadedImage]) -> None:
    body = encode_create(request, loaded)
    text = b"".join(body.pieces())
    assert json.loads(text, object_pairs_hook=nothing_twice) == meaning(request, loaded)
    assert len(text) == body.length
    assert b"null" not in text or "null" in request.prompt


@given(requests, st.lists(images, max_size=4))
def test_a_body_can_be_sent_again_from_its_start(request: KontextRequest, loaded: list[LoadedImage]) -> None:
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
    )
    loaded = [inline(b"one"), linked("https://host/two"), inline(b"three"), inline(b"four")]
    assert json.loads(b"".join(encode_create(request, loaded).pieces())) == {
        "model": "flux_kontext_max",
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


def test_a_body_does_not_show_its_images() -> None:
    assert "b25l" not in repr(encode_create(KontextRequest("a"), [inline(b"one")]))
    assert "one" not in repr(encode_create(KontextRequest("a"), [inline(b"one")]))


few_requests = st.builds(
    KontextRequest,
    st.sampled_from(["a", "b"]),
    seed=st.sampled_from([None, 0, 1]),
    prompt_upsampling=st.sampled_from([None, False]),
    safety_tolerance=st.sampled_from([None, 0]),
    model=st.sampled_from(["flux_kontext_pro", "flux_kontext_max"]),
)
few_images = st.lists(
    st.sampled_from([inline(b"one"), inline(b"two"), linked("https://host/one"), inline(b"https://host/two")]),
    max_size=3,
)


@given(few_requests, few_images, few_requests, few_images)
def test_fingerprints_are_equal_exactly_where_the_content_is(
    one: KontextRequest, ones: list[LoadedImage], two: KontextRequest, twos: list[LoadedImage]
) -> None:
    same = meaning(one, ones) == meaning(two, twos)
    assert (fingerprint(one, ones) == fingerprint(two, twos)) is same


def test_a_fingerprint_is_64_hexadecimal_characters() -> None:
    digest = fingerprint(KontextRequest("ä"), [inline(b"one")])
    assert len(digest) == 64
    assert int(digest, 16) >= 0


def test_a_fingerprint_stays_the_same_from_version_to_version() -> None:
    request = KontextRequest("a red fox in snow", aspect_ratio="16:9", seed=42)
    digest = "8b00c24655183b6537677d1bdec04610ab6fcb9ef7eb9f418b5636461832398b"  # what journals on disk hold
    assert fingerprint(request, [inline(b"one")]) == digest


def test_the_order_of_images_matters() -> None:
    request = KontextRequest("a")
    one, two = inline(b"one"), inline(b"two")
    assert fingerprint(request, [one, two]) != fingerprint(request, [two, one])


def test_it_does_not_matter_how_the_same_bytes_were_passed(tmp_path: Path) -> None:
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
    ],
)
def test_every_field_counts_in_a_fingerprint(changed: dict[str, Any]) -> None:
    request = KontextRequest("a", seed=1)
    assert fingerprint(KontextRequest.of(request, **changed), []) != fingerprint(request, [])

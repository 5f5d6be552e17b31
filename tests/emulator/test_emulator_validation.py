import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from kontext_async.emulator.painter import MAX_IMAGE_BYTES, InputImage
from kontext_async.emulator.validation import (
    Invalid,
    digest_of,
    image_of,
    parse_create,
    parse_queue_create,
)


def parse(**params: Any) -> Any:
    return parse_create(json.dumps({"model": "flux_kontext_pro", "input": [{"params": params}]}).encode())


def refusal(**params: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        parse(**params)
    return caught.value


def test_everything_at_once(helpers: Any) -> None:
    request = parse(
        prompt="a fox",
        input_image=helpers.picture_text(kind="JPEG"),
        input_image_2="https://example.com/fox.jpg",
        input_image_3=helpers.picture_text(kind="WEBP"),
        input_image_4=helpers.picture_text(kind="GIF"),
        seed=-7,
        aspect_ratio="16:9",
        output_format="png",
        prompt_upsampling=True,
        safety_tolerance=6,
    )
    kinds = [image.kind if isinstance(image, InputImage) else image for image in request.images]
    assert kinds == ["JPEG", "https://example.com/fox.jpg", "WEBP", "GIF"]
    assert (request.seed, request.ratio, request.output_format) == (-7, (16, 9), "png")


def test_defaults() -> None:
    request = parse(prompt="a fox")
    assert (request.images, request.seed, request.ratio, request.output_format) == ((), None, None, "jpeg")


@pytest.mark.parametrize(
    ("body", "field", "status"),
    [
        (b"", "", 400),
        (b"{", "", 400),
        (b"\xff", "", 400),
        (b"[" * 100_000, "", 400),
        (b'{"model": NaN}', "", 400),
        (b"[]", "", 400),
        (b"null", "", 400),
        (b"{}", "model", 400),
        (b'{"model": "flux_kontext_pro"}', "input", 400),
        (b'{"model": "flux_kontext_pro", "input": {}}', "input", 400),
        (b'{"model": "flux_kontext_pro", "input": []}', "input", 400),
        (b'{"model": "flux_kontext_pro", "input": [{}, {}]}', "input", 400),
        (b'{"model": "flux_kontext_pro", "input": [1]}', "input[0]", 400),
        (b'{"model": "flux_kontext_pro", "input": [{}]}', "input[0].params", 400),
        (b'{"model": "flux_kontext_pro", "input": [{"params": 1.5}]}', "input[0].params", 400),
        (b'{"model": "flux_kontext_pro", "input": [{"params": {}, "type": "x"}]}', "input[0].type", 400),
        (b'{"model": "flux_kontext_pro", "input": [{"params": {}}], "seed": 1}', "seed", 400),
        (b'{"model": "gpt", "input": [{"params": {"prompt": "x"}}]}', "model", 400),
        (b'{"model": 7, "input": [{"params": {"prompt": "x"}}]}', "model", 422),
        (b'{"model": "flux_kontext_pro", "input": [{"params": {}}]}', "input[0].params.prompt", 422),
    ],
)
def test_the_structure(body: bytes, field: str, status: int) -> None:
    with pytest.raises(Invalid) as caught:
        parse_create(body)
    assert (caught.value.field, caught.value.status) == (field, status)
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", ""),
        ("prompt", " \n\t"),
        ("prompt", 5),
        ("prompt", None),
        ("seed", "1"),
        ("seed", 1.0),
        ("seed", True),
        ("seed", None),
        ("seed", []),
        ("seed", {}),
        ("aspect_ratio", "16/9"),
        ("aspect_ratio", "0:1"),
        ("aspect_ratio", "22:9"),
        ("aspect_ratio", "9:22"),
        ("aspect_ratio", "1:1 "),
        ("aspect_ratio", "1.5:1"),
        ("aspect_ratio", 1),
        ("output_format", "webp"),
        ("output_format", "PNG"),
        ("prompt_upsampling", 1),
        ("prompt_upsampling", "true"),
        ("safety_tolerance", 7),
        ("safety_tolerance", -1),
        ("safety_tolerance", True),
        ("input_image", ""),
        ("input_image", "a fox"),
        ("input_image", "Zm94"),
        ("input_image", "Zm94="),
        ("input_image", "ftp://example.com/fox.jpg"),
        ("input_image", "http://"),
        ("input_image", "http://[::1/fox.jpg"),
        ("input_image", "https://example.com/a fox.jpg"),
        ("input_image", ["https://example.com/fox.jpg"]),
        ("input_image", "\u00e9"),
        ("input_image_5", "https://example.com/fox.jpg"),
        ("steps", 20),
    ],
)
def test_a_bad_value_is_named(name: str, value: object) -> None:
    error = refusal(**{"prompt": "a fox", name: value})
    assert error.field == f"input[0].params.{name}"
    assert error.status == 422


def test_a_data_uri_is_not_base64(helpers: Any) -> None:
    assert "data:" in refusal(prompt="x", input_image="data:image/png;base64," + helpers.picture_text()).rule


def test_base64_is_taken_to_the_letter(helpers: Any) -> None:
    text = helpers.picture_text()
    for broken in (text[:-1], text[:40] + "\n" + text[40:], text[:8] + "-_" + text[10:], text + "===="):
        refusal(prompt="x", input_image=broken)


def test_damaged_and_foreign_images_are_refused(helpers: Any) -> None:
    whole = helpers.picture(size=(300, 300), kind="JPEG")
    for data in (whole[: len(whole) // 2], helpers.picture(kind="BMP"), helpers.picture(kind="TIFF"), b"GIF89a"):
        refusal(prompt="x", input_image=base64.b64encode(data).decode())


def test_images_of_20_mib_are_taken_and_no_larger(helpers: Any) -> None:
    padded = helpers.picture(kind="JPEG")
    largest = padded + b"\0" * (MAX_IMAGE_BYTES - len(padded))
    assert image_of("x", largest).kind == "JPEG"
    with pytest.raises(Invalid, match="at most"):
        image_of("x", largest + b"\0")
    assert "at most" in refusal(prompt="x", input_image="A" * (MAX_IMAGE_BYTES // 3 * 4 + 16)).rule


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_ratios_between_21_9_and_9_21_are_taken(width: int, height: int) -> None:
    allowed = 9 / 21 <= width / height <= 21 / 9 or width * 9 == height * 21 or width * 21 == height * 9
    try:
        parse(prompt="x", aspect_ratio=f"{width}:{height}")
    except Invalid:
        assert not allowed
    else:
        assert allowed


@given(st.integers())
def test_any_integer_is_a_seed(seed: int) -> None:
    assert parse(prompt="x", seed=seed).seed == seed


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_judged_and_never_crashes(value: Any) -> None:
    for shape in (
        value,
        {"model": "flux_kontext_pro", "input": value},
        {"model": "flux_kontext_pro", "input": [{"params": value}]},
    ):
        with pytest.raises(Invalid):
            parse_create(json.dumps(shape).encode())


def test_the_model_may_come_in_a_header() -> None:
    body = b'{"input": [{"params": {"prompt": "x"}}]}'
    assert parse_create(body, "flux_kontext_max").model == "flux_kontext_max"


def test_the_queue_dialect_has_bare_params() -> None:
    assert parse_queue_create(b'{"prompt": "x"}', "flux_kontext_pro").prompt == "x"
    with pytest.raises(Invalid) as caught:
        parse_queue_create(b'{"prompt": "x", "model": "y"}', "flux_kontext_pro")
    assert caught.value.field == "model"
    with pytest.raises(Invalid, match="model"):
        parse_queue_create(b'{"prompt": "x"}', "other")


def test_the_digest_knows_params_and_not_their_order() -> None:
    one = digest_of("m", {"prompt": "x", "seed": 1})
    assert one == digest_of("m", {"seed": 1, "prompt": "x"})
    others: list[dict[str, Any]] = [
        {"prompt": "x", "seed": 2},
        {"prompt": "x"},
        {"prompt": "x", "seed": "1"},
        {"prompt": "xs", "eed": 1},
    ]
    assert one not in {digest_of("m", other) for other in others}
    assert one != digest_of("n", {"prompt": "x", "seed": 1})
    assert digest_of("m", {"prompt": "\ud800"})

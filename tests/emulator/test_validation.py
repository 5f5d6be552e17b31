import base64
import json
from typing import Any

import pytest
from emulator_support import make_image_text
from hypothesis import given, settings, strategies as st
from image_support import make_image

from kontext_async.emulator.painting.input_images import MAX_IMAGE_BYTES, InputImage
from kontext_async.emulator.validation import (
    CreateRequest,
    RuleViolation,
    compute_digest,
    parse_create,
    parse_image,
    parse_queue_create,
)


def parse(**params: Any) -> CreateRequest:
    return parse_create(json.dumps({"model": "flux_kontext_pro", "input": [{"params": params}]}).encode())


def catch_violation(**params: Any) -> RuleViolation:
    with pytest.raises(RuleViolation) as caught:
        parse(**params)
    return caught.value


def test_a_request_with_every_param_is_parsed() -> None:
    request = parse(
        prompt="a fox",
        input_image=make_image_text(image_format="JPEG"),
        input_image_2="https://example.com/fox.jpg",
        input_image_3=make_image_text(image_format="WEBP"),
        input_image_4=make_image_text(image_format="GIF"),
        seed=-7,
        aspect_ratio="16:9",
        output_format="png",
        prompt_upsampling=True,
        safety_tolerance=6,
    )
    formats = [image.image_format if isinstance(image, InputImage) else image for image in request.images]
    assert formats == ["JPEG", "https://example.com/fox.jpg", "WEBP", "GIF"]
    assert (request.seed, request.ratio, request.output_format) == (-7, (16, 9), "png")


def test_a_request_with_only_a_prompt_has_defaults() -> None:
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
def test_a_wrong_structure_is_refused_with_the_path(body: bytes, field: str, status: int) -> None:
    with pytest.raises(RuleViolation) as caught:
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
def test_an_invalid_value_is_refused_with_the_path(name: str, value: object) -> None:
    error = catch_violation(**{"prompt": "a fox", name: value})
    assert error.field == f"input[0].params.{name}"
    assert error.status == 422


def test_a_data_uri_is_refused() -> None:
    assert "data:" in catch_violation(prompt="x", input_image="data:image/png;base64," + make_image_text()).rule


def test_malformed_base64_is_refused() -> None:
    text = make_image_text()
    for broken in (text[:-1], text[:40] + "\n" + text[40:], text[:8] + "-_" + text[10:], text + "===="):
        catch_violation(prompt="x", input_image=broken)


def test_damaged_images_and_other_formats_are_refused() -> None:
    whole = make_image(size=(300, 300), image_format="JPEG")
    for data in (whole[: len(whole) // 2], make_image(image_format="BMP"), make_image(image_format="TIFF"), b"GIF89a"):
        catch_violation(prompt="x", input_image=base64.b64encode(data).decode())


def test_images_up_to_20_mib_are_accepted() -> None:
    padded = make_image(image_format="JPEG")
    largest = padded + b"\0" * (MAX_IMAGE_BYTES - len(padded))
    assert parse_image("x", largest).image_format == "JPEG"
    with pytest.raises(RuleViolation, match="at most"):
        parse_image("x", largest + b"\0")
    assert "at most" in catch_violation(prompt="x", input_image="A" * (MAX_IMAGE_BYTES // 3 * 4 + 16)).rule


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_ratios_between_21_9_and_9_21_are_accepted(width: int, height: int) -> None:
    allowed = 9 / 21 <= width / height <= 21 / 9 or width * 9 == height * 21 or width * 21 == height * 9
    try:
        parse(prompt="x", aspect_ratio=f"{width}:{height}")
    except RuleViolation:
        assert not allowed
    else:
        assert allowed


@given(st.integers())
def test_any_integer_is_accepted_as_a_seed(seed: int) -> None:
    assert parse(prompt="x", seed=seed).seed == seed


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_refused_without_a_crash(value: Any) -> None:
    for shape in (
        value,
        {"model": "flux_kontext_pro", "input": value},
        {"model": "flux_kontext_pro", "input": [{"params": value}]},
    ):
        with pytest.raises(RuleViolation):
            parse_create(json.dumps(shape).encode())


def test_a_header_can_name_the_model() -> None:
    body = b'{"input": [{"params": {"prompt": "x"}}]}'
    assert parse_create(body, "flux_kontext_max").model == "flux_kontext_max"


def test_the_queue_dialect_has_bare_params_and_the_model_in_the_path() -> None:
    assert parse_queue_create(b'{"prompt": "x"}', "flux_kontext_pro").prompt == "x"
    with pytest.raises(RuleViolation) as caught:
        parse_queue_create(b'{"prompt": "x", "model": "y"}', "flux_kontext_pro")
    assert caught.value.field == "model"
    with pytest.raises(RuleViolation, match="model"):
        parse_queue_create(b'{"prompt": "x"}', "other")


def test_the_digest_depends_on_params_but_not_on_their_order() -> None:
    one = compute_digest("m", {"prompt": "x", "seed": 1})
    assert one == compute_digest("m", {"seed": 1, "prompt": "x"})
    others: list[dict[str, Any]] = [
        {"prompt": "x", "seed": 2},
        {"prompt": "x"},
        {"prompt": "x", "seed": "1"},
        {"prompt": "xs", "eed": 1},
    ]
    assert one not in {compute_digest("m", other) for other in others}
    assert one != compute_digest("n", {"prompt": "x", "seed": 1})
    assert compute_digest("m", {"prompt": "\ud800"})

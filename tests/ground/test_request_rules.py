"""Requests that strangers wrote: what they may hold, how large they may be, and the JSON Schema of it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, strategies as st
from jsonschema import Draft202012Validator
from session_support import count_creates, encode_png

from kontext_async import ConfigurationError, InvalidRequest, KontextRequest, KontextSession, UntrustedRules
from kontext_async.bulk import BulkRun

if TYPE_CHECKING:
    from kontext_async.emulator import Emulator

PNG = encode_png()
BASE64 = base64.b64encode(PNG).decode()
DATA_URI = f"data:image/png;base64,{BASE64}"
RULES = UntrustedRules(allow_urls=True, models=("flux_kontext_pro", "flux_kontext_max"), max_safety_tolerance=3)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the server that is a valid image."""
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    return path


DEFAULTS = UntrustedRules()


def refusal(given: Any, rules: UntrustedRules = DEFAULTS) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        KontextRequest.from_untrusted(given, rules)
    return caught.value


def test_a_stranger_may_set_the_usual_fields() -> None:
    body: dict[str, Any] = {
        "prompt": "make it dusk",
        "input_images": [DATA_URI],
        "seed": 7,
        "aspect_ratio": "16:9",
        "output_format": "png",
        "prompt_upsampling": True,
    }
    assert KontextRequest.from_untrusted(json.loads(json.dumps(body))) == KontextRequest(**body)


def test_null_is_the_same_as_leaving_a_field_out() -> None:
    body = {"prompt": "a fox", "seed": None, "input_images": None, "output_format": None}
    assert KontextRequest.from_untrusted(body) == KontextRequest("a fox")


def test_base64_is_an_input_image() -> None:
    (source,) = KontextRequest.from_untrusted({"prompt": "dusk", "input_images": BASE64}).input_images
    assert source == f"data:;base64,{BASE64}"


@pytest.mark.parametrize("field", ["model", "safety_tolerance", "moderation", "metadata", "key", "timeout", "a\nb"])
def test_fields_that_are_yours_or_unknown_are_refused(field: str) -> None:
    error = refusal({"prompt": "a fox", field: "x"})
    assert error.field == field.replace("\n", " ")
    assert error.value == "'x'"
    assert "the fields are prompt, seed" in error.rule


def test_rules_let_a_stranger_choose_a_model_and_a_safety_tolerance() -> None:
    body = {"prompt": "a fox", "model": "flux_kontext_max", "safety_tolerance": 3}
    assert KontextRequest.from_untrusted(body, RULES).model == "flux_kontext_max"
    assert refusal({"prompt": "a fox", "model": "a-dear-one"}, RULES).field == "model"
    assert refusal({"prompt": "a fox", "safety_tolerance": 4}, RULES).field == "safety_tolerance"


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}", " {}", "~/../..{}", "//localhost{}"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_path_never_comes_through(form: str, secret: Path, *, listed: bool) -> None:
    source = form.format(secret)
    for rules in (UntrustedRules(), RULES):
        error = refusal({"prompt": "x", "input_images": [source] if listed else source}, rules)
        assert error.field == "input_images[0]"
        assert "a data URI" in error.rule


def test_a_path_that_is_valid_base64_is_read_as_base64() -> None:
    assert "base64 of an image" in refusal({"prompt": "x", "input_images": "/etc/passwd1"}).rule


@pytest.mark.parametrize("url", ["http://h.example/a.png", "ftp://h/a", "https://u:p@h/a", "https://h/" + "a" * 2048])
def test_only_plain_https_urls_are_allowed(url: str) -> None:
    assert refusal({"prompt": "x", "input_images": url}, RULES).field == "input_images[0]"


def test_https_urls_are_allowed_if_the_rules_say_so() -> None:
    url = "https://h.example/a.png?sig=secret"
    assert KontextRequest.from_untrusted({"prompt": "x", "input_images": [url]}, RULES).input_images == (url,)
    error = refusal({"prompt": "x", "input_images": [url]})
    assert "secret" not in str(error)


@pytest.mark.parametrize("source", [7, None, True, {"path": "/etc/passwd"}, ["/etc/passwd"], "", " ", b"x", Path("a")])
def test_other_sources_are_refused(source: object) -> None:
    assert refusal({"prompt": "x", "input_images": [source]}).field == "input_images[0]"


def test_sizes_are_bounded() -> None:
    rules = UntrustedRules(max_prompt_length=10, max_images=2, max_image_bytes=len(PNG))
    fits = KontextRequest.from_untrusted({"prompt": "x" * 10, "input_images": [DATA_URI, BASE64]}, rules)
    assert len(fits.input_images) == 2
    assert refusal({"prompt": "x" * 11}, rules).value == "'11 characters'"
    assert refusal({"prompt": "x", "input_images": [BASE64] * 3}, rules).value == "'3 images'"
    larger = base64.b64encode(PNG + b"x").decode()
    assert refusal({"prompt": "x", "input_images": larger}, rules).value == f"'{len(PNG) + 1} bytes'"
    assert "characters" in refusal({"prompt": "x", "input_images": BASE64 * 9}, rules).value
    assert refusal({"prompt": "x", "input_images": BASE64}, UntrustedRules(max_images=0)).field == "input_images"


def test_a_body_within_the_rules_has_at_most_max_body_bytes() -> None:
    rules = UntrustedRules(max_prompt_length=100, max_image_bytes=3000)
    body = {"prompt": "\U0001f98a" * 100, "input_images": ["data:image/png;base64," + "A" * 4000] * 4, "seed": -(2**63)}
    assert len(json.dumps(body)) <= rules.max_body_bytes < 2 * len(json.dumps(body))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", " \n"),
        ("prompt", 7),
        ("prompt", None),
        ("prompt", "\ud800"),
        ("seed", "7"),
        ("seed", True),
        ("seed", 1.5),
        ("seed", float("nan")),
        ("seed", 2**63),
        ("aspect_ratio", "4:1"),
        ("aspect_ratio", "1:0"),
        ("aspect_ratio", "16:9\n"),
        ("output_format", "gif"),
        ("output_format", ["png"]),
        ("prompt_upsampling", 1),
    ],
)
def test_invalid_values_are_refused(field: str, value: object) -> None:
    assert refusal({"prompt": "a fox", field: value}).field == field


@pytest.mark.parametrize("given", [None, 7, "a fox", ["a fox"], b"{}"])
def test_anything_but_an_object_is_refused(given: object) -> None:
    assert refusal(given).field == "request"


def test_a_missing_prompt_is_refused() -> None:
    assert refusal({}).field == "prompt"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELD_VALUES = st.sampled_from(["a fox", "png", "16:9", "flux_kontext_max", DATA_URI, BASE64, 3, 3.0, True, None])
BODIES = st.dictionaries(
    st.sampled_from([*RULES.table, "moderation"]) | st.text(), FIELD_VALUES | JSON, max_size=6
) | st.fixed_dictionaries(
    {"prompt": st.text(min_size=1)},
    optional={name: FIELD_VALUES | JSON for name in RULES.table if name != "prompt"},
)


@given(BODIES)
@example({"prompt": "a fox", "seed": 3.0, "input_images": [DATA_URI, BASE64], "model": "flux_kontext_pro"})
def test_whatever_is_accepted_fits_the_json_schema_and_becomes_a_valid_request(body: dict[str, Any]) -> None:
    validator = Draft202012Validator(RULES.json_schema())
    request = error = None
    try:
        request = KontextRequest.from_untrusted(body, RULES)
    except InvalidRequest as refused:
        error = refused
    if request:
        validator.validate(body)
        assert all(str(source).startswith(("data:", "https://")) for source in request.input_images)
    elif error and error.field not in ("prompt", "aspect_ratio") and "input_images" not in error.field:
        assert len(str(error)) < 1000
        assert not validator.is_valid(body)


def test_the_json_schema_is_valid_and_names_the_fields_of_the_rules() -> None:
    schema = UntrustedRules().json_schema()
    Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(UntrustedRules().table)
    assert not {"model", "safety_tolerance", "moderation", "metadata"} & set(schema["properties"])
    assert {"model", "safety_tolerance"} <= set(RULES.json_schema()["properties"])


@pytest.mark.parametrize(
    "rules",
    [
        {"max_prompt_length": 0},
        {"max_images": 5},
        {"max_images": True},
        {"max_image_bytes": -1},
        {"models": "flux"},
        {"max_safety_tolerance": 7},
    ],
)
def test_invalid_rules_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"UntrustedRules.{next(iter(rules))}"):
        UntrustedRules(**rules)


@pytest.mark.parametrize("form", ["{}", "file://{}", "~root/../..{}"])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.anyio
async def test_a_plain_mapping_opens_no_file_of_the_server(
    form: str, *, listed: bool, secret: Path, session: KontextSession, emulator: Emulator, tmp_path: Path
) -> None:
    """Even if a handler passes the body of a request on as it is."""
    source = form.format(secret)
    body = json.loads(json.dumps({"prompt": "x", "input_images": [DATA_URI, source] if listed else source}))
    field = r"input_images\[1\]" if listed else "input_images"
    for use in (session.generate, session.submit, session.estimate):
        with pytest.raises(InvalidRequest, match=f"{field}: .*a path in the body of a request"):
            await use(body)
    (outcome,) = await session.generate_all([body])
    assert isinstance(outcome.error, InvalidRequest)
    report = await BulkRun(session, tmp_path / "out").execute([body])
    assert report.failed == {"InvalidRequest": 1}
    assert count_creates(emulator) == 0


@pytest.mark.anyio
async def test_a_mapping_may_have_paths_as_objects_and_texts_that_are_no_paths(
    secret: Path, session: KontextSession, emulator: Emulator
) -> None:
    sources = [secret, PNG, DATA_URI]
    assert (await session.generate({"prompt": "x", "input_images": sources})).images
    assert (await session.generate({"prompt": "x", "input_images": (each for each in sources)})).images
    assert (await session.generate({"prompt": "x"}, input_images=[str(secret)])).images
    assert KontextRequest.of({"prompt": "x", "input_images": "https://h.example/a"}).input_images
    assert emulator.ledger.billed == 3

"""Requests and results as values: validation, equality, pickling, reprs."""

from __future__ import annotations

import enum
import io
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from kontext_async.errors import InvalidRequest, TaskNotFound
from kontext_async.models import (
    GeneratedImage,
    Generation,
    KontextRequest,
    Outcome,
    SessionStatistics,
    TaskErrorDetail,
    TaskState,
    TaskStatus,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

JPEG = b"\xff\xd8\xff\xe0" + bytes(12)


def catch_error(**fields: Any) -> InvalidRequest:
    """Return the error that a request with these fields raises."""
    with pytest.raises(InvalidRequest) as caught:
        KontextRequest(**{"prompt": "a fox", **fields})
    return caught.value


def test_a_request_needs_only_a_prompt() -> None:
    request = KontextRequest("a fox")
    assert attrs.asdict(request) == {
        "prompt": "a fox",
        "input_images": (),
        "seed": None,
        "aspect_ratio": None,
        "output_format": None,
        "prompt_upsampling": None,
        "safety_tolerance": None,
        "model": "flux_kontext_pro",
        "moderation": None,
        "metadata": None,
    }


INVALID = [
    ("prompt", "", "not blank"),
    ("prompt", " \t\n", "not blank"),
    ("prompt", None, "not blank"),
    ("prompt", 7, "not blank"),
    ("prompt", b"a fox", "not blank"),
    ("prompt", ["a fox"], "not blank"),
    ("prompt", "a \ud800 fox", "surrogates"),
    ("input_images", [JPEG] * 5, "at most 4"),
    ("seed", True, "integer"),
    ("seed", 1.5, "integer"),
    ("seed", float("inf"), "integer"),
    ("seed", np.bool_(True), "integer"),  # noqa: FBT003 # the value is the point
    ("seed", np.float64(1.5), "integer"),
    ("seed", np.array([1]), "integer"),
    ("seed", np.datetime64("2026-01-09"), "integer"),
    ("seed", "1", "integer"),
    ("seed", Decimal(1), "integer"),
    ("seed", 10**1000, "2048 bits"),
    ("aspect_ratio", "22:9", "between 21:9 and 9:21"),
    ("aspect_ratio", "9:22", "between 21:9 and 9:21"),
    ("aspect_ratio", "7001:3000", "between 21:9 and 9:21"),
    ("aspect_ratio", "3000:7001", "between 21:9 and 9:21"),
    ("aspect_ratio", "0:1", "W:H"),
    ("aspect_ratio", "1:0", "W:H"),
    ("aspect_ratio", "01:1", "W:H"),
    ("aspect_ratio", "1.5:1", "W:H"),
    ("aspect_ratio", "-1:-1", "W:H"),
    ("aspect_ratio", "1:1\n", "W:H"),
    ("aspect_ratio", " 1:1", "W:H"),
    ("aspect_ratio", "1/1", "W:H"),
    ("aspect_ratio", "1:1:1", "W:H"),
    ("aspect_ratio", "100000:100000", "W:H"),
    ("aspect_ratio", "١:١", "W:H"),  # noqa: RUF001 # digits, but not those of the protocol
    ("aspect_ratio", "", "W:H"),
    ("aspect_ratio", 1, "W:H"),
    ("aspect_ratio", (16, 9), "W:H"),
    ("output_format", "jpg", "'jpeg', 'png' or 'webp'"),
    ("output_format", "PNG", "'jpeg', 'png' or 'webp'"),
    ("output_format", "gif", "'jpeg', 'png' or 'webp'"),
    ("output_format", ["png"], "'jpeg', 'png' or 'webp'"),
    ("output_format", True, "'jpeg', 'png' or 'webp'"),
    ("output_format", np.array(["png", "jpeg"]), "'jpeg', 'png' or 'webp'"),
    ("prompt_upsampling", 1, "true or false"),
    ("prompt_upsampling", "true", "true or false"),
    ("safety_tolerance", -1, "0 to 6"),
    ("safety_tolerance", 7, "0 to 6"),
    ("safety_tolerance", True, "0 to 6"),
    ("safety_tolerance", 2.5, "0 to 6"),
    ("safety_tolerance", np.int64(7), "0 to 6"),
    ("safety_tolerance", "2", "0 to 6"),
    ("safety_tolerance", 10**1000, "0 to 6"),
    ("model", "", "letters"),
    ("model", "a b", "letters"),
    ("model", "a/b", "letters"),
    ("model", "a\n", "letters"),
    ("model", "modèle", "letters"),
    ("model", None, "letters"),
    ("moderation", 1, "true or false"),
    ("moderation", "no", "true or false"),
    ("metadata", "trace", "text to text"),
    ("metadata", [("a", "b")], "text to text"),
    ("metadata", {"a": 1}, "text to text"),
    ("metadata", {"a": None}, "text to text"),
    ("metadata", {1: "a"}, "text to text"),
    ("metadata", {"a": "\ud800"}, "text to text"),
    ("metadata", {"\ud800": "a"}, "text to text"),
    ("prompt", float("nan"), "not blank"),
    ("prompt", np.float64("nan"), "not blank"),
]


@pytest.mark.parametrize(("name", "value", "rule"), INVALID)
def test_an_invalid_field_is_refused_with_its_name_the_value_and_the_rule(name: str, value: object, rule: str) -> None:
    error = catch_error(**{name: value})
    assert error.field == name
    assert rule in error.rule
    assert error.value in str(error)
    assert (error.retryable, error.may_be_charged) == (False, False)


def test_the_invalid_examples_cover_every_field() -> None:
    assert {name for name, _, _ in INVALID} == set(attrs.fields_dict(KontextRequest))


VALID = [
    ("prompt", "a 🦊 in snow"),
    ("prompt", " x "),
    ("seed", 0),
    ("seed", -1),
    ("seed", 2**64),
    ("aspect_ratio", "21:9"),
    ("aspect_ratio", "9:21"),
    ("aspect_ratio", "7:3"),
    ("aspect_ratio", "3:7"),
    ("aspect_ratio", "1:1"),
    ("aspect_ratio", "99999:99999"),
    ("output_format", "jpeg"),
    ("output_format", "png"),
    ("prompt_upsampling", False),
    ("prompt_upsampling", True),
    *(("safety_tolerance", value) for value in range(7)),
    ("model", "flux_kontext_max"),
    ("model", "Some.other-model_2"),
    ("seed", None),
    ("aspect_ratio", None),
    ("output_format", None),
    ("prompt_upsampling", None),
    ("safety_tolerance", None),
]


@pytest.mark.parametrize(("name", "value"), VALID)
def test_a_valid_field_is_kept_unchanged(name: str, value: Any) -> None:
    request = KontextRequest(**{"prompt": "a fox", name: value})
    assert getattr(request, name) == value


def test_metadata_is_frozen_and_its_order_does_not_matter() -> None:
    given = {"a": "1", "b": "2"}
    request = KontextRequest("a", metadata=given)
    given["a"] = "changed"
    assert request.metadata == {"a": "1", "b": "2"}
    twin = KontextRequest("a", metadata={"b": "2", "a": "1"})
    assert (twin, hash(twin)) == (request, hash(request))
    assert KontextRequest.of(request, seed=1).metadata == request.metadata
    assert len({request, twin}) == 1


def test_empty_metadata_is_not_given() -> None:
    assert KontextRequest("a", metadata={}) == KontextRequest("a")


class BrokenMapping(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        raise OSError("gone")

    def __len__(self) -> int:
        return 1


def test_a_mapping_that_cannot_be_read_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="gone") as caught:
        KontextRequest.of(BrokenMapping())
    assert caught.value.field == "request"
    assert catch_error(metadata=BrokenMapping()).field == "metadata"


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")


def test_a_field_name_that_cannot_be_printed_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest):
        KontextRequest.of({"prompt": "a", Unprintable(): 1})  # type: ignore[dict-item] # the point


def test_safety_tolerance_accepts_an_integer_enumeration() -> None:
    class Strictness(enum.IntEnum):
        STRICT = 1

    assert KontextRequest("a", safety_tolerance=Strictness.STRICT).safety_tolerance == 1


@given(st.integers(1, 99999), st.integers(1, 99999))
def test_an_aspect_ratio_is_valid_exactly_between_both_ends(width: int, height: int) -> None:
    allowed = Fraction(9, 21) <= Fraction(width, height) <= Fraction(21, 9)
    try:
        KontextRequest("a", aspect_ratio=f"{width}:{height}")
    except InvalidRequest:
        assert not allowed
    else:
        assert allowed


any_value: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.lists(st.text(max_size=5), max_size=6),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.just(object()),
)


@given(st.sampled_from(sorted(attrs.fields_dict(KontextRequest))), any_value)
def test_any_value_is_accepted_or_raises_invalid_request(name: str, value: Any) -> None:
    fields: dict[str, Any] = {"prompt": "a fox", name: value}
    errors: list[InvalidRequest] = []
    try:
        KontextRequest(**fields)
    except InvalidRequest as error:
        errors.append(error)
    assert all(error.field.startswith(name) and len(str(error)) < 1000 for error in errors)


@pytest.mark.parametrize(
    "image",
    [JPEG, bytearray(JPEG), memoryview(JPEG), "fox.jpg", Path("fox.jpg"), "https://host/fox.jpg", io.BytesIO(JPEG)],
)
def test_a_single_image_becomes_a_tuple_of_one(image: Any) -> None:
    assert KontextRequest("a", input_images=image).input_images == (image,)


def test_a_single_pillow_image_becomes_a_tuple_of_one() -> None:
    image = Image.new("RGB", (2, 2))
    assert KontextRequest("a", input_images=image).input_images == (image,)


def test_input_images_accepts_any_iterable() -> None:
    def lazily() -> Iterator[str]:
        yield "a.jpg"
        yield "b.jpg"

    assert KontextRequest("a", input_images=lazily()).input_images == ("a.jpg", "b.jpg")
    assert KontextRequest("a", input_images=["a.jpg"]).input_images == ("a.jpg",)
    assert KontextRequest("a", input_images=None).input_images == ()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ([JPEG, b""], "input_images[1]"),
        ([JPEG, 7], "input_images[1]"),
        (7, "input_images[0]"),
        (["fox.jpg", "https://"], "input_images[1]"),
    ],
)
def test_the_error_of_an_invalid_image_has_its_index(given: Any, field: str) -> None:
    assert catch_error(input_images=given).field == field


def test_the_error_of_too_many_images_has_their_number() -> None:
    assert catch_error(input_images=["a"] * 5).value == "'5 images'"


def test_the_repr_of_a_request_hides_its_images() -> None:
    assert repr(KontextRequest("a", input_images=[JPEG])) == (
        "KontextRequest(prompt='a', input_images=<1>, seed=None, aspect_ratio=None, output_format=None, "
        "prompt_upsampling=None, safety_tolerance=None, model='flux_kontext_pro', moderation=None, metadata=None)"
    )


def test_of_builds_a_request_from_a_prompt() -> None:
    assert KontextRequest.of("a fox", seed=7) == KontextRequest("a fox", seed=7)


@pytest.mark.parametrize("kind", [dict, MappingProxyType])
def test_of_builds_a_request_from_a_mapping_and_overriding_fields(kind: Any) -> None:
    given = kind({"prompt": "a fox", "seed": 1})
    assert KontextRequest.of(given) == KontextRequest("a fox", seed=1)
    assert KontextRequest.of(given, seed=2) == KontextRequest("a fox", seed=2)
    assert given == {"prompt": "a fox", "seed": 1}


def test_of_returns_a_request_unchanged_or_with_overriding_fields() -> None:
    request = KontextRequest("a fox", seed=1, model="flux_kontext_max", input_images=["a.jpg"])
    assert KontextRequest.of(request) is request
    changed = KontextRequest.of(request, seed=None, aspect_ratio="1:1")
    assert changed == attrs.evolve(request, seed=None, aspect_ratio="1:1")
    assert KontextRequest.of(request, prompt="a wolf") == attrs.evolve(request, prompt="a wolf")


@pytest.mark.parametrize(
    ("given", "fields", "field"),
    [
        ({"prompt": "a", "size": 3}, {}, "size"),
        ({"prompt": "a", 3: 4}, {}, "3"),
        ("a", {"n": 2}, "n"),
        (KontextRequest("a"), {"n": 2}, "n"),
        (KontextRequest("a"), {"prompt": " "}, "prompt"),
        (KontextRequest("a"), {"prompt": 5}, "prompt"),
        (KontextRequest("a"), {"prompt": "\ud800"}, "prompt"),
        ({"seed": 3}, {}, "prompt"),
        ({}, {}, "prompt"),
        (None, {}, "request"),
        (7, {}, "request"),
        (["a fox"], {}, "request"),
        ("", {}, "prompt"),
        ({"prompt": "a", "x" * 10_000: 3}, {}, "x" * 10),
    ],
)
def test_of_refuses_unknown_fields_missing_prompts_and_other_types(
    given: Any, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        KontextRequest.of(given, **fields)
    assert caught.value.field.startswith(field) or caught.value.field == "…"
    assert len(str(caught.value)) < 1000


def test_the_error_of_an_unknown_field_lists_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="aspect_ratio, output_format"):
        KontextRequest.of({"prompt": "a", "ratio": "1:1"})


@pytest.mark.parametrize(
    ("state", "terminal"),
    [
        (TaskState.IN_PROGRESS, False),
        (TaskState.COMPLETED, True),
        (TaskState.FAILED, True),
        (TaskState.UNKNOWN, False),
    ],
)
def test_only_the_states_completed_and_failed_are_terminal(state: TaskState, terminal: bool) -> None:  # noqa: FBT001 # a parameter
    assert state.is_terminal is terminal


IMAGE = GeneratedImage(url="https://cdn.example/out.jpg?signature=secret", job_id="j1", task_id="t1")
REQUEST = KontextRequest(
    "a fox", input_images=["fox.jpg", JPEG, Path("a.png")], seed=7, moderation=True, metadata={"trace": "t1"}
)
GENERATION = Generation(
    task_id="t1",
    model="flux_kontext_pro",
    request=REQUEST,
    images=(IMAGE,),
    usage=Usage(cost=Decimal("0.04"), discount=1.0, extra={"quantity": 1}),
    created_at=datetime(2026, 1, 9, tzinfo=UTC),
    elapsed=9.5,
    metadata={"in_queue_at": 1},
)
COUNTERS: dict[str, Any] = {a.name: 1 for a in attrs.fields(SessionStatistics)} | {"spent": Decimal("0.04")}
MODELS: list[Any] = [
    REQUEST,
    TaskErrorDetail(code="002", message="no"),
    IMAGE,
    GENERATION.usage,
    TaskStatus(
        task_id="t1",
        state=TaskState.COMPLETED,
        raw_status="done",
        progress=0.5,
        error=TaskErrorDetail(),
        images=(IMAGE,),
        usage=Usage(),
        created_at=datetime(2026, 1, 9, tzinfo=UTC),
        metadata={"a": [1]},
        extra={"b": {}},
    ),
    GENERATION,
    Outcome(index=0, request=REQUEST, task_id="t1", generation=GENERATION),
    Outcome(index=1, request=None, error=TaskNotFound("gone", task_id="t1")),
    SessionStatistics(**COUNTERS),
]
EACH_MODEL = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


@EACH_MODEL
def test_models_are_frozen(model: Any) -> None:
    name = attrs.fields(type(model))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(model, name, None)


@EACH_MODEL
def test_models_are_hashable(model: Any) -> None:
    assert hash(model) == hash(attrs.evolve(model))


@EACH_MODEL
def test_models_are_comparable(model: Any) -> None:
    assert model == attrs.evolve(model)
    assert model != object()


@EACH_MODEL
def test_models_are_picklable(model: Any) -> None:
    twin = pickle.loads(pickle.dumps(model))  # noqa: S301 # pickled on this line
    assert twin == model
    assert type(twin) is type(model)


def test_an_outcome_keeps_its_error_when_pickled() -> None:
    outcome = pickle.loads(pickle.dumps(MODELS[7]))  # noqa: S301 # as above
    assert isinstance(outcome.error, TaskNotFound)
    assert outcome.error.task_id == "t1"


def test_the_image_of_a_generation_is_its_first_one() -> None:
    second = attrs.evolve(IMAGE, job_id="j2")
    assert attrs.evolve(GENERATION, images=(IMAGE, second)).image is IMAGE


def test_an_outcome_is_ok_when_there_is_a_generation() -> None:
    assert Outcome(index=0, request=REQUEST, generation=GENERATION).ok
    assert not Outcome(index=0, request=REQUEST, error=TaskNotFound("gone")).ok


def test_the_reprs_of_models_hide_queries_and_payloads() -> None:
    assert "secret" not in repr(GENERATION)
    assert "cdn.example/out.jpg" in repr(GENERATION)
    assert "QUJD" not in repr(GeneratedImage(url="data:image/png;base64," + "QUJD" * 100))


def test_requests_with_different_fields_are_not_equal() -> None:
    assert KontextRequest("a", seed=1) != KontextRequest("a", seed=2)
    assert KontextRequest("a", input_images=["a", "b"]) != KontextRequest("a", input_images=["b", "a"])

"""Values that travel as JSON, and as types of Pydantic models."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import attrs
import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from session_support import encode_jpeg, encode_png

import kontext_async
from kontext_async import (
    Cancellation,
    CancelOutcome,
    CostLimitReached,
    DownloadFailed,
    Estimate,
    GeneratedImage,
    Generation,
    InvalidRequest,
    KontextError,
    KontextRequest,
    KontextSession,
    Outcome,
    PermissionDenied,
    RateLimited,
    SessionStatistics,
    SubmissionUncertain,
    TaskCancelled,
    TaskErrorDetail,
    TaskFailed,
    TaskState,
    TaskStatus,
    TaskTimeout,
    UntrustedRules,
    Usage,
)

REQUEST = KontextRequest("a fox", seed=7, input_images=["https://h.example/a?sig=1"], metadata={"job": "42"})
IMAGE = GeneratedImage(url="https://h.example/b.png?sig=2", job_id="j", task_id="t")
STATUS = TaskStatus(
    task_id="t",
    state=TaskState.FAILED,
    raw_status="Failed",
    progress=0.5,
    error=TaskErrorDetail(code="c", message="m"),
    images=(IMAGE,),
    usage=Usage(cost=Decimal("0.04"), discount=0.5, extra={"a": 1}),
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    metadata={"deep": [1, {"b": None}]},
)
GENERATION = Generation(
    task_id="t",
    model="flux_kontext_pro",
    request=REQUEST,
    images=(IMAGE,),
    usage=Usage(cost=Decimal("0.04")),
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    elapsed=1.5,
)
VALUES = [
    REQUEST,
    IMAGE,
    STATUS,
    GENERATION,
    Estimate(cost=Decimal("0.04"), model="m"),
    Outcome(index=3, request=REQUEST, task_id="t", generation=GENERATION),
]


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value.to_dict()))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_come_back_from_json_as_they_were(value: Any) -> None:
    assert type(value).from_dict(through_json(value)) == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_unknown_keys_are_ignored(value: Any) -> None:
    assert type(value).from_dict({**through_json(value), "of a newer version": [1]}) == value


async def use(session: KontextSession) -> SessionStatistics:
    await session.generate("a fox")
    return session.statistics()


@pytest.mark.anyio
async def test_results_of_a_session_travel(session: KontextSession) -> None:
    for outcome in await session.generate_all(["a fox", "a hare"]):
        assert Outcome.from_dict(through_json(outcome)) == outcome
    figures = await use(session)
    assert SessionStatistics.from_dict(through_json(figures)) == figures


CANCELLED = CancelOutcome(
    task_id="t", reference="vtrix:t", cancellation=Cancellation.UNKNOWN, status=STATUS, cost=Decimal("0.04")
)

ERRORS = [
    KontextError("a text", task_id="t", request_id="r", retryable=True),
    InvalidRequest("seed", 7, "it must be less"),
    PermissionDenied("no", status=402, code="40201", body="b", from_gateway=True),
    RateLimited("slow down", status=429),
    SubmissionUncertain(request=REQUEST, fingerprint="f" * 64, seen="no response"),
    SubmissionUncertain(request=None, fingerprint="f" * 64, seen="no response"),
    TaskFailed(task_id="t", code=None, message="moderated"),
    TaskTimeout(task_id="t", waited=1.5, last_status=STATUS),
    TaskTimeout(task_id="t", waited=1.5, last_status=None),
    TaskTimeout(task_id="t", waited=1.5, last_status=None, reference="vtrix:t", cancelled=CANCELLED),
    TaskCancelled(task_id="t", code=None, message="cancelled"),
    DownloadFailed(url="https://h/a", reason="gone", task_id="t"),
    CostLimitReached(spent=Decimal("1.20"), limit=Decimal(1)),
]


def test_the_cost_of_a_cancelled_task_comes_back() -> None:
    error = TaskCancelled(task_id="t", code=None, message="cancelled")
    error.cost = Decimal("0.04")
    back = Outcome.from_dict(through_json(Outcome(index=0, request=None, error=error))).error
    assert isinstance(back, TaskCancelled)
    assert back.cost == Decimal("0.04")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_error_of_an_outcome_comes_back_with_its_class_and_attributes(error: KontextError) -> None:
    back = Outcome.from_dict(through_json(Outcome(index=0, request=None, error=error))).error
    assert back is not None
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert (back.retryable, back.may_be_charged) == (error.retryable, error.may_be_charged)


def test_every_error_of_the_tree_comes_back_as_its_class() -> None:
    names = [name for name in kontext_async.__all__ if isinstance(getattr(kontext_async, name), type)]
    kinds = [kind for name in names if issubclass(kind := getattr(kontext_async, name), KontextError)]
    assert len(kinds) > 20
    for kind in kinds:
        data = {"index": 0, "request": None, "error": {"type": kind.__name__, "text": "m", "spent": 1, "limit": 2}}
        assert type(Outcome.from_dict(data).error) is kind


def test_an_error_of_a_newer_version_comes_back_as_the_root_of_the_tree() -> None:
    back = Outcome.from_dict({"index": 0, "request": None, "error": {"type": "Newer", "text": "m"}}).error
    assert type(back) is KontextError
    assert str(back) == "m"


@pytest.mark.parametrize(("data", "media_type"), [(encode_png(), "png"), (encode_jpeg(), "jpeg")])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_travel_as_a_data_uri(data: bytes, media_type: str, kind: Any) -> None:
    made = KontextRequest("x", input_images=kind(data)).to_dict()
    assert made["input_images"][0].startswith(f"data:image/{media_type};base64,")
    assert KontextRequest.from_dict(made).input_images == tuple(made["input_images"])


@pytest.mark.parametrize("source", ["fox.jpg", Path("fox.jpg"), "file:///fox.jpg"])
def test_a_path_travels_only_to_those_who_allow_it(source: Any) -> None:
    made = KontextRequest("x", input_images=source).to_dict()
    assert made["input_images"] == [{"path": str(source)}]
    with pytest.raises(InvalidRequest, match="allow_paths=True"):
        KontextRequest.from_dict(made)
    assert KontextRequest.from_dict(made, allow_paths=True).input_images == (Path(str(source)),)


@pytest.mark.parametrize("source", ["/etc/passwd", "file:///etc/passwd"])
def test_text_that_names_a_file_is_never_read_from_json(source: str) -> None:
    for allow_paths in (False, True):
        with pytest.raises(InvalidRequest, match="opened on this computer"):
            KontextRequest.from_dict({"prompt": "x", "input_images": [source]}, allow_paths=allow_paths)


def test_what_cannot_travel_is_refused_and_an_outcome_leaves_its_request_behind() -> None:
    request = KontextRequest("x", input_images=BytesIO(encode_png()))
    with pytest.raises(InvalidRequest, match=r"input_images\[0\]: .*cannot travel"):
        request.to_dict()
    generation = attrs.evolve(GENERATION, request=request)
    outcome = Outcome(index=0, request=request, generation=generation)
    back = Outcome.from_dict(through_json(outcome))
    assert back.request is None
    assert back.generation == attrs.evolve(GENERATION, request=None)
    uncertain = Outcome(
        index=0, request=None, error=SubmissionUncertain(request=request, fingerprint="f", seen="no response")
    )
    assert isinstance(error := Outcome.from_dict(through_json(uncertain)).error, SubmissionUncertain)
    assert error.request is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KINDS = [KontextRequest, GeneratedImage, TaskStatus, Generation, Outcome, Usage, Estimate, SessionStatistics]


NAMES = sorted({each.name for kind in KINDS for each in attrs.fields(kind)})
FOREIGN = JSON | st.dictionaries(st.sampled_from(NAMES) | st.text(), JSON, max_size=5)


@given(st.sampled_from(KINDS), FOREIGN)
def test_foreign_json_is_a_value_or_an_invalid_request(kind: Any, foreign: Any) -> None:
    made = error = None
    try:
        made = kind.from_dict(foreign)
    except InvalidRequest as refused:
        error = refused
    assert isinstance(made, kind) or len(str(error)) < 2500


class Job(BaseModel):
    request: KontextRequest
    status: TaskStatus | None = None


class Wide(BaseModel):
    request: Annotated[KontextRequest, UntrustedRules(allow_urls=True, models=("flux_kontext_max",))]


def test_values_are_types_of_pydantic_models() -> None:
    job = Job(request=KontextRequest("a fox", seed=7), status=STATUS)
    assert job.request.seed == 7
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert TypeAdapter(Generation).validate_python(through_json(GENERATION)) == GENERATION


@pytest.mark.parametrize("body", [{"prompt": "x", "input_images": "/etc/passwd"}, {"prompt": "x", "model": "m"}, "x"])
def test_a_request_in_a_pydantic_model_is_untrusted(body: object) -> None:
    with pytest.raises(ValidationError, match="is not allowed"):
        Job.model_validate({"request": body})


def test_rules_annotate_a_request_in_a_pydantic_model() -> None:
    body = {"prompt": "x", "model": "flux_kontext_max", "input_images": "https://h.example/a.png"}
    assert Wide.model_validate({"request": body}).request.model == "flux_kontext_max"
    with pytest.raises(ValidationError):
        Job.model_validate({"request": body})
    schema = Wide.model_json_schema()["properties"]["request"]
    assert schema["properties"]["model"] == {"type": "string", "enum": ["flux_kontext_max"]}
    assert set(Job.model_json_schema()["properties"]["request"]["properties"]) == set(UntrustedRules().table)

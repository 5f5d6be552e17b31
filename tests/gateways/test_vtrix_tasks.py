"""A task, read from the response to a create request or a status request."""

from __future__ import annotations

import json
import pickle
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from gateways_support import new_gateway
from hypothesis import example, given, strategies as st
from response_support import ID, encode_response, read_response

from kontext_async.errors import InvalidResponse
from kontext_async.gateways.vtrix_tasks import read_accepted, read_created, read_poll, read_status
from kontext_async.models import GeneratedImage, TaskErrorDetail, TaskState, TaskStatus, Usage
from kontext_async.protocol import InProgress, check_task_id, clean_body
from kontext_async.protocol.http import Response

URL = "https://image.cdn.example/out.jpg?sig=1"


def catch_error(body: bytes) -> InvalidResponse:
    with pytest.raises(InvalidResponse) as caught:
        read_status(body, ID, status=203)
    assert caught.value.status == 203
    return caught.value


def find_accepted(body: bytes) -> TaskStatus | None:
    acceptance = new_gateway("vtrix").accepted_despite_error(Response(500, body), model="flux_kontext_pro")
    return None if acceptance is None else acceptance.status


def test_a_task_in_progress_is_read() -> None:
    body = (
        b'{"id": "d8ejq1de878c739e2lrg", "status": "in_progress", "model": "flux_kontext_pro", '
        b'"created_at": 1767965610, "progress": 0.42}'
    )
    expected = TaskStatus(
        task_id=ID,
        state=TaskState.IN_PROGRESS,
        raw_status="in_progress",
        model="flux_kontext_pro",
        progress=0.42,
        created_at=datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC),
    )
    assert read_status(body, ID) == expected
    assert read_created(body) == expected


def test_of_an_accepted_task_in_progress_only_the_id_is_read() -> None:
    assert read_accepted(encode_response(status="in_progress", progress=0.42)) == ID


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "completed", "output": [{"content": [{"type": "image", "url": URL}]}]},
        {"status": "failed", "error": {"message": "generation failed"}},
        {"status": "a new one"},
        {"status": "in_progress", "output": []},
    ],
)
def test_any_other_accepted_task_is_read_in_full(fields: dict[str, Any]) -> None:
    body = encode_response(**fields)
    assert read_accepted(body) == read_created(body)


@pytest.mark.parametrize("body", [b'{"status": "in_progress"}', b'{"status": "in_progress", "id": "."}', b"[]", b""])
def test_a_response_without_a_task_id_accepts_nothing(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        read_accepted(body)


def test_a_completed_task_is_read() -> None:
    body = encode_response(
        status="completed",
        model="flux_kontext_pro",
        created_at=1767965610,
        output=[{"content": [{"type": "image", "url": URL, "jobId": "j1"}]}],
        usage={"cost": "0.04", "discount": 1.0},
        metadata={"in_queue_at": 1767965610, "completed_at": 1767965619},
    )
    expected = TaskStatus(
        task_id=ID,
        state=TaskState.COMPLETED,
        raw_status="completed",
        model="flux_kontext_pro",
        images=(GeneratedImage(url=URL, type="image", job_id="j1", task_id=ID),),
        usage=Usage(cost=Decimal("0.04"), discount=1.0),
        created_at=datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC),
        metadata={"in_queue_at": 1767965610, "completed_at": 1767965619},
    )
    assert read_status(body, ID) == expected
    assert read_created(body) == expected  # a create request can return it too


def test_a_failed_task_is_read() -> None:
    body = encode_response(status="failed", error={"code": "002014001", "message": "generation failed"})
    for status in (read_status(body, ID), read_created(body)):
        assert status.state is TaskState.FAILED
        assert status.error == TaskErrorDetail(code="002014001", message="generation failed")


@pytest.mark.parametrize(
    ("raw_status", "state"),
    [
        ("in_progress", TaskState.IN_PROGRESS),
        ("IN_PROGRESS", TaskState.IN_PROGRESS),
        ("completed", TaskState.COMPLETED),
        ("Completed", TaskState.COMPLETED),
        ("done", TaskState.COMPLETED),
        ("DONE", TaskState.COMPLETED),
        ("succeeded", TaskState.COMPLETED),
        ("failed", TaskState.FAILED),
        ("FAILED", TaskState.FAILED),
        (" failed ", TaskState.FAILED),
        ("queued", TaskState.UNKNOWN),
        ("pending", TaskState.UNKNOWN),
        ("IN_QUEUE", TaskState.UNKNOWN),
        ("cancelled", TaskState.UNKNOWN),
        ("", TaskState.UNKNOWN),
    ],
)
def test_each_raw_status_has_its_state(raw_status: str, state: TaskState) -> None:
    status = read_response(status=raw_status)
    assert (status.state, status.raw_status) == (state, raw_status)
    assert status.state.is_terminal is (state in (TaskState.COMPLETED, TaskState.FAILED))


@pytest.mark.parametrize(
    "raw_status", ["cancelled", "canceled", "expired", "rejected", "error", "Cancelled", " EXPIRED "]
)
@pytest.mark.parametrize("error", [{"code": "C", "message": "no"}, "no", {}, ""])
def test_an_end_with_an_error_is_a_failure(raw_status: str, error: Any) -> None:
    status = read_response(status=raw_status, error=error)
    assert status.state is TaskState.FAILED
    assert status.error is not None


@pytest.mark.parametrize("raw_status", ["cancelled", "canceled", "expired", "rejected", "error"])
def test_an_end_without_an_error_is_not_finished_yet(raw_status: str) -> None:
    assert read_response(status=raw_status).state is TaskState.UNKNOWN
    assert read_response(status=raw_status, error=None).state is TaskState.UNKNOWN


def test_an_unknown_status_with_an_error_is_not_finished_yet() -> None:
    assert read_response(status="queued", error="slow").state is TaskState.UNKNOWN


def test_only_the_first_images_of_too_many_are_read_and_the_others_are_counted() -> None:
    items = [{"url": f"{URL}&{index}"} for index in range(200)]
    status = read_response(status="completed", output=[{"content": items[:50]}, {"content": items[50:]}])
    assert [image.url for image in status.images] == [f"{URL}&{index}" for index in range(64)]
    assert status.omitted_images == 136


@pytest.mark.parametrize("groups", [1, 2, 100_000])
def test_reading_a_response_with_a_hundred_thousand_images_takes_a_moment(groups: int) -> None:
    items = [{"url": f"https://cdn.example/{index}.png?a=%2F"} for index in range(100_000)]
    size = len(items) // groups
    output = [{"content": items[start : start + size]} for start in range(0, len(items), size)]
    body = encode_response(status="completed", output=output)
    started = time.perf_counter()
    status = read_status(clean_body(body, "sk-0123456789"), ID)
    assert time.perf_counter() - started < 30 * json_seconds(body)
    assert len(status.images) == 64
    assert status.omitted_images > 0


def json_seconds(body: bytes) -> float:
    """Return the time that parsing takes, which cannot be avoided."""
    started = time.perf_counter()
    orjson.loads(body)
    return time.perf_counter() - started


def test_as_many_images_as_are_allowed_are_read() -> None:
    status = read_response(status="completed", output=[{"content": [{"url": URL}] * 64}])
    assert (len(status.images), status.omitted_images) == (64, 0)


def test_a_long_raw_status_is_bounded() -> None:
    assert len(read_response(status="so " * 1000).raw_status) == 80


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"error": {"code": "002", "message": "no"}}, TaskErrorDetail(code="002", message="no")),
        ({"error": {"code": "002", "error_message": "no"}}, TaskErrorDetail(code="002", message="no")),
        ({"error": {"code": 2014001, "message": "no"}}, TaskErrorDetail(code="2014001", message="no")),
        ({"error": {"code": 0, "message": "no"}}, TaskErrorDetail(code="0", message="no")),
        ({"error": {"code": None, "message": "no"}}, TaskErrorDetail(code=None, message="no")),
        ({"error": "no"}, TaskErrorDetail(message="no")),
        ({"error": ["no"]}, TaskErrorDetail(message="['no']")),
        ({"error": {"message": {"de": "nein"}}}, TaskErrorDetail(message="{'de': 'nein'}")),
        ({"error": None}, TaskErrorDetail(message="no reason was given")),
        ({"error": {}}, TaskErrorDetail(message="no reason was given")),
        ({"error": ""}, TaskErrorDetail(message="no reason was given")),
        ({}, TaskErrorDetail(message="no reason was given")),
        ({"error": None, "error_message": "no"}, TaskErrorDetail(message="no")),
        ({"error": None, "message": "no"}, TaskErrorDetail(message="no")),
        ({"error": {"code": "002"}, "message": "no"}, TaskErrorDetail(code="002", message="no")),
    ],
)
def test_each_shape_of_a_task_error_is_read(fields: dict[str, Any], expected: TaskErrorDetail) -> None:
    assert read_response(status="failed", **fields).error == expected


@pytest.mark.parametrize("value", [None, "", {}, []])
def test_an_empty_error_of_a_task_that_has_not_failed_is_none(value: Any) -> None:
    assert read_response(error=value).error is None
    assert read_response(status="completed", error=value).error is None


def test_the_error_of_a_task_in_progress_is_kept() -> None:
    assert read_response(error={"code": "SYNC_TIMEOUT", "message": "wait ended"}).error == TaskErrorDetail(
        code="SYNC_TIMEOUT", message="wait ended"
    )


def test_a_task_error_is_bounded_and_has_no_payload() -> None:
    error = read_response(
        status="failed", error={"code": "QUJD" * 100, "message": "QUJD" * 1000 + "words " * 1000}
    ).error
    assert error is not None
    assert len(error.message) <= 500
    assert "QUJDQUJD" not in error.message
    assert error.code == "…"


@pytest.mark.parametrize("value", [None, [], [{}], [{"content": None}], [{"content": []}], [{"content": [{}]}], {}, ""])
def test_an_empty_output_in_any_shape_has_no_images(value: Any) -> None:
    assert read_response(status="completed", output=value).images == ()


def test_a_missing_output_has_no_images() -> None:
    assert read_response(status="completed").images == ()


def test_images_keep_their_order_and_items_without_a_url_are_ignored() -> None:
    output = [
        {"id": "g1", "content": [{"type": "image", "url": "u1", "jobId": "j1"}, {"type": "text", "text": "hi"}]},
        {"content": [{"url": ""}, {"url": None}]},
        {"content": [{"url": "u2", "img_id": 3, "duration": 1.5, "chunk_index": 0}, {"type": "video", "url": "u3"}]},
    ]
    assert read_response(status="completed", output=output).images == (
        GeneratedImage(url="u1", type="image", job_id="j1", task_id=ID),
        GeneratedImage(url="u2", type="image", task_id=ID),
        GeneratedImage(url="u3", type="video", task_id=ID),
    )


@pytest.mark.parametrize(
    ("item", "kind", "job"),
    [
        ({"jobId": 7}, "image", "7"),
        ({"jobId": None}, "image", None),
        ({"type": None}, "image", None),
        ({"type": 3}, "image", None),
        ({"type": ""}, "image", None),
    ],
)
def test_a_wrong_type_beside_a_url_loses_only_that_detail(item: dict[str, Any], kind: str, job: str | None) -> None:
    (image,) = read_response(status="completed", output=[{"content": [{"url": URL, **item}]}]).images
    assert (image.url, image.type, image.job_id) == (URL, kind, job)


def test_usage_keeps_unknown_keys() -> None:
    extra = {"quantity": 1, "unit_price": "0.04", "extra_info": {"a": None}}
    assert read_response(usage={"cost": "0.04", **extra}).usage == Usage(cost=Decimal("0.04"), extra=extra)


@pytest.mark.parametrize("value", [None, [], "0.04", 3])
def test_usage_that_is_not_an_object_is_none(value: Any) -> None:
    assert read_response(usage=value).usage is None


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_metadata_that_is_not_an_object_is_empty(value: Any) -> None:
    assert read_response(metadata=value).metadata == {}


@pytest.mark.parametrize("value", [None, 3, []])
def test_a_model_that_is_not_text_is_none(value: Any) -> None:
    assert read_response(model=value).model is None


def test_unknown_keys_of_a_task_are_kept() -> None:
    status = read_response(queue_position=3, request_id="r1", message="soon", nested={"a": [1]})
    assert status.extra == {"queue_position": 3, "request_id": "r1", "message": "soon", "nested": {"a": [1]}}


def test_a_status_response_may_omit_the_id() -> None:
    assert read_status(b'{"status": "queued"}', ID).task_id == ID


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>Bad Gateway</html>", "not JSON"),
        (b'{"id": "d8', "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "not a JSON object, but list"),
        (b"null", "not a JSON object, but NoneType"),
        (b'"done"', "not a JSON object, but str"),
        (b"{}", "response"),
        (b'{"id": "d8ejq1de878c739e2lrg"}', "status"),
        (encode_response(status=None), "response.status"),
        (encode_response(status=3), "response.status"),
        (encode_response(status=["failed"]), "response.status"),
        (encode_response(id=None), "response.id"),
        (encode_response(id=7), "response.id"),
        (encode_response(id="other"), "about task 'other'"),
        (encode_response(id=""), "not a task ID"),
        (encode_response(output=7), "response.output"),
        (encode_response(output="abc"), "response.output"),
        (encode_response(output=[None]), "response.output[0]"),
        (encode_response(output=[{"content": 7}]), "response.output[0].content"),
        (encode_response(output=[{"content": ["x"]}]), "response.output[0].content[0]"),
        (encode_response(output=[{"content": [{"url": 7}]}]), "response.output[0].content[0].url"),
    ],
)
def test_an_invalid_response_is_an_error_that_names_the_path(body: bytes, reason: str) -> None:
    error = catch_error(body)
    assert reason in str(error)
    assert len(str(error)) < 1000
    assert error.body is not None
    assert len(error.body) <= 500
    assert pickle.loads(pickle.dumps(error)).args == error.args  # noqa: S301 # pickled on this line


@pytest.mark.parametrize("body", [b'{"status": "in_progress"}', b'{"id": "", "status": "completed"}', b"{}"])
def test_a_create_response_without_an_id_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        read_created(body)


@pytest.mark.parametrize("task_id", ["", " ", ".", "..", "x" * 513, "\ud800", "\x1f"])
def test_an_id_that_cannot_be_polled_is_invalid(task_id: str) -> None:
    with pytest.raises(InvalidResponse, match="not a task ID"):
        read_created(encode_response(id=task_id))


def test_accepted_despite_error_finds_the_task_in_an_error_response() -> None:
    body = encode_response(error={"code": "SYNC_TIMEOUT"})  # a 504 to a create request that waits
    status = find_accepted(body)
    assert status is not None
    assert (status.task_id, status.state) == (ID, TaskState.IN_PROGRESS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        b'{"error": {"code": "INTERNAL", "message": "no"}}',
        b'{"status": "in_progress"}',
        b'{"id": "r1", "error": "no"}',
        encode_response(status="failed"),
    ],
)
def test_accepted_despite_error_finds_no_task_in_any_other_error_response(body: bytes) -> None:
    assert find_accepted(body) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
contents = st.dictionaries(st.sampled_from(["url", "type", "jobId", "x"]), json_values)
groups = st.dictionaries(st.sampled_from(["content", "id"]), json_values | st.lists(contents | json_values, max_size=3))
errors = st.dictionaries(st.sampled_from(["code", "message", "error_message"]), json_values)
usages = st.dictionaries(st.sampled_from(["cost", "discount", "quantity"]), json_values)
tasks = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just(ID) | json_values,
        "status": st.sampled_from(["in_progress", "completed", "FAILED", "queued"]) | json_values,
        "output": json_values | st.lists(groups | json_values, max_size=3),
        "error": json_values | errors,
        "usage": json_values | usages,
        "metadata": json_values,
        "created_at": json_values,
        "progress": json_values,
        "model": json_values,
        "error_message": json_values,
        "x": json_values,
    },
)
bodies = st.one_of(st.binary(max_size=100), (json_values | tasks).map(lambda value: json.dumps(value).encode()))


@given(bodies)
@example(b'{"id": "\\ud800", "status": "x"}')
@example(b'{"id": "d8ejq1de878c739e2lrg", "status": "\\ud800"}')
@example(b'{"id": "d8ejq1de878c739e2lrg", "status": "failed", "error": {"code": [1e999]}}')
def test_any_response_is_a_status_or_an_invalid_response(body: bytes) -> None:
    caught: list[InvalidResponse] = []
    try:
        created = read_created(body)
    except InvalidResponse as error:
        caught.append(error)
    else:
        assert check_task_id(created.task_id)
        assert pickle.loads(pickle.dumps(created)).task_id == created.task_id  # noqa: S301 # pickled on this line
        assert hash(created)
        assert created.progress is None or 0 <= created.progress <= 1
        assert all(image.url and image.task_id == created.task_id for image in created.images)
    try:
        assert read_status(body, ID).task_id == ID
    except InvalidResponse as error:
        caught.append(error)
    assert all(error.status == 200 and len(str(error)) < 1000 and pickle.dumps(error) for error in caught)
    accepted = find_accepted(body)
    assert accepted is None or accepted.state is not TaskState.FAILED


@given(bodies)
@example(b'{"status": "in_progress", "progress": NaN}')
@example(b'{"id": null, "status": "in_progress"}')
@example(b'{"status": "in_progress", "error": {"message": "odd"}, "x": "\\ud800"}')
@example(b'{"status": "in_progress", "output": []}')
def test_read_poll_agrees_with_read_status(body: bytes) -> None:
    try:
        read = read_poll(body, ID)
    except InvalidResponse as error:
        with pytest.raises(InvalidResponse) as caught:
            read_status(body, ID)
        assert str(caught.value) == str(error)  # noqa: PT017 # both must fail alike
        return
    status = read_status(body, ID)
    if isinstance(read, InProgress):
        assert (status.task_id, status.state, status.progress) == (ID, TaskState.IN_PROGRESS, read.progress)
        assert not status.images
    else:
        assert read == status


@pytest.mark.parametrize("progress", [None, 0.0, 0.42, 1])
def test_read_poll_reads_only_the_progress_of_a_task_in_progress(progress: float | None) -> None:
    assert read_poll(encode_response(progress=progress), ID) == InProgress(progress)


@pytest.mark.parametrize(
    "body",
    [
        encode_response(status="completed"),
        encode_response(status="queued"),
        encode_response(output=[]),
    ],
)
def test_read_poll_reads_any_other_response_in_full(body: bytes) -> None:
    assert read_poll(body, ID) == read_status(body, ID)


DESCRIBED_KEYS = {"id", "status", "model", "progress", "error", "output", "usage", "created_at", "metadata"}


@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key not in DESCRIBED_KEYS), json_values, max_size=5))
def test_any_unknown_key_is_kept_unchanged(extra: dict[str, Any]) -> None:
    status = read_status(encode_response(x=1, **{key: value for key, value in extra.items() if key != "x"}), ID)
    assert set(status.extra) == {"x", *extra}


@pytest.mark.parametrize("depth", range(700, 1000, 3))
def test_a_response_of_any_depth_is_a_status_or_an_invalid_response(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    body = b'{"id": "d8ejq1de878c739e2lrg", "status": "failed", "error": ' + deep + b"}"
    try:
        assert read_status(body, ID).error is not None
    except InvalidResponse as error:
        assert "not JSON" in str(error)  # noqa: PT017 # both results are right

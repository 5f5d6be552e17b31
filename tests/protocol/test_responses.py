from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from kontext_async.errors import InvalidResponse
from kontext_async.models import GeneratedImage, TaskErrorDetail, TaskState, TaskStatus, Usage
from kontext_async.protocol import (
    InProgress,
    accepted_despite_error,
    check_task_id,
    read_created,
    read_poll,
    read_status,
)

ID = "d8ejq1de878c739e2lrg"
URL = "https://image.cdn.example/out.jpg?sig=1"


def answer(**fields: Any) -> bytes:
    return json.dumps({"id": ID, "status": "in_progress", **fields}).encode()


def read(**fields: Any) -> TaskStatus:
    return read_status(answer(**fields), ID)


def malformed(body: bytes) -> InvalidResponse:
    with pytest.raises(InvalidResponse) as caught:
        read_status(body, ID, status=203)
    assert caught.value.status == 203
    return caught.value


def test_a_running_task_is_read() -> None:
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


def test_a_completed_task_is_read() -> None:
    body = answer(
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
    assert read_created(body) == expected  # a create can already be answered so


def test_a_failed_task_is_read() -> None:
    body = answer(status="failed", error={"code": "002014001", "message": "generation failed"})
    for status in (read_status(body, ID), read_created(body)):
        assert status.state is TaskState.FAILED
        assert status.error == TaskErrorDetail(code="002014001", message="generation failed")


@pytest.mark.parametrize(
    ("word", "state"),
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
def test_each_word_has_its_state(word: str, state: TaskState) -> None:
    status = read(status=word)
    assert (status.state, status.raw_status) == (state, word)
    assert status.state.is_terminal is (state in (TaskState.COMPLETED, TaskState.FAILED))


def test_a_long_word_is_bounded() -> None:
    assert len(read(status="so " * 1000).raw_status) == 80


@pytest.mark.parametrize(
    ("value", "progress"),
    [
        (0, 0.0),
        (0.0, 0.0),
        (0.42, 0.42),
        (1, 1.0),
        (1.5, 1.0),
        (-0.1, 0.0),
        (None, None),
        ("0.4", None),
        (True, None),
        ([], None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
def test_progress_is_a_fraction_or_not_known(value: Any, progress: float | None) -> None:
    assert read(progress=value).progress == progress


def test_progress_may_be_missing() -> None:
    assert read().progress is None


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (1767965610, datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC)),
        (1767965610000, datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC)),
        (1767965610.5, datetime(2026, 1, 9, 13, 33, 30, 500_000, tzinfo=UTC)),
        (1767965610500, datetime(2026, 1, 9, 13, 33, 30, 500_000, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (99_999_999_999, datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC)),
        (100_000_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        (10**15, None),
        (10**30, None),
        (-(10**15), None),
        (10**400, None),
        (None, None),
        (True, None),
        ("2026-01-09", None),
        ({}, None),
        (float("nan"), None),
    ],
)
def test_a_time_is_in_seconds_or_milliseconds_by_its_size(value: Any, time: datetime | None) -> None:
    assert read(created_at=value).created_at == time


@pytest.mark.parametrize(
    ("fields", "problem"),
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
def test_each_shape_of_an_error_is_read(fields: dict[str, Any], problem: TaskErrorDetail) -> None:
    assert read(status="failed", **fields).error == problem


@pytest.mark.parametrize("value", [None, "", {}, []])
def test_a_task_that_has_not_failed_has_no_error(value: Any) -> None:
    assert read(error=value).error is None
    assert read(status="completed", error=value).error is None


def test_what_a_running_task_says_of_an_error_is_kept() -> None:
    assert read(error={"code": "SYNC_TIMEOUT", "message": "wait ended"}).error == TaskErrorDetail(
        code="SYNC_TIMEOUT", message="wait ended"
    )


def test_an_error_is_bounded_and_holds_no_payload() -> None:
    problem = read(status="failed", error={"code": "QUJD" * 100, "message": "QUJD" * 1000 + "words " * 1000}).error
    assert problem is not None
    assert len(problem.message) <= 500
    assert "QUJDQUJD" not in problem.message
    assert problem.code == "…"


@pytest.mark.parametrize("value", [None, [], [{}], [{"content": None}], [{"content": []}], [{"content": [{}]}], {}, ""])
def test_an_output_may_be_empty_in_many_ways(value: Any) -> None:
    assert read(status="completed", output=value).images == ()


def test_an_output_may_be_missing() -> None:
    assert read(status="completed").images == ()


def test_pictures_keep_their_order_and_only_items_with_a_url_count() -> None:
    output = [
        {"id": "g1", "content": [{"type": "image", "url": "u1", "jobId": "j1"}, {"type": "text", "text": "hi"}]},
        {"content": [{"url": ""}, {"url": None}]},
        {"content": [{"url": "u2", "img_id": 3, "duration": 1.5, "chunk_index": 0}, {"type": "video", "url": "u3"}]},
    ]
    assert read(status="completed", output=output).images == (
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
def test_a_wrong_type_beside_a_url_loses_the_detail_only(item: dict[str, Any], kind: str, job: str | None) -> None:
    (image,) = read(status="completed", output=[{"content": [{"url": URL, **item}]}]).images
    assert (image.url, image.type, image.job_id) == (URL, kind, job)


@pytest.mark.parametrize(
    ("value", "cost"),
    [
        ("0.04", Decimal("0.04")),
        (" 0.04 ", Decimal("0.04")),
        ("0", Decimal(0)),
        (0.04, Decimal("0.04")),
        (1, Decimal(1)),
        ("", None),
        (" ", None),
        (None, None),
        ("free", None),
        ("NaN", None),
        ("Infinity", None),
        (float("nan"), None),
        (True, None),
        ([], None),
        ("1e999999999999999999999", None),
        ("9e999999", None),
        ("999999999999.99", Decimal("999999999999.99")),
        ("1000000000000", None),
        (10**400, None),
    ],
)
def test_a_cost_is_exact_or_not_known(value: Any, cost: Decimal | None) -> None:
    usage = read(status="completed", usage={"cost": value}).usage
    assert usage is not None
    assert usage.cost == cost


@pytest.mark.parametrize(("value", "discount"), [(1, 1.0), (0.7, 0.7), (None, None), ("0.7", None), (True, None)])
def test_a_discount_is_a_number_or_not_known(value: Any, discount: float | None) -> None:
    usage = read(usage={"discount": value}).usage
    assert usage is not None
    assert usage.discount == discount


def test_usage_keeps_what_else_it_says() -> None:
    extra = {"quantity": 1, "unit_price": "0.04", "extra_info": {"a": None}}
    assert read(usage={"cost": "0.04", **extra}).usage == Usage(cost=Decimal("0.04"), extra=extra)


@pytest.mark.parametrize("value", [None, [], "0.04", 3])
def test_usage_that_is_no_object_is_not_known(value: Any) -> None:
    assert read(usage=value).usage is None


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_metadata_that_is_no_object_is_empty(value: Any) -> None:
    assert read(metadata=value).metadata == {}


@pytest.mark.parametrize("value", [None, 3, []])
def test_a_model_that_is_no_text_is_not_known(value: Any) -> None:
    assert read(model=value).model is None


def test_unknown_keys_are_kept() -> None:
    status = read(queue_position=3, request_id="r1", message="soon", nested={"a": [1]})
    assert status.extra == {"queue_position": 3, "request_id": "r1", "message": "soon", "nested": {"a": [1]}}


def test_a_status_may_leave_out_its_id() -> None:
    assert read_status(b'{"status": "queued"}', ID).task_id == ID


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"<html>Bad Gateway</html>", "not JSON"),
        (b'{"id": "d8', "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[]", "not an object, but list"),
        (b"null", "not an object, but NoneType"),
        (b'"done"', "not an object, but str"),
        (b"{}", "answer"),
        (b'{"id": "d8ejq1de878c739e2lrg"}', "status"),
        (answer(status=None), "answer.status"),
        (answer(status=3), "answer.status"),
        (answer(status=["failed"]), "answer.status"),
        (answer(id=None), "answer.id"),
        (answer(id=7), "answer.id"),
        (answer(id="other"), "about task 'other'"),
        (answer(id=""), "no id"),
        (answer(output=7), "answer.output"),
        (answer(output="abc"), "answer.output"),
        (answer(output=[None]), "answer.output[0]"),
        (answer(output=[{"content": 7}]), "answer.output[0].content"),
        (answer(output=[{"content": ["x"]}]), "answer.output[0].content[0]"),
        (answer(output=[{"content": [{"url": 7}]}]), "answer.output[0].content[0].url"),
    ],
)
def test_what_cannot_be_read_is_malformed_and_names_the_path(body: bytes, words: str) -> None:
    error = malformed(body)
    assert words in str(error)
    assert len(str(error)) < 1000
    assert error.body is not None
    assert len(error.body) <= 500
    assert pickle.loads(pickle.dumps(error)).args == error.args  # noqa: S301 # made on this line


@pytest.mark.parametrize("body", [b'{"status": "in_progress"}', b'{"id": "", "status": "completed"}', b"{}"])
def test_a_create_without_an_id_is_no_success(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        read_created(body)


@pytest.mark.parametrize("task_id", ["", " ", ".", "..", "x" * 513, "\ud800", "\x1f"])
def test_an_id_that_could_not_be_asked_for_is_no_id(task_id: str) -> None:
    with pytest.raises(InvalidResponse, match="no id"):
        read_created(answer(id=task_id))


def test_an_accepted_task_is_found_in_an_answer_that_says_failure() -> None:
    body = answer(error={"code": "SYNC_TIMEOUT"})  # 504 of a create that waits
    status = accepted_despite_error(body)
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
        answer(status="failed"),
    ],
)
def test_no_accepted_task_is_found_where_there_is_none(body: bytes) -> None:
    assert accepted_despite_error(body) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
contents = st.dictionaries(st.sampled_from(["url", "type", "jobId", "x"]), json_values)
groups = st.dictionaries(st.sampled_from(["content", "id"]), json_values | st.lists(contents | json_values, max_size=3))
problems = st.dictionaries(st.sampled_from(["code", "message", "error_message"]), json_values)
usages = st.dictionaries(st.sampled_from(["cost", "discount", "quantity"]), json_values)
tasks = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just(ID) | json_values,
        "status": st.sampled_from(["in_progress", "completed", "FAILED", "queued"]) | json_values,
        "output": json_values | st.lists(groups | json_values, max_size=3),
        "error": json_values | problems,
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
def test_any_answer_is_a_status_or_malformed(body: bytes) -> None:
    seen: list[InvalidResponse] = []
    try:
        created = read_created(body)
    except InvalidResponse as error:
        seen.append(error)
    else:
        assert check_task_id(created.task_id)
        assert pickle.loads(pickle.dumps(created)).task_id == created.task_id  # noqa: S301 # made on this line
        assert hash(created)
        assert created.progress is None or 0 <= created.progress <= 1
        assert all(image.url and image.task_id == created.task_id for image in created.images)
    try:
        assert read_status(body, ID).task_id == ID
    except InvalidResponse as error:
        seen.append(error)
    assert all(error.status == 200 and len(str(error)) < 1000 and pickle.dumps(error) for error in seen)
    accepted = accepted_despite_error(body)
    assert accepted is None or accepted.state is not TaskState.FAILED


@given(bodies)
@example(b'{"status": "in_progress", "progress": NaN}')
@example(b'{"id": null, "status": "in_progress"}')
@example(b'{"status": "in_progress", "error": {"message": "odd"}, "x": "\\ud800"}')
@example(b'{"status": "in_progress", "output": []}')
def test_what_the_schedule_reads_can_be_read_whole(body: bytes) -> None:
    try:
        read = read_poll(body, ID)
    except InvalidResponse as error:
        with pytest.raises(InvalidResponse) as caught:
            read_status(body, ID)
        assert str(caught.value) == str(error)
        return
    status = read_status(body, ID)
    if isinstance(read, InProgress):
        assert (status.task_id, status.state, status.progress) == (ID, TaskState.IN_PROGRESS, read.progress)
        assert not status.images
    else:
        assert read == status


@pytest.mark.parametrize("progress", [None, 0.0, 0.42, 1])
def test_the_schedule_reads_the_progress_only(progress: float | None) -> None:
    assert read_poll(answer(progress=progress), ID) == InProgress(progress)


@pytest.mark.parametrize(
    "body",
    [
        answer(status="completed"),
        answer(status="queued"),
        answer(output=[]),
    ],
)
def test_a_response_that_says_more_than_not_yet_is_read_whole(body: bytes) -> None:
    assert read_poll(body, ID) == read_status(body, ID)


known = {"id", "status", "model", "progress", "error", "output", "usage", "created_at", "metadata"}


@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key not in known), json_values, max_size=5))
def test_any_unknown_key_is_kept_as_it_came(extra: dict[str, Any]) -> None:
    status = read_status(answer(x=1, **{key: value for key, value in extra.items() if key != "x"}), ID)
    assert set(status.extra) == {"x", *extra}


@pytest.mark.parametrize("depth", range(700, 1000, 3))
def test_an_answer_of_any_depth_is_a_status_or_malformed(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    body = b'{"id": "d8ejq1de878c739e2lrg", "status": "failed", "error": ' + deep + b"}"
    try:
        assert read_status(body, ID).error is not None
    except InvalidResponse as error:
        assert "not JSON" in str(error)  # noqa: PT017 # either is right

"""A task of Black Forest Labs' API: PROTOCOL-BFL.md, "The task"."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

import pytest
from gateways_support import ID, IMAGE_URL, KEY, new_gateway, refer, respond

from kontext_async.errors import GatewayUnavailable, InvalidResponse, TaskNotFound
from kontext_async.models import FailureKind, TaskState, TaskStatus
from kontext_async.protocol.tasks import InProgress

GATEWAY = new_gateway("bfl")
TASK = refer("bfl")
STATUS = GATEWAY.status(TASK)
RESULT = {
    "sample": IMAGE_URL,
    "prompt": "a red fox, detailed",
    "seed": 42,
    "start_time": 1752477995.95983,
    "end_time": 1752478003.52603,
    "duration": 7.566,
}


def read(content: Any, status: int = 200) -> TaskStatus:
    found = GATEWAY.read_status(TASK, STATUS, respond(content, status))
    assert isinstance(found, TaskStatus)
    return found


def read_word(word: str, **fields: Any) -> TaskStatus:
    return read(
        {"id": ID, "status": word, "result": None, "progress": None, "details": None, "preview": None, **fields}
    )


class TestWords:
    @pytest.mark.parametrize(
        ("word", "state"),
        [
            ("Pending", TaskState.IN_PROGRESS),
            ("Queued", TaskState.IN_PROGRESS),
            ("Processing", TaskState.IN_PROGRESS),
            ("Reasoning", TaskState.IN_PROGRESS),
            ("Generating", TaskState.IN_PROGRESS),
            ("Ready", TaskState.COMPLETED),
            ("Error", TaskState.FAILED),
            ("Failed", TaskState.FAILED),
            ("Request Moderated", TaskState.FAILED),
            ("Content Moderated", TaskState.FAILED),
            ("Dreaming", TaskState.UNKNOWN),
            ("", TaskState.UNKNOWN),
        ],
    )
    def test_every_word(self, word: str, state: TaskState) -> None:
        spellings = {word, word.lower(), word.upper(), word.replace(" ", "_"), word.replace(" ", "-"), f" {word} "}
        assert {read_word(each).state for each in spellings} == {state}

    @pytest.mark.parametrize("word", ["Pending", "Dreaming"])
    def test_an_unfinished_task_is_read_as_its_progress(self, word: str) -> None:
        body = respond({"id": ID, "status": word, "progress": 0.4})
        assert GATEWAY.read_poll(TASK, STATUS, body) == InProgress(0.4)

    @pytest.mark.parametrize(("progress", "expected"), [(0.4, 0.4), (None, None), (2, 1.0), (-1, 0.0), ("x", None)])
    def test_progress_is_bounded(self, progress: Any, expected: float | None) -> None:
        assert read_word("Pending", progress=progress).progress == expected

    def test_the_preview_is_left_out_and_other_keys_are_kept(self) -> None:
        status = read_word("Pending", preview={"image": "aGk="}, details={"queue": 3}, other=[1])
        assert status.extra == {"details": {"queue": 3}, "other": [1]}


class TestReady:
    def test_the_image_the_prompt_and_the_seed(self) -> None:
        status = read_word("Ready", result=RESULT)
        assert [image.url for image in status.images] == [IMAGE_URL]
        assert status.metadata == {name: value for name, value in RESULT.items() if name != "sample"}
        assert status.usage is None

    @pytest.mark.parametrize(("cost", "usd"), [(74.0, "0.74"), (0, "0"), ("4", "0.04")])
    def test_a_settled_cost(self, cost: Any, usd: str) -> None:
        usage = read_word("Ready", result=RESULT, cost=cost).usage
        assert usage is not None
        assert usage.cost == Decimal(usd)

    @pytest.mark.parametrize("result", [None, {}, {"sample": None}, {"sample": ""}])
    def test_no_sample_is_no_image(self, result: Any) -> None:
        assert read_word("Ready", result=result).images == ()

    @pytest.mark.parametrize("result", ["x", [], 7, {"sample": 7}, {"sample": [IMAGE_URL]}, {"sample": {}}])
    def test_a_result_of_a_wrong_type_is_unreadable(self, result: Any) -> None:
        with pytest.raises(InvalidResponse, match="sample"):
            read_word("Ready", result=result)


class TestFailures:
    @pytest.mark.parametrize("word", ["Request Moderated", "Content Moderated"])
    def test_all_reasons_of_a_moderation_are_shown_and_nothing_is_billed(self, word: str) -> None:
        status = read_word(word, details={"Moderation Reasons": ["Protected Content", "Violence"]}, cost=4)
        assert status.error is not None
        assert status.error.kind is FailureKind.MODERATED
        assert status.error.code == word
        assert status.error.message == "Moderation Reasons: Protected Content; Moderation Reasons: Violence"
        assert status.usage is not None
        assert status.usage.cost == 0

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"details": {"error": "out of memory"}}, "error: out of memory"),
            ({"details": "out of memory"}, "out of memory"),
            ({"details": ["a", {"b": ["c", None, ""]}]}, "a; b: c"),
            ({"details": {}, "error": {"message": "x"}}, "message: x"),
            ({"details": {"code": 7}}, "code: 7"),
            ({}, "no reason was given"),
        ],
    )
    def test_details_may_have_any_shape(self, fields: dict[str, Any], message: str) -> None:
        error = read_word("Error", **fields).error
        assert error is not None
        assert (error.message, error.kind) == (message, FailureKind.ERROR)

    def test_many_and_deep_details_are_bounded(self) -> None:
        deep: Any = "end"
        for _ in range(50):
            deep = {"a": deep}
        error = read_word("Error", details=[deep, *map(str, range(100_000))]).error
        assert error is not None
        assert len(error.message) <= 500

    def test_the_json_of_a_failed_task_counts_in_a_503(self) -> None:
        status = read({"id": ID, "status": "Error", "details": "overloaded"}, 503)
        assert (status.state, status.error and status.error.message) == (TaskState.FAILED, "overloaded")

    def test_a_5xx_without_the_task_is_transient(self) -> None:
        for content in (b"", b"<html>", {"status": "error"}, {"id": "other", "status": "Error"}, {"id": ID}):
            with pytest.raises(GatewayUnavailable):
                read(content, 503)


class TestNotFound:
    CONTENT: ClassVar[dict[str, Any]] = {
        "id": ID,
        "status": "Task not found",
        "result": None,
        "progress": None,
        "details": None,
    }

    @pytest.mark.parametrize("status", [200, 404])
    def test_it_comes_with_either_http_status(self, status: int) -> None:
        with pytest.raises(TaskNotFound) as caught:
            read(self.CONTENT, status)
        assert caught.value.task_id == ID
        assert caught.value.may_be_charged

    def test_it_may_name_no_id_in_a_200(self) -> None:
        with pytest.raises(TaskNotFound):
            read({"status": "task_not_found"})

    def test_202_is_not_yet(self) -> None:
        assert GATEWAY.read_poll(TASK, STATUS, respond(b"", 202)) == InProgress(None)
        assert GATEWAY.read_poll(TASK, STATUS, respond({"id": ID}, 202)) == InProgress(None)
        assert read({"id": ID, "status": "Pending", "progress": 0.1}, 202).progress == 0.1


def test_no_text_has_the_key() -> None:
    assert KEY not in repr(read_word("Ready", result=RESULT))

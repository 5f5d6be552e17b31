"""The rules for task IDs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from kontext_async.errors import InvalidRequest
from kontext_async.protocol import check_task_id
from kontext_async.protocol.task_ids import MAX_ID_LENGTH, is_task_id


@pytest.mark.parametrize("task_id", ["d8ejq1de878c739e2lrg", "a/b", "../../x", "a.b", "x" * MAX_ID_LENGTH, "ä", "a b"])
def test_check_task_id_accepts_a_possible_task_id(task_id: str) -> None:
    assert check_task_id(task_id) == task_id


def test_check_task_id_strips_surrounding_blanks() -> None:
    assert check_task_id(" t1\n") == "t1"


@pytest.mark.parametrize(
    "task_id", ["", " ", "\n", ".", "..", "...", " .. ", "x" * (MAX_ID_LENGTH + 1), "\ud800", None, 7, b"t1", ["t1"]]
)
def test_check_task_id_refuses_an_impossible_task_id(task_id: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_task_id(task_id)
    assert caught.value.field == "task_id"


@given(st.text())
def test_an_accepted_task_id_is_one(text: str) -> None:
    try:
        checked = check_task_id(text)
    except InvalidRequest:
        return
    assert is_task_id(checked)

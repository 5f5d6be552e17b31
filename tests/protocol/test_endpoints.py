"""The URLs of the gateway, and task IDs in them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, strategies as st

from kontext_async.errors import InvalidRequest
from kontext_async.protocol import check_task_id, create_url, status_url
from kontext_async.protocol.endpoints import MAX_ID_LENGTH, is_task_id

BASE = "https://cloud.vtrix.ai"


def test_create_url_is_the_documented_one() -> None:
    assert create_url(BASE) == "https://cloud.vtrix.ai/model/v1/generation"


def test_status_url_is_the_documented_one() -> None:
    assert status_url(BASE, "d8ejq1de878c739e2lrg") == (
        "https://cloud.vtrix.ai/model/v1/generation/task/d8ejq1de878c739e2lrg"
    )


def test_create_url_keeps_the_path_of_the_base_url() -> None:
    assert create_url("http://127.0.0.1:8080/proxy") == "http://127.0.0.1:8080/proxy/model/v1/generation"


@given(st.text(min_size=1, max_size=50).filter(is_task_id))
def test_a_task_id_cannot_change_the_path_of_the_status_url(task_id: str) -> None:
    url = urlsplit(status_url(BASE, task_id))
    assert (url.scheme, url.netloc, url.query, url.fragment) == ("https", "cloud.vtrix.ai", "", "")
    head, _, last = url.path.rpartition("/")
    assert head == "/model/v1/generation/task"
    assert unquote(last) == task_id
    assert last not in (".", "..")


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
def test_an_accepted_task_id_makes_an_ascii_status_url(text: str) -> None:
    try:
        checked = check_task_id(text)
    except InvalidRequest:
        return
    assert is_task_id(checked)
    assert status_url(BASE, checked).isascii()

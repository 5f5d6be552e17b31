"""Errors as problem details."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import pytest

from kontext_async import (
    AuthenticationFailed,
    ConfigurationError,
    CostLimitReached,
    DownloadFailed,
    GatewayOutage,
    GatewayUnavailable,
    InvalidRequest,
    InvalidResponse,
    KontextError,
    Overloaded,
    PermissionDenied,
    RateLimited,
    RequestRejected,
    SessionClosed,
    SessionCrashed,
    StoreUnavailable,
    StoreUnusable,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
)
from kontext_async.errors import ERRORS
from kontext_async.integrations.problems import KINDS, RequestTooLarge, problem_of

SECRET = "the account of ACME has 3 USD at db.internal"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("seed", 7, "it must be less"), 422),
        (RequestTooLarge("request", "9 bytes", "at most 8 bytes are allowed"), 413),
        (ConfigurationError(SECRET), 500),
        (SessionClosed(SECRET), 503),
        (SessionCrashed(SECRET), 503),
        (AuthenticationFailed(SECRET, status=401), 502),
        (PermissionDenied(SECRET, status=402), 503),
        (RequestRejected("too long", status=422, from_gateway=True), 422),
        (RequestRejected(SECRET, status=404, from_gateway=True), 502),
        (RequestRejected(SECRET, status=400), 502),
        (RateLimited(SECRET, status=429), 503),
        (GatewayUnavailable(SECRET), 503),
        (GatewayOutage(SECRET, retry_after=4.2), 503),
        (Overloaded(SECRET, retry_after=4.2), 503),
        (InvalidResponse(SECRET), 502),
        (SubmissionUncertain(request=None, fingerprint="f" * 64, seen=SECRET), 502),
        (TaskFailed(task_id="t1", code="c", message="moderated"), 502),
        (TaskNotFound(SECRET, task_id="t1"), 404),
        (TaskTimeout(task_id="t1", waited=3.0, last_status=None), 504),
        (DownloadFailed(url="https://h/a", reason=SECRET, task_id="t1"), 502),
        (StoreUnavailable(SECRET), 503),
        (StoreUnusable(SECRET), 500),
        (CostLimitReached(spent=Decimal(3), limit=Decimal(2)), 503),
        (KontextError(SECRET), 500),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, KontextError) else "",
)
def test_each_error_has_its_status_and_reveals_nothing_of_the_server(error: KontextError, status: int) -> None:
    problem = problem_of(error)
    body = json.loads(problem.body)
    assert problem.status == body["status"] == status
    assert body["type"].startswith("urn:problem-type:kontext-async:")
    assert body["title"]
    assert body["detail"]
    assert body["may_be_charged"] is error.may_be_charged
    assert body["retryable"] is error.retryable
    assert "ACME" not in problem.body.decode()
    if error.task_id:
        assert body["task_id"] == error.task_id


def test_every_error_of_the_tree_is_a_problem() -> None:
    for kind in ERRORS.values():
        assert next(each for each in kind.__mro__ if each in KINDS) is not None


def test_an_invalid_request_names_field_value_and_rule() -> None:
    body = json.loads(problem_of(InvalidRequest("aspect_ratio", "9:1", "it must be less")).body)
    assert (body["field"], body["value"], body["rule"]) == ("aspect_ratio", "'9:1'", "it must be less")
    assert body["type"].endswith(":invalid-request")


def test_the_id_of_a_task_that_keeps_running_is_in_the_detail() -> None:
    detail = problem_of(SessionClosed("closed", task_id="t1", may_be_charged=True)).detail
    assert detail == "The server is stopping. Task t1 keeps running, and its image can be requested by this ID."


@pytest.mark.parametrize(("seconds", "header"), [(4.2, "5"), (0.1, "1"), (30.0, "30"), (math.inf, None)])
def test_retry_after_is_whole_seconds(seconds: float, header: str | None) -> None:
    problem = problem_of(GatewayOutage("closed", retry_after=seconds))
    assert problem.headers.get("Retry-After") == header
    assert json.loads(problem.body).get("retry_after") == (None if header is None else seconds)


def test_a_problem_is_never_cached() -> None:
    assert problem_of(KontextError("x")).headers == {"Cache-Control": "no-store"}

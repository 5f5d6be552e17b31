from __future__ import annotations

import io
import pickle
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from kontext_async import errors
from kontext_async.errors import (
    AuthenticationFailed,
    ConfigurationError,
    CostLimitReached,
    DownloadFailed,
    GatewayError,
    GatewayUnavailable,
    InvalidRequest,
    InvalidResponse,
    KontextError,
    PermissionDenied,
    RateLimited,
    RequestRejected,
    SessionClosed,
    SubmissionUncertain,
    TaskError,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
    UsageError,
)
from kontext_async.models import KontextRequest, TaskState, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

TREE: dict[type[KontextError], type[Exception]] = {
    KontextError: Exception,
    UsageError: KontextError,
    InvalidRequest: UsageError,
    ConfigurationError: UsageError,
    SessionClosed: UsageError,
    GatewayError: KontextError,
    AuthenticationFailed: GatewayError,
    PermissionDenied: GatewayError,
    RequestRejected: GatewayError,
    RateLimited: GatewayError,
    GatewayUnavailable: GatewayError,
    InvalidResponse: GatewayError,
    SubmissionUncertain: KontextError,
    TaskError: KontextError,
    TaskFailed: TaskError,
    TaskNotFound: TaskError,
    TaskTimeout: TaskError,
    DownloadFailed: KontextError,
    CostLimitReached: KontextError,
}
RETRYABLE = {RateLimited, GatewayUnavailable, TaskTimeout, DownloadFailed}
MAY_BE_CHARGED = {SubmissionUncertain, TaskError, TaskFailed, TaskNotFound, TaskTimeout, DownloadFailed}

PLAIN = (KontextError, UsageError, ConfigurationError, SessionClosed, TaskError, TaskNotFound)
GATEWAY = (
    GatewayError,
    AuthenticationFailed,
    PermissionDenied,
    RequestRejected,
    RateLimited,
    GatewayUnavailable,
    InvalidResponse,
)
STATUS = TaskStatus(
    task_id="t1", state=TaskState.IN_PROGRESS, raw_status="in_progress", extra={"queue": [1, {"a": None}]}
)


def plain(kind: type[KontextError]) -> KontextError:
    return kind("words", task_id="t1", request_id="r1", retryable=True, may_be_charged=True)


def of_gateway(kind: type[GatewayError]) -> KontextError:
    error = kind("words", status=429, code="SLOW", body="{}", task_id="t1", request_id="r1", may_be_charged=True)
    if isinstance(error, RateLimited):
        error.retry_after = 3.5
    return error


def with_attributes(kind: type[KontextError]) -> KontextError:
    """One of `kind`, with every attribute set."""
    others: dict[type[KontextError], Callable[[], KontextError]] = {
        InvalidRequest: lambda: InvalidRequest("aspect_ratio", "1:100", "it must be less"),
        SubmissionUncertain: lambda: SubmissionUncertain(
            request=KontextRequest("a fox", input_images=[b"\xff\xd8\xff"]),
            fingerprint="f" * 64,
            seen="reset",
            request_id="r1",
        ),
        TaskFailed: lambda: TaskFailed(task_id="t1", code="002", message="no"),
        TaskTimeout: lambda: TaskTimeout(task_id="t1", waited=12.34, last_status=STATUS),
        DownloadFailed: lambda: DownloadFailed(url="https://cdn/a.jpg", reason="cut", status=206, task_id="t1"),
        CostLimitReached: lambda: CostLimitReached(spent=Decimal("1.50"), limit=Decimal(2)),
    }
    if kind in others:
        return others[kind]()
    if issubclass(kind, GatewayError):
        return of_gateway(kind)
    return plain(kind)


def bare(kind: type[KontextError]) -> KontextError:
    """One of `kind`, with as little as its constructor takes."""
    return kind("words") if kind in PLAIN + GATEWAY else with_attributes(kind)


ALL = pytest.mark.parametrize("kind", TREE)


def test_the_tree_is_all_that_is_exported() -> None:
    assert {kind.__name__ for kind in TREE} == set(errors.__all__)


@ALL
def test_each_error_has_its_place_in_the_tree(kind: type[KontextError]) -> None:
    assert kind.__bases__[0] is TREE[kind]


def test_an_invalid_request_is_a_value_error() -> None:
    assert issubclass(InvalidRequest, ValueError)


@ALL
def test_each_error_is_drawn_in_the_docstring(kind: type[KontextError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")


@ALL
def test_each_error_says_whether_to_try_again_and_whether_it_may_cost(kind: type[KontextError]) -> None:
    error = bare(kind)
    assert error.retryable is (kind in RETRYABLE)
    assert error.may_be_charged is (kind in MAY_BE_CHARGED)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("value", [True, False])
def test_what_a_class_says_can_be_overridden(kind: type[KontextError], value: bool) -> None:  # noqa: FBT001 # a parameter
    error = kind("words", retryable=value, may_be_charged=value)
    assert (error.retryable, error.may_be_charged) == (value, value)


@ALL
def test_each_error_survives_pickling(kind: type[KontextError]) -> None:
    error = with_attributes(kind)
    error.add_note("seen at noon")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        twin = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 # made on the line above
        assert type(twin) is kind
        assert twin.args == error.args
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)
        assert (twin.retryable, twin.may_be_charged) == (error.retryable, error.may_be_charged)


@ALL
def test_a_copy_is_the_same_error_and_another_object(kind: type[KontextError]) -> None:
    error = with_attributes(kind)
    cause = OSError("reset")
    error.__cause__ = cause
    twin = error.copy()
    assert twin is not error
    assert type(twin) is kind
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert twin.__cause__ is cause


def test_a_copy_does_not_share_its_traceback() -> None:
    error = KontextError("words")
    try:
        raise error
    except KontextError:
        assert error.copy().__traceback__ is None


def test_a_copy_can_be_changed_alone() -> None:
    error = GatewayUnavailable("words")
    error.copy().with_task("t2")
    assert error.task_id is None


def test_an_error_can_be_told_which_task_it_is_about() -> None:
    error = GatewayUnavailable("words")
    assert error.with_task("t1", may_be_charged=True) is error
    assert (error.task_id, error.may_be_charged) == ("t1", True)


def test_an_error_that_knows_its_task_keeps_it() -> None:
    error = TaskNotFound("words", task_id="t1").with_task("t2")
    assert (error.task_id, error.may_be_charged) == ("t1", True)


def test_the_text_names_task_and_request() -> None:
    assert str(KontextError("words", task_id="t1", request_id="r1")) == "words (task t1, request r1)"
    assert str(KontextError("words", task_id="t1")) == "words (task t1)"
    assert str(KontextError("words")) == "words"


HUGE = "long words " * 10_000
PAYLOAD = "QUJD" * 1000


@pytest.mark.parametrize(
    "error",
    [
        KontextError(HUGE, task_id=HUGE, request_id=HUGE),
        GatewayError(HUGE, task_id=PAYLOAD),
        InvalidRequest(HUGE, HUGE, HUGE),
        InvalidRequest("prompt", 10**5000, "shorter"),
        SubmissionUncertain(request=None, fingerprint=PAYLOAD, seen=HUGE),
        TaskFailed(task_id=HUGE, code=None, message=HUGE),
        TaskTimeout(task_id=HUGE, waited=1.0, last_status=None),
        DownloadFailed(url=HUGE, reason=HUGE),
    ],
)
def test_texts_are_bounded(error: KontextError) -> None:
    assert len(str(error)) < 2500
    assert len(repr(error)) < 2500


SECRETS = ("c2VjcmV0" * 20, "signature", "\\xff\\xd8", "QUJDQUJD" * 20)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("input_images[0]", b"\xff\xd8secret", "smaller"),
        InvalidRequest("input_images[0]", "data:image/png;base64," + "c2VjcmV0" * 20, "smaller"),
        InvalidRequest("input_images[0]", "https://host/a?signature=secret", "smaller"),
        InvalidRequest("input_images", [b"\xff\xd8secret", "https://host/a?signature=secret"], "smaller"),
        InvalidRequest("prompt", {"a": "QUJDQUJD" * 20}, "QUJDQUJD" * 20),
        InvalidResponse("QUJDQUJD" * 20),
        SubmissionUncertain(
            request=KontextRequest("a", input_images=[b"\xff\xd8\xff"]), fingerprint="f", seen="QUJDQUJD" * 20
        ),
        TaskFailed(task_id="t1", code=None, message="QUJDQUJD" * 20),
        DownloadFailed(url="data:image/png;base64," + "c2VjcmV0" * 20, reason="QUJDQUJD" * 20),
    ],
)
def test_texts_hold_no_payload_and_no_signature(error: KontextError) -> None:
    for secret in SECRETS:
        assert secret not in str(error)
        assert secret not in repr(error)


def test_an_invalid_request_names_field_value_and_rule() -> None:
    error = InvalidRequest("seed", "x", "it must be an integer")
    assert (error.field, error.value, error.rule) == ("seed", "'x'", "it must be an integer")
    assert str(error) == "seed: 'x' is not allowed; it must be an integer"


def test_a_rate_limit_has_no_wait_until_one_is_named() -> None:
    assert RateLimited("words").retry_after is None


def test_an_uncertain_submission_names_its_fingerprint_and_what_was_seen() -> None:
    error = SubmissionUncertain(request=None, fingerprint="0123456789abcdef", seen="connection reset")
    assert "0123456789ab" in str(error)
    assert "connection reset" in str(error)


def test_a_failed_task_names_code_and_message() -> None:
    assert str(TaskFailed(task_id="t1", code="002", message="no")) == "the task failed: no [002] (task t1)"
    assert str(TaskFailed(task_id="t1", code=None, message="no")) == "the task failed: no (task t1)"


def test_a_timeout_says_how_to_go_on() -> None:
    error = TaskTimeout(task_id="t1", waited=12.34, last_status=None)
    assert "attach('t1')" in str(error)
    assert "12.3 s" in str(error)


def test_a_cost_limit_names_both_amounts() -> None:
    error = CostLimitReached(spent=Decimal("1.50"), limit=Decimal("2.00"))
    assert (error.spent, error.limit) == (Decimal("1.50"), Decimal("2.00"))
    assert "1.50 USD" in str(error)
    assert "2.00 USD" in str(error)


def test_an_uncertain_submission_survives_pickling_without_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "fox.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with path.open("rb") as file:
        request = KontextRequest("a fox", input_images=[file])
    error = SubmissionUncertain(request=request, fingerprint="f" * 64, seen="reset", request_id="r1")
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 # made on this line
    assert twin.request is None
    assert error.request is request
    assert (twin.fingerprint, twin.seen, twin.request_id) == ("f" * 64, "reset", "r1")


def test_an_uncertain_submission_keeps_what_can_be_pickled() -> None:
    request = KontextRequest("a fox", input_images=[io.BytesIO(b"\xff\xd8\xff"), Path("fox.png")])
    error = SubmissionUncertain(request=request, fingerprint="f", seen="reset")
    assert pickle.loads(pickle.dumps(error)).request.input_images[1] == Path("fox.png")  # noqa: S301 # as above


@given(st.text(), st.text(), st.text())
def test_any_text_makes_an_error_that_survives(message: str, task_id: str, request_id: str) -> None:
    error = GatewayError(message, body=message, task_id=task_id, request_id=request_id)
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 # as above
    assert (str(twin), vars(twin)) == (str(error), vars(error))

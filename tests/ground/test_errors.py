"""The tree of errors: `kontext_async.base_errors` and `kontext_async.errors`."""

from __future__ import annotations

import io
import pickle
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import pytest
from hypothesis import given, strategies as st

from kontext_async import base_errors, errors
from kontext_async.errors import (
    AuthenticationFailed,
    CallerLeft,
    ConfigurationError,
    CostLimitReached,
    CostUnknown,
    DownloadFailed,
    GatewayError,
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
    SessionError,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
    SubmissionUncertain,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskModerated,
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
    SessionError: KontextError,
    SessionClosed: SessionError,
    SessionCrashed: SessionError,
    GatewayError: KontextError,
    AuthenticationFailed: GatewayError,
    PermissionDenied: GatewayError,
    RequestRejected: GatewayError,
    RateLimited: GatewayError,
    GatewayUnavailable: GatewayError,
    GatewayOutage: GatewayUnavailable,
    Overloaded: KontextError,
    CallerLeft: KontextError,
    CostUnknown: KontextError,
    InvalidResponse: GatewayError,
    SubmissionUncertain: KontextError,
    TaskError: KontextError,
    TaskFailed: TaskError,
    TaskModerated: TaskFailed,
    TaskCancelled: TaskFailed,
    TaskNotFound: TaskError,
    TaskTimeout: TaskError,
    DownloadFailed: KontextError,
    StoreError: KontextError,
    StoreUnavailable: StoreError,
    StoreUnusable: StoreError,
    CostLimitReached: KontextError,
}
RETRYABLE = {Overloaded, RateLimited, GatewayUnavailable, GatewayOutage, StoreUnavailable, TaskTimeout, DownloadFailed}
MAY_BE_CHARGED = {SubmissionUncertain, TaskError, TaskCancelled, TaskFailed, TaskNotFound, TaskTimeout, DownloadFailed}

PLAIN = (
    KontextError,
    CallerLeft,
    UsageError,
    ConfigurationError,
    SessionError,
    SessionClosed,
    SessionCrashed,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
    TaskError,
    TaskNotFound,
)
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


def build_plain_error(error_class: type[KontextError]) -> KontextError:
    return error_class("words", task_id="t1", request_id="r1", retryable=True, may_be_charged=True)


def build_gateway_error(error_class: type[GatewayError]) -> KontextError:
    error = error_class(
        "words",
        status=429,
        code="SLOW",
        body="{}",
        from_gateway=True,
        task_id="t1",
        request_id="r1",
        may_be_charged=True,
    )
    if isinstance(error, RateLimited):
        error.retry_after = 3.5
    return error


def build_full_error(error_class: type[KontextError]) -> KontextError:
    """Return an error of the class with every attribute set."""
    others: dict[type[KontextError], Callable[[], KontextError]] = {
        InvalidRequest: lambda: InvalidRequest("aspect_ratio", "1:100", "it must be less"),
        SubmissionUncertain: lambda: SubmissionUncertain(
            request=KontextRequest("a fox", input_images=[b"\xff\xd8\xff"]),
            fingerprint="f" * 64,
            seen="reset",
            request_id="r1",
        ),
        TaskFailed: lambda: TaskFailed(task_id="t1", code="002", message="no"),
        TaskCancelled: lambda: TaskCancelled(task_id="t1", code="CANCELLED", message="it was cancelled"),
        TaskModerated: lambda: TaskModerated(task_id="t1", code="Request Moderated", message="no"),
        TaskTimeout: lambda: TaskTimeout(task_id="t1", waited=12.34, last_status=STATUS),
        DownloadFailed: lambda: DownloadFailed(url="https://cdn/a.jpg", reason="cut", status=206, task_id="t1"),
        GatewayOutage: lambda: GatewayOutage("words", retry_after=1.5),
        Overloaded: lambda: Overloaded("words", retry_after=1.5),
        CostUnknown: lambda: CostUnknown("EUR"),
        CostLimitReached: lambda: CostLimitReached(spent=Decimal("1.50"), limit=Decimal(2)),
    }
    if error_class in others:
        return others[error_class]()
    if issubclass(error_class, GatewayError):
        return build_gateway_error(error_class)
    return build_plain_error(error_class)


def build_minimal_error(error_class: type[KontextError]) -> KontextError:
    """Return an error of the class with only the required arguments."""
    return error_class("words") if error_class in PLAIN + GATEWAY else build_full_error(error_class)


EACH_CLASS = pytest.mark.parametrize("error_class", TREE)


def test_the_tree_has_every_exported_error() -> None:
    assert {error_class.__name__ for error_class in TREE} == set(errors.__all__)


@EACH_CLASS
def test_each_error_has_its_parent_in_the_tree(error_class: type[KontextError]) -> None:
    assert error_class.__bases__[0] is TREE[error_class]


def test_an_invalid_request_is_a_value_error() -> None:
    assert issubclass(InvalidRequest, ValueError)


def test_a_task_timeout_is_a_timeout_error() -> None:
    assert issubclass(TaskTimeout, TimeoutError)
    error = TaskTimeout(task_id="t1", waited=12.34, last_status=STATUS)
    for twin in (error.copy(), pickle.loads(pickle.dumps(error))):  # noqa: S301 # pickled on this line
        assert isinstance(twin, TaskTimeout)
        assert isinstance(twin, TimeoutError)
        assert (twin.task_id, twin.waited, twin.last_status) == ("t1", 12.34, STATUS)
        assert str(twin) == str(error)


@pytest.mark.parametrize("name", base_errors.__all__)
def test_errors_exports_the_base_errors_unchanged(name: str) -> None:
    assert getattr(errors, name) is getattr(base_errors, name)


def test_the_type_hints_of_errors_with_models_resolve() -> None:
    assert get_type_hints(SubmissionUncertain.__init__)["request"] == KontextRequest | None
    assert get_type_hints(TaskTimeout.__init__)["last_status"] == TaskStatus | None
    assert get_type_hints(CostLimitReached.__init__)["spent"] is Decimal


@EACH_CLASS
def test_the_module_docstring_names_each_error(error_class: type[KontextError]) -> None:
    assert error_class.__name__ in (errors.__doc__ or "")


@EACH_CLASS
def test_each_error_class_sets_retryable_and_may_be_charged(error_class: type[KontextError]) -> None:
    error = build_minimal_error(error_class)
    assert error.retryable is (error_class in RETRYABLE)
    assert error.may_be_charged is (error_class in MAY_BE_CHARGED)


@pytest.mark.parametrize("error_class", PLAIN)
@pytest.mark.parametrize("value", [True, False])
def test_an_instance_can_override_retryable_and_may_be_charged(error_class: type[KontextError], value: bool) -> None:  # noqa: FBT001 # a parameter
    error = error_class("words", retryable=value, may_be_charged=value)
    assert (error.retryable, error.may_be_charged) == (value, value)


@EACH_CLASS
def test_each_error_survives_pickling(error_class: type[KontextError]) -> None:
    error = build_full_error(error_class)
    error.add_note("seen at noon")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        twin = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 # pickled on the line above
        assert type(twin) is error_class
        assert twin.args == error.args
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)
        assert (twin.retryable, twin.may_be_charged) == (error.retryable, error.may_be_charged)


@EACH_CLASS
def test_a_copy_has_the_attributes_and_the_cause_of_the_error(error_class: type[KontextError]) -> None:
    error = build_full_error(error_class)
    cause = OSError("reset")
    error.__cause__ = cause
    twin = error.copy()
    assert twin is not error
    assert type(twin) is error_class
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert twin.__cause__ is cause


def test_a_copy_has_no_traceback() -> None:
    error = KontextError("words")
    try:
        raise error
    except KontextError:
        assert error.copy().__traceback__ is None


def test_changing_a_copy_leaves_the_error_unchanged() -> None:
    error = GatewayUnavailable("words")
    error.copy().with_task("t2")
    assert error.task_id is None


def test_with_task_sets_the_task_id() -> None:
    error = GatewayUnavailable("words")
    assert error.with_task("t1", may_be_charged=True) is error
    assert (error.task_id, error.may_be_charged) == ("t1", True)


def test_redact_replaces_the_secret_in_every_text() -> None:
    error = GatewayError("bad key k-1", code="k-1", body="key=k-1", request_id="r-k-1").with_task("t1")
    assert error.redact("k-1") is error
    assert (error.code, error.body, error.request_id, error.task_id) == ("***", "key=***", "r-***", "t1")
    assert str(error) == "bad key *** (task t1, request r-***)"
    assert error.status is None


KEY = "sk-0123456789abcdef"


def caught_cause() -> BaseException:
    """Return a cause such as an HTTP library raises: it refers to the headers, and has causes of its own."""

    class ForeignError(ConnectionError):
        headers = KEY

    cause = ForeignError(f"no HTTP: Bearer {KEY}\x1b[1m")
    cause.__cause__ = cause.__context__ = ValueError(f"bad header {KEY}")
    return cause


def texts_of(error: BaseException | None) -> list[str]:
    """Return everything that an error and its causes show, to the last attribute."""
    if error is None:
        return []
    own = [str(error), repr(error), repr(vars(error)), repr(error.args)]
    return own + texts_of(error.__cause__) + texts_of(error.__context__)


def test_redact_leaves_only_text_of_a_foreign_cause() -> None:
    error = SubmissionUncertain(request=None, fingerprint="f" * 64, seen=f"reset after {KEY}")
    error.__cause__ = caught_cause()
    error.__context__ = caught_cause()
    error.redact(KEY)
    assert KEY not in "".join(texts_of(error))
    assert type(error.__cause__) is ConnectionError
    assert str(error.__cause__) == "ForeignError: no HTTP: Bearer ***\\x1b[1m"


def test_redact_redacts_a_cause_of_the_tree() -> None:
    error = GatewayUnavailable("words")
    error.__cause__ = GatewayError(f"key {KEY}")
    assert str(error.redact(KEY).__cause__) == "key ***"


def test_redact_keeps_a_cause_that_is_no_error() -> None:
    error = GatewayUnavailable("words")
    error.__cause__ = KeyboardInterrupt()
    assert isinstance(error.redact(KEY).__cause__, KeyboardInterrupt)


@pytest.mark.parametrize(
    "error",
    [
        DownloadFailed(url=f"https://cdn/{KEY}/a.png", reason=f"no {KEY}"),
        TaskFailed(task_id="t1", code=KEY, message=KEY),
        SubmissionUncertain(request=None, fingerprint="f", seen=KEY),
        GatewayError(KEY, code=KEY, body=KEY, request_id=KEY),
        InvalidRequest("seed", KEY, KEY),
    ],
)
def test_redact_leaves_the_secret_in_no_attribute(error: KontextError) -> None:
    assert KEY not in "".join(texts_of(error.redact(KEY)))
    assert KEY not in "".join(texts_of(pickle.loads(pickle.dumps(error))))  # noqa: S301 # pickled on this line


def test_the_text_of_an_error_is_one_printable_line() -> None:
    error = GatewayError("a\r\nb\x1b]0;title\x07\u202e\ud800")
    assert str(error) == "a b\\x1b]0;title\\x07\\u202e\\ud800"


def test_only_a_402_a_code_or_the_gateways_words_are_about_the_balance() -> None:
    assert PermissionDenied("no", status=402).concerns_balance
    assert PermissionDenied("no", status=403, code="40201").concerns_balance
    assert PermissionDenied("insufficient balance", status=403, from_gateway=True).concerns_balance
    assert not PermissionDenied("insufficient balance", status=403).concerns_balance
    assert not PermissionDenied("no", status=403, from_gateway=True).concerns_balance


def test_with_task_sets_the_reference_of_its_own_task_only() -> None:
    error = TaskNotFound("words", task_id="t1")
    assert error.with_task("t2", "vtrix:t2").reference is None
    assert error.with_task("t1", "vtrix:t1").with_task("t1", "bfl:t1").reference == "vtrix:t1"
    assert error.copy().reference == "vtrix:t1"


def test_with_task_keeps_an_earlier_task_id() -> None:
    error = TaskNotFound("words", task_id="t1").with_task("t2")
    assert (error.task_id, error.may_be_charged) == ("t1", True)


def test_the_text_of_an_error_names_task_and_request() -> None:
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
def test_the_text_of_an_error_is_bounded(error: KontextError) -> None:
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
def test_the_text_of_an_error_has_no_payload_and_no_signature(error: KontextError) -> None:
    for secret in SECRETS:
        assert secret not in str(error)
        assert secret not in repr(error)


def test_an_invalid_request_names_field_value_and_rule() -> None:
    error = InvalidRequest("seed", "x", "it must be an integer")
    assert (error.field, error.value, error.rule) == ("seed", "'x'", "it must be an integer")
    assert str(error) == "seed: 'x' is not allowed; it must be an integer"


def test_rate_limited_has_no_retry_after_by_default() -> None:
    assert RateLimited("words").retry_after is None


def test_submission_uncertain_names_its_fingerprint_and_the_failure() -> None:
    error = SubmissionUncertain(request=None, fingerprint="0123456789abcdef", seen="connection reset")
    assert "0123456789ab" in str(error)
    assert "connection reset" in str(error)


def test_task_failed_names_code_and_message() -> None:
    assert str(TaskFailed(task_id="t1", code="002", message="no")) == "the task failed: no [002] (task t1)"
    assert str(TaskFailed(task_id="t1", code=None, message="no")) == "the task failed: no (task t1)"


def test_task_timeout_names_the_wait_and_how_to_resume() -> None:
    error = TaskTimeout(task_id="t1", waited=12.34, last_status=None)
    assert "attach('t1')" in str(error)
    assert "12.3 s" in str(error)


def test_cost_limit_reached_names_both_amounts() -> None:
    error = CostLimitReached(spent=Decimal("1.50"), limit=Decimal("2.00"))
    assert (error.spent, error.limit) == (Decimal("1.50"), Decimal("2.00"))
    assert "1.50 USD" in str(error)
    assert "2.00 USD" in str(error)


def test_pickling_submission_uncertain_drops_a_request_with_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "fox.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with path.open("rb") as file:
        request = KontextRequest("a fox", input_images=[file])
    error = SubmissionUncertain(request=request, fingerprint="f" * 64, seen="reset", request_id="r1")
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 # pickled on this line
    assert twin.request is None
    assert error.request is request
    assert (twin.fingerprint, twin.seen, twin.request_id) == ("f" * 64, "reset", "r1")


def test_pickling_submission_uncertain_keeps_any_other_request() -> None:
    request = KontextRequest("a fox", input_images=[io.BytesIO(b"\xff\xd8\xff"), Path("fox.png")])
    error = SubmissionUncertain(request=request, fingerprint="f", seen="reset")
    assert pickle.loads(pickle.dumps(error)).request.input_images[1] == Path("fox.png")  # noqa: S301 # as above


@given(st.text(), st.text(), st.text())
def test_an_error_with_any_text_survives_pickling(message: str, task_id: str, request_id: str) -> None:
    error = GatewayError(message, body=message, task_id=task_id, request_id=request_id)
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 # as above
    assert (str(twin), vars(twin)) == (str(error), vars(error))

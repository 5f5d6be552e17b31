"""Errors from HTTP responses, and the ``Retry-After`` header."""

from __future__ import annotations

import base64
import json
import math
import pickle
import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from kontext_async.errors import (
    AuthenticationFailed,
    GatewayError,
    GatewayUnavailable,
    PermissionDenied,
    RateLimited,
    RequestRejected,
)
from kontext_async.gateways.vtrix_tasks import read_created, read_poll
from kontext_async.protocol import clean_body, error_from_response, retry_after
from kontext_async.protocol.errors import refusal_despite_success

NOW = datetime(2026, 1, 9, 12, 0, 0, tzinfo=UTC)
LONG_RUN = re.compile(r"[A-Za-z0-9+/=_-]{120,}")

ERROR_CLASSES: dict[int, type[GatewayError]] = {
    301: RequestRejected,
    307: RequestRejected,
    400: RequestRejected,
    401: AuthenticationFailed,
    402: PermissionDenied,
    403: PermissionDenied,
    404: RequestRejected,
    405: RequestRejected,
    408: RequestRejected,
    413: RequestRejected,
    422: RequestRejected,
    429: RateLimited,
    451: RequestRejected,
    500: GatewayUnavailable,
    501: GatewayUnavailable,
    502: GatewayUnavailable,
    503: GatewayUnavailable,
    504: GatewayUnavailable,
    520: GatewayUnavailable,
}
BODIES: list[tuple[bytes, str | None, str, str | None]] = [
    (
        b'{"error": {"code": "RATE_LIMIT_EXCEEDED", "message": "too fast"}, "request_id": "r1"}',
        "RATE_LIMIT_EXCEEDED",
        "too fast",
        "r1",
    ),
    (b'{"message": "too fast"}', None, "too fast", None),
    (b'{"error": "too fast"}', None, "too fast", None),
    (b'{"detail": "too fast"}', None, "too fast", None),
    (b'{"error": {"code": 2014001, "error_message": "too fast"}}', "2014001", "too fast", None),
    (b'{"code": "SLOW", "error_message": "too fast"}', "SLOW", "too fast", None),
    (b'{"error": {"code": 0, "message": "too fast", "request_id": "r2"}}', "0", "too fast", "r2"),
    (b'{"error": null, "message": "too fast"}', None, "too fast", None),
    (b'{"error": {}, "message": "too fast"}', None, "too fast", None),
    (b'{"error": {"message": ""}, "detail": "too fast"}', None, "too fast", None),
    (b'{"error": {"message": ["x"]}, "message": "too fast"}', None, "too fast", None),
    (b'{"error": true, "message": "too fast"}', None, "too fast", None),
    ('{"message": "zu schnell ä"}'.encode(), None, "zu schnell ä", None),
    (b'{"status": {"code": 403, "message": "too fast", "error_code": 40301}}', "40301", "too fast", None),
    (b'{"status": {"code": "403", "message": "too fast"}, "request_id": "r3"}', "403", "too fast", "r3"),
    (b'{"status": {"code": 429, "message": "too fast", "requestId": "r4"}}', "429", "too fast", "r4"),
    (b'{"status": "failed", "message": "too fast"}', None, "too fast", None),
    (b'{"status": [], "detail": {"msg": "too fast"}}', None, "too fast", None),
    (b'{"detail": [{"loc": ["body", "seed", 0], "msg": "bad", "type": "x"}]}', None, "body.seed.0: bad", None),
    (b'{"detail": [{"loc": "body", "type": "missing"}, "slow", {}, 7]}', None, "body: missing; slow; 7", None),
    (b'{"detail": []}', None, '{"detail": []}', None),
    (b"<html><body>502 Bad Gateway</body></html>", None, "502 Bad Gateway", None),
    (b"", None, "no reason was given", None),
    (b"   ", None, "no reason was given", None),
    (b"upstream connect error", None, "upstream connect error", None),
    (b'{"error": {"mess', None, '{"error": {"mess', None),
    (b'["too fast"]', None, '["too fast"]', None),
    (b'{"detail": [{"msg": "field required"}]}', None, "field required", None),
    (b'"too fast"', None, "too fast", None),
    (b"null", None, "null", None),
    (b"{}", None, "{}", None),
    (b"\xff\xfe\x00broken", None, "broken", None),
    (b"[" * 100_000, None, "[[", None),
]


@pytest.mark.parametrize(("status", "error_class"), ERROR_CLASSES.items())
@pytest.mark.parametrize(("body", "code", "message", "request_id"), BODIES)
def test_each_status_and_body_becomes_the_right_error(
    status: int, error_class: type[GatewayError], body: bytes, code: str | None, message: str, request_id: str | None
) -> None:
    error = error_from_response(status, body, request_id="header", task_id="t1")
    assert type(error) is error_class
    assert error.status == status
    assert error.code == code
    assert message in str(error)
    assert f"the gateway returned HTTP {status}" in str(error)
    assert error.request_id == (request_id or "header")
    assert error.task_id == "t1"
    assert error.body is not None
    assert len(error.body) <= 500


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_from_300_on_has_an_error(status: int) -> None:
    error = error_from_response(status, b"")
    expected = ERROR_CLASSES.get(status, GatewayUnavailable if status >= 500 else RequestRejected)
    assert type(error) is expected
    assert error.retryable is (status == 429 or status >= 500)
    assert not error.may_be_charged
    assert (error.code, error.request_id, error.task_id) == (None, None, None)


IMAGE = base64.b64encode(bytes(range(256)) * 40).decode()


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": IMAGE, "message": f"bad image {IMAGE}"}, "request_id": IMAGE},
        {"error": f"cannot read {IMAGE}"},
        {"detail": [{"input": IMAGE}]},
        {"message": "words " * 10_000},
    ],
)
def test_an_echoed_image_is_cut_out_of_the_error(body: dict[str, Any]) -> None:
    error = error_from_response(400, json.dumps(body).encode())
    for text in (str(error), repr(error), error.body or "", error.code or "", error.request_id or ""):
        assert not LONG_RUN.search(text)
        assert len(text) < 1500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["error", "message", "detail", "request_id", "code", "error_message", "x"])


@given(
    st.integers(300, 599),
    st.one_of(
        st.binary(max_size=200),
        json_values.map(lambda value: json.dumps(value).encode()),
        st.dictionaries(keys, json_values | st.dictionaries(keys, json_values)).map(
            lambda value: json.dumps(value).encode()
        ),
    ),
)
@example(400, b'{"message": "\\ud800"}')
@example(400, b'{"message": ' + b"9" * 5000 + b"}")
def test_any_body_becomes_an_error_that_survives_pickling(status: int, body: bytes) -> None:
    error = error_from_response(status, body)
    assert isinstance(error, GatewayError)
    assert len(str(error)) < 1500
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 # pickled on the line above
    assert (type(twin), vars(twin)) == (type(error), vars(error))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("3", 3.0),
        (" 3 ", 3.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("99999999999", 99999999999.0),
        ("9" * 400, math.inf),
        ("inf", math.inf),
        ("-inf", 0.0),
        ("nan", None),
        ("", None),
        ("soon", None),
        ("3 seconds", None),
        ("0x10", None),
        ("Fri, 09 Jan 2026 12:00:30 GMT", 30.0),
        ("Fri, 09 Jan 2026 12:00:30 -0000", 30.0),
        ("Fri, 09 Jan 2026 13:00:30 +0100", 30.0),
        ("Friday, 09-Jan-26 12:01:00 GMT", 60.0),
        ("Fri Jan  9 12:00:10 2026", 10.0),
        ("Fri, 09 Jan 2026 11:59:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Feb 2026 12:00:00 GMT", None),
        ("Fri, 09 Jan 99999 12:00:00 GMT", None),
        ("Fri, 09 Jan 2026 25:61:61 GMT", None),
        ("Fri, 09 Jan 2026 12:00:00 +9999", None),
    ],
)
def test_retry_after_reads_seconds_and_dates(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_retry_after_accepts_a_clock_in_any_time_zone() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    assert retry_after("Fri, 09 Jan 2026 12:00:30 GMT", elsewhere) == 30.0


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 # set beside
def test_retry_after_reads_any_http_date(date: datetime) -> None:
    date = date.replace(microsecond=0)
    assert retry_after(format_datetime(date, usegmt=True), NOW) == max(0.0, (date - NOW).total_seconds())


@given(st.text(max_size=40) | st.from_regex(r"\A\w{3}, \d{1,2} \w{3} \d{1,5} \d\d:\d\d:\d\d [+-]?\w{1,6}\Z"))
def test_retry_after_of_any_text_is_not_negative_or_none(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_reason_is_read_from_json_in_any_unicode_encoding(encoding: str) -> None:
    error = error_from_response(502, '{"message": "overloaded"}'.encode(encoding))
    assert "overloaded" in str(error)


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404, 500])
@pytest.mark.parametrize("code", range(40201, 40209))
@pytest.mark.parametrize(
    "shape",
    [
        '{"status": {"code": 403, "message": "too low", "error_code": CODE}}',
        '{"status": {"code": 403, "message": "too low", "error_code": "CODE"}}',
        '{"error": {"code": CODE, "message": "too low"}}',
        '{"error": {"error_code": "CODE", "message": "too low"}}',
        '{"code": CODE, "message": "too low"}',
    ],
)
def test_a_code_about_the_balance_decides_whatever_the_status_is(status: int, code: int, shape: str) -> None:
    error = error_from_response(status, shape.replace("CODE", str(code)).encode())
    assert isinstance(error, PermissionDenied)
    assert (error.code, error.concerns_balance, error.from_gateway) == (str(code), True, True)
    assert "too low" in str(error)


@pytest.mark.parametrize("code", [40200, 40209, 40301, 402011])
def test_another_code_is_not_about_the_balance(code: int) -> None:
    error = error_from_response(403, json.dumps({"error": {"code": code, "message": "no"}}).encode())
    assert isinstance(error, PermissionDenied)
    assert not error.concerns_balance


@pytest.mark.parametrize(
    ("status", "body", "concerns_balance"),
    [
        (402, b"", True),
        (403, b'{"error": {"code": "INSUFFICIENT_BALANCE", "message": "no"}}', True),
        (403, b'{"message": "Your account balance is too low"}', True),
        (403, b'{"message": "insufficient credits"}', True),
        (403, b'{"message": "the model is not enabled for this account"}', False),
        (403, b"<html>load balancer</html>", False),
        (403, b"", False),
    ],
)
def test_a_refusal_is_about_the_balance_or_about_permission(status: int, body: bytes, concerns_balance: bool) -> None:  # noqa: FBT001 # a parameter
    error = error_from_response(status, body)
    assert isinstance(error, PermissionDenied)
    assert error.concerns_balance is concerns_balance


@pytest.mark.parametrize(
    ("body", "from_gateway"),
    [
        (b'{"error": {"code": "UNAUTHORIZED", "message": "no"}}', True),
        (b'{"message": "no"}', True),
        (b'{"status": {"code": 401}}', True),
        (b'{"detail": [{"msg": "no"}]}', True),
        (b"{}", False),
        (b"[]", False),
        (b'"no"', False),
        (b"", False),
        (b"<html><body>403 Forbidden</body></html>", False),
        (b"Forbidden", False),
    ],
)
def test_only_an_explanation_in_json_is_the_gateways_own(body: bytes, from_gateway: bool) -> None:  # noqa: FBT001 # a parameter
    for status in (401, 403):
        assert error_from_response(status, body).from_gateway is from_gateway


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (200, b'{"status": {"code": 403, "message": "no"}}', PermissionDenied),
        (200, b'{"status": {"code": "401", "message": "no"}}', AuthenticationFailed),
        (201, b'{"status": {"code": 400, "message": "no"}}', RequestRejected),
        (200, b'{"error": {"code": 40208}}', PermissionDenied),
    ],
)
def test_a_refusal_may_come_with_a_status_of_success(status: int, body: bytes, error_class: type[GatewayError]) -> None:
    assert type(refusal_despite_success(status, body)) is error_class
    with pytest.raises(error_class):
        read_created(body, status=status)
    with pytest.raises(error_class):
        read_poll(body, "t1", status)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"",
        b'{"status": {"code": 200}}',
        b'{"status": {"code": 500}}',
        b'{"status": {}}',
        b'{"error": {"code": 7, "message": "no"}}',
    ],
)
def test_no_other_body_with_a_status_of_success_is_a_refusal(body: bytes) -> None:
    assert refusal_despite_success(200, body) is None


def test_a_piece_of_an_echoed_key_that_straddles_a_cut_does_not_stay() -> None:
    key = "sk-0123456789abcdefghijklmnop"
    for before in range(460, 520):
        body = clean_body(
            json.dumps({"message": "w " * (before // 2) + "x" * (before % 2) + key + " y" * 99}).encode(), key
        )
        error = error_from_response(400, body).redact(key)
        for text in (str(error), error.body or ""):
            assert "sk-" not in text

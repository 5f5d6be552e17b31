from decimal import Decimal

from kontext_async.emulator import ErrorShape
from kontext_async.emulator.error_bodies import build_error_body, format_retry_after, get_phrase
from kontext_async.emulator.task_json import format_amount


def test_error_bodies_have_their_shape() -> None:
    bodies = [build_error_body(shape, status=429, code="C", message="m", request_id="r") for shape in ErrorShape]
    assert bodies[0] == (
        {"error": {"code": "C", "message": "m", "error_message": "m"}, "request_id": "r"},
        "application/json",
    )
    assert [value for value, _ in bodies[1:4]] == [{"message": "m"}, {"error": "m"}, {"detail": "m"}]
    assert "429 Too Many Requests" in bodies[4][0]
    assert bodies[5] == ("", "text/plain")


def test_amounts_are_formatted_without_trailing_zeros() -> None:
    assert format_amount(Decimal("40.00")) == "40"
    assert format_amount(Decimal("0.0280")) == "0.028"


def test_an_unknown_status_has_a_phrase() -> None:
    assert get_phrase(299) == "Unknown"


def test_retry_after_is_formatted_as_seconds_text_or_date() -> None:
    assert format_retry_after(0.2, as_date=False, now=0) == "1"
    assert format_retry_after("soon", as_date=True, now=0) == "soon"
    assert format_retry_after(30, as_date=True, now=1_767_965_610) == "Fri, 09 Jan 2026 13:34:00 GMT"

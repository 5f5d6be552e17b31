import json
import random
from decimal import Decimal
from typing import Any

import pytest

from kontext_async.emulator import ErrorShape, Fault, FaultKind
from kontext_async.emulator.answers import decimal_text, error_body, phrase, retry_after_text
from kontext_async.emulator.kinds import KINDS
from kontext_async.emulator.reshape import ODD, damaged, odd

RUNNING = {"id": "t", "status": "in_progress", "model": "m", "created_at": 1_767_965_610, "progress": 0.25}
DONE = {
    "id": "t",
    "status": "completed",
    "model": "m",
    "created_at": 1_767_965_610,
    "output": [{"content": [{"type": "image", "url": "http://files/results/t/0.jpeg?expires=1", "jobId": "j"}]}],
    "usage": {"cost": "0.04", "discount": 1.0},
    "metadata": {"in_queue_at": 1, "upload_at": 2, "completed_at": 3, "seed": 4},
}
FAILED = {
    "id": "t",
    "status": "failed",
    "model": "m",
    "created_at": 1_767_965_610,
    "error": {"code": "002014001", "message": "generation failed", "error_message": "generation failed"},
}


def shaped(answer: dict[str, Any], kind: FaultKind, variant: str | None = None) -> dict[str, Any]:
    return odd(answer, Fault(kind=kind, variant=variant))


@pytest.mark.parametrize("kind", sorted(ODD))
def test_odd_answers_leave_the_original_alone_and_stay_json(kind: FaultKind) -> None:
    for answer in (RUNNING, DONE, FAILED):
        before = json.dumps(answer)
        for variant in KINDS[kind].variants or (None,):
            changed = shaped(answer, kind, variant)
            assert json.dumps(changed)
            assert changed["id"] == "t"
            assert json.dumps(answer) == before


@pytest.mark.parametrize("variant", KINDS[FaultKind.ODD_STATUS].variants)
def test_odd_words_stay_true(variant: str) -> None:
    words = [shaped(answer, FaultKind.ODD_STATUS, variant)["status"].lower() for answer in (RUNNING, DONE, FAILED)]
    assert words[0] not in ("completed", "failed", "done", "succeeded")
    assert words[1] in ("completed", "done", "succeeded")
    assert words[2] == "failed"


def test_odd_errors() -> None:
    errors = [
        shaped(FAILED, FaultKind.ODD_ERROR, name).get("error", "-") for name in KINDS[FaultKind.ODD_ERROR].variants
    ]
    assert errors == [
        "generation failed",
        {"code": 2014001, "message": "generation failed"},
        {"code": "002014001", "error_message": "generation failed"},
        {"message": "generation failed"},
        None,
        "-",
    ]
    assert shaped(DONE, FaultKind.ODD_ERROR, "null")["error"] is None
    assert "error" not in shaped(DONE, FaultKind.ODD_ERROR, "string")


def test_odd_costs() -> None:
    costs = [
        (shaped(DONE, FaultKind.ODD_COST, name)["usage"] or {}).get("cost", "-")
        for name in KINDS[FaultKind.ODD_COST].variants
    ]
    assert costs == [0.04, "", None, "-", "-"]


def test_odd_progress() -> None:
    values = [
        shaped(RUNNING, FaultKind.ODD_PROGRESS, name).get("progress", "-")
        for name in KINDS[FaultKind.ODD_PROGRESS].variants
    ]
    assert values == ["-", None, 0.75, "0.25"]
    assert "progress" not in shaped(DONE, FaultKind.ODD_PROGRESS, "string")


def test_times_in_milliseconds() -> None:
    changed = shaped(DONE, FaultKind.MILLISECONDS)
    assert changed["created_at"] == 1_767_965_610_000
    assert changed["metadata"] == {"in_queue_at": 1000, "upload_at": 2000, "completed_at": 3000, "seed": 4}


def test_several_urls_are_different_pictures() -> None:
    groups = shaped(DONE, FaultKind.SEVERAL_URLS)["output"]
    urls = [item["url"] for group in groups for item in group["content"] if "url" in item]
    assert urls == [f"http://files/results/t/{number}.jpeg?expires=1" for number in range(3)]
    assert "output" not in shaped(RUNNING, FaultKind.SEVERAL_URLS)


def test_other_kinds_change_nothing() -> None:
    assert odd(DONE, Fault(kind="slow")) is DONE
    assert damaged(DONE, Fault(kind="slow")) is None


@pytest.mark.parametrize("kind", ["truncated-json", "malformed-json", "empty-body"])
def test_damage_cannot_be_read(kind: str) -> None:
    for variant in KINDS[FaultKind(kind)].variants or (None,):
        data = damaged(DONE, Fault(kind=kind, variant=variant))
        assert data is not None
        with pytest.raises(ValueError):  # noqa: PT011 - whatever a reader says
            json.loads(data.decode())


def test_wrong_types_are_json() -> None:
    values = [damaged(DONE, Fault(kind="wrong-types", variant=name)) for name in KINDS[FaultKind.WRONG_TYPES].variants]
    decoded = [json.loads(value or b"") for value in values]
    assert decoded[:4] == [[DONE], "ok", 42, None]
    assert "id" not in decoded[4]
    assert decoded[5]["status"] == 3
    assert isinstance(decoded[6]["output"], str)
    assert damaged([1], Fault(kind="wrong-types", variant="no-id")) == b"{}"


def test_error_bodies() -> None:
    bodies = [error_body(shape, status=429, code="C", message="m", request_id="r") for shape in ErrorShape]
    assert bodies[0] == (
        {"error": {"code": "C", "message": "m", "error_message": "m"}, "request_id": "r"},
        "application/json",
    )
    assert [value for value, _ in bodies[1:4]] == [{"message": "m"}, {"error": "m"}, {"detail": "m"}]
    assert "429 Too Many Requests" in bodies[4][0]
    assert bodies[5] == ("", "text/plain")


def test_small_texts() -> None:
    assert decimal_text(Decimal("40.00")) == "40"
    assert decimal_text(Decimal("0.0280")) == "0.028"
    assert phrase(299) == "Unknown"
    assert retry_after_text(0.2, as_date=False, now=0) == "1"
    assert retry_after_text("soon", as_date=True, now=0) == "soon"
    assert retry_after_text(30, as_date=True, now=1_767_965_610) == "Fri, 09 Jan 2026 13:34:00 GMT"
    assert Fault(kind="malformed-json").settled(random.Random(0)).variant in KINDS[FaultKind.MALFORMED_JSON].variants

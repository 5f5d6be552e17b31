import json
import random
from typing import Any

import pytest

from kontext_async.emulator import Fault, FaultKind
from kontext_async.emulator.corruption import ODD_SHAPES, apply_odd_shape, corrupt
from kontext_async.emulator.fault_specs import FAULT_SPECS

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


def apply_kind(task: dict[str, Any], kind: FaultKind, variant: str | None = None) -> dict[str, Any]:
    return apply_odd_shape(task, Fault(kind=kind, variant=variant))


@pytest.mark.parametrize("kind", sorted(ODD_SHAPES))
def test_odd_shapes_leave_the_original_unchanged_and_stay_json(kind: FaultKind) -> None:
    for task in (RUNNING, DONE, FAILED):
        before = json.dumps(task)
        for variant in FAULT_SPECS[kind].variants or (None,):
            changed = apply_kind(task, kind, variant)
            assert json.dumps(changed)
            assert changed["id"] == "t"
            assert json.dumps(task) == before


@pytest.mark.parametrize("variant", FAULT_SPECS[FaultKind.ODD_STATUS].variants)
def test_odd_status_texts_stay_true(variant: str) -> None:
    texts = [apply_kind(task, FaultKind.ODD_STATUS, variant)["status"].lower() for task in (RUNNING, DONE, FAILED)]
    assert texts[0] not in ("completed", "failed", "done", "succeeded")
    assert texts[1] in ("completed", "done", "succeeded")
    assert texts[2] == "failed"


def test_odd_errors_have_every_variant() -> None:
    errors = [
        apply_kind(FAILED, FaultKind.ODD_ERROR, name).get("error", "-")
        for name in FAULT_SPECS[FaultKind.ODD_ERROR].variants
    ]
    assert errors == [
        "generation failed",
        {"code": 2014001, "message": "generation failed"},
        {"code": "002014001", "error_message": "generation failed"},
        {"message": "generation failed"},
        None,
        "-",
    ]
    assert apply_kind(DONE, FaultKind.ODD_ERROR, "null")["error"] is None
    assert "error" not in apply_kind(DONE, FaultKind.ODD_ERROR, "string")


def test_odd_costs_have_every_variant() -> None:
    costs = [
        (apply_kind(DONE, FaultKind.ODD_COST, name)["usage"] or {}).get("cost", "-")
        for name in FAULT_SPECS[FaultKind.ODD_COST].variants
    ]
    assert costs == [0.04, "", None, "-", "-"]


def test_odd_progress_has_every_variant() -> None:
    values = [
        apply_kind(RUNNING, FaultKind.ODD_PROGRESS, name).get("progress", "-")
        for name in FAULT_SPECS[FaultKind.ODD_PROGRESS].variants
    ]
    assert values == ["-", None, 0.75, "0.25"]
    assert "progress" not in apply_kind(DONE, FaultKind.ODD_PROGRESS, "string")


def test_times_are_converted_to_milliseconds() -> None:
    changed = apply_kind(DONE, FaultKind.MILLISECONDS)
    assert changed["created_at"] == 1_767_965_610_000
    assert changed["metadata"] == {"in_queue_at": 1000, "upload_at": 2000, "completed_at": 3000, "seed": 4}


def test_several_urls_lead_to_different_images() -> None:
    groups = apply_kind(DONE, FaultKind.SEVERAL_URLS)["output"]
    urls = [item["url"] for group in groups for item in group["content"] if "url" in item]
    assert urls == [f"http://files/results/t/{number}.jpeg?expires=1" for number in range(3)]
    assert "output" not in apply_kind(RUNNING, FaultKind.SEVERAL_URLS)


def test_kinds_without_corruption_change_nothing() -> None:
    assert apply_odd_shape(DONE, Fault(kind="slow")) is DONE
    assert corrupt(DONE, Fault(kind="slow")) is None


@pytest.mark.parametrize("kind", ["truncated-json", "malformed-json", "empty-body"])
def test_damaged_bodies_cannot_be_parsed(kind: str) -> None:
    for variant in FAULT_SPECS[FaultKind(kind)].variants or (None,):
        data = corrupt(DONE, Fault(kind=kind, variant=variant))
        assert data is not None
        with pytest.raises(ValueError):  # noqa: PT011 - the message is the parser's
            json.loads(data.decode())


def test_bodies_with_wrong_types_are_json() -> None:
    values = [
        corrupt(DONE, Fault(kind="wrong-types", variant=name)) for name in FAULT_SPECS[FaultKind.WRONG_TYPES].variants
    ]
    decoded = [json.loads(value or b"") for value in values]
    assert decoded[:4] == [[DONE], "ok", 42, None]
    assert "id" not in decoded[4]
    assert decoded[5]["status"] == 3
    assert isinstance(decoded[6]["output"], str)
    assert corrupt([1], Fault(kind="wrong-types", variant="no-id")) == b"{}"


def test_a_variant_is_drawn_for_malformed_json() -> None:
    fault = Fault(kind="malformed-json").resolve(random.Random(0))
    assert fault.variant in FAULT_SPECS[FaultKind.MALFORMED_JSON].variants

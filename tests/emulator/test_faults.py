import random
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from kontext_async.emulator import ErrorShape, Fault, FaultKind, Faults, Operation
from kontext_async.emulator.fault_specs import FAULT_SPECS, OUTCOME_KINDS


def test_every_kind_has_a_row_in_the_table_of_fault_specs() -> None:
    assert set(FAULT_SPECS) == set(FaultKind)
    assert all(row.operations for row in FAULT_SPECS.values())
    assert all(FAULT_SPECS[kind].accepted for kind in OUTCOME_KINDS)


def test_no_fault_is_drawn_without_rates_and_scripts() -> None:
    assert Faults().draw(Operation.CREATE, random.Random(0)) is None


def test_a_script_plays_in_order_and_before_the_rates() -> None:
    faults = Faults({FaultKind.STALL: 1.0})
    faults.script("create", [FaultKind.CUT, None, Fault(kind="slow", seconds=2)])
    assert faults.waiting("create") == 3
    rng = random.Random(0)
    kinds = [fault and fault.kind for fault in (faults.draw(Operation.CREATE, rng) for _ in range(5))]
    assert kinds == ["cut", None, "slow", "stall", "stall"]
    assert faults.waiting(Operation.CREATE) == 0


def test_faults_are_drawn_at_their_rates() -> None:
    faults = Faults({"cut": 0.1, Fault(kind="slow", on="status", seconds=1): 0.2})
    rng = random.Random(1)
    status = Counter(fault and str(fault.kind) for fault in (faults.draw(Operation.STATUS, rng) for _ in range(5000)))
    assert status["cut"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert status["slow"] / 5000 == pytest.approx(0.2, abs=0.02)
    create = Counter(fault and str(fault.kind) for fault in (faults.draw(Operation.CREATE, rng) for _ in range(500)))
    assert create["slow"] == 0


def test_rates_can_change_and_be_cleared_later() -> None:
    faults = Faults()
    faults.set_rate("task-fails", 1.0)
    assert list(faults.rates.values()) == [1.0]
    assert faults.draw(Operation.CREATE, random.Random(0)) is not None
    faults.clear()
    assert faults.draw(Operation.CREATE, random.Random(0)) is None
    assert repr(faults) == "<Faults rates=0 scripted={}>"


@given(st.sampled_from(sorted(FaultKind)), st.integers())
def test_a_resolved_fault_has_no_open_fields(kind: FaultKind, seed: int) -> None:
    resolved = Fault(kind=kind).resolve(random.Random(seed))
    assert resolved.seconds is not None
    assert resolved.status is not None
    assert resolved.retry_after is not None
    assert resolved.accepted is FAULT_SPECS[kind].accepted
    assert (resolved.variant in FAULT_SPECS[kind].variants) if FAULT_SPECS[kind].variants else resolved.variant is None


def test_resolving_a_fault_keeps_its_own_values() -> None:
    fault = Fault(kind="http-status", status=502, retry_after="", shape="html", accepted=True)
    resolved = fault.resolve(random.Random(0))
    assert (resolved.status, resolved.retry_after, resolved.shape) == (502, "", ErrorShape.HTML)
    assert resolved.accepted


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"kind": "explode"}, "kind"),
        ({"kind": "slow", "seconds": -1}, "seconds"),
        ({"kind": "slow", "seconds": True}, "seconds"),
        ({"kind": "http-status", "status": 99}, "status"),
        ({"kind": "cut", "variant": "softly"}, "variant"),
        ({"kind": "slow", "variant": "softly"}, "variant"),
        ({"kind": "trickle", "on": "create"}, "on"),
        ({"kind": "cut", "on": "lunch"}, "on"),
        ({"kind": "task-fails", "accepted": False}, "accepted"),
    ],
)
def test_errors_name_the_invalid_field_of_a_fault(fields: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Fault(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rates",
    [{"cut": 1.5}, {"cut": -0.1}, {"cut": 0.6, "stall": 0.6}, {"explode": 0.1}, {"cut": "often"}, {"cut": True}],
)
def test_invalid_rates_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rates|kind"):
        Faults(rates)


def test_an_invalid_rate_changes_nothing() -> None:
    faults = Faults({"cut": 0.5})
    with pytest.raises(ValueError, match="add up"):
        faults.set_rate("stall", 0.8)
    assert len(faults.rates) == 1


def test_a_script_accepts_only_faults_of_its_operation() -> None:
    faults = Faults()
    with pytest.raises(ValueError, match="does not apply"):
        faults.script("status", [FaultKind.TASK_FAILS])
    with pytest.raises(ValueError, match="lunch"):
        faults.script("lunch", [None])
    assert faults.waiting("status") == 0

from decimal import Decimal

import attrs
import pytest

from kontext_async.emulator import CreateOutcome, Ledger


def test_the_ledger_sums_its_entries() -> None:
    ledger = Ledger()
    for digest in ("a", "b", "a"):
        index = ledger.record(
            at=1.0,
            outcome=CreateOutcome.ACCEPTED,
            reason="accepted",
            task_id=f"t{digest}",
            prompt="p",
            digest=digest,
            cost=Decimal("0.04"),
        )
        ledger.record_response(index, 200)
    ledger.record(at=2.0, outcome=CreateOutcome.REFUSED, reason="UNAUTHORIZED", status=401)
    ledger.record(at=3.0, outcome=CreateOutcome.CUT, reason="cut")
    assert (ledger.accepted, ledger.refused, ledger.cut, ledger.billed) == (3, 1, 1, 3)
    assert ledger.spent == Decimal("0.12")
    assert ledger.billed_twice == {"a": 2}
    assert ledger.task_ids == ("ta", "tb", "ta")
    assert [entry.responded for entry in ledger.entries] == [True, True, True, True, False]
    summary = ledger.as_dict(entries=False)
    assert summary["spent"] == "0.12"
    assert summary["reasons"] == {"accepted": 3, "UNAUTHORIZED": 1, "cut": 1}
    assert ledger.as_dict()["entries"][0]["cost"] == "0.04"
    assert "spent=0.12" in repr(ledger)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        ledger.entries[0].status = 500  # type: ignore[misc]

"""The audit of a soak finds what was billed twice, lost, or uncertain without a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.support.checks import print_checks
from benchmarks.support.stores import Audit, StoreState, read_store, start_store
from kontext_async.store.rows import Row, SecondTask
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from pathlib import Path

KILL = 1000.0


def entry(prompt: str, task_id: str, *, at: float = 0.0, status: int | None = 200) -> dict[str, Any]:
    return {"prompt": prompt, "task_id": task_id, "at": at, "status": status}


def row(prompt: str, state: State, task_id: str | None = None, *, intended_at: float = 0.0) -> Row:
    return Row(
        id=1,
        run=1,
        key=prompt,
        state=state,
        digest=bytes(32),
        model="flux_kontext_pro",
        images=0,
        prompt=prompt,
        task_id=task_id,
        intended_at=intended_at,
    )


def audit(entries: list[dict[str, Any]], *rows: Row, second: tuple[SecondTask, ...] = ()) -> Audit:
    return Audit.of({"entries": entries}, StoreState(rows, second), [KILL])


def test_a_store_that_knows_all_bills_passes() -> None:
    found = audit([entry("a", "1"), entry("b", "2")], row("a", State.SAVED, "1"), row("b", State.ACCEPTED, "2"))
    assert all(found.checks().values())


def test_a_prompt_with_two_bills_was_billed_twice() -> None:
    found = audit([entry("a", "1"), entry("a", "2")], row("a", State.SAVED, "1"))
    assert found.billed_twice == {"a": 2}
    assert not all(found.checks().values())


def test_an_id_that_neither_a_row_nor_a_second_task_has_is_lost() -> None:
    second = SecondTask(row=1, run="run", key="a", attempt=1, task_id="2", state=State.ACCEPTED, accepted_at=0.0)
    entries = [entry("a", "1"), entry("a", "2"), entry("b", "3")]
    found = audit(entries, row("a", State.SAVED, "1"), row("b", State.PLANNED), second=(second,))
    assert found.lost_ids == ["3"]


def test_the_id_of_an_uncertain_request_is_not_lost() -> None:
    assert audit([entry("a", "1", at=KILL)], row("a", State.UNCERTAIN)).lost_ids == []


@pytest.mark.parametrize(
    ("entries", "intended_at", "expected"),
    [
        pytest.param([entry("a", "1", at=KILL - 0.2)], KILL - 0.3, [], id="accepted before a kill"),
        pytest.param([entry("a", "1", at=KILL - 9)], KILL - 9, ["a"], id="accepted long before a kill"),
        pytest.param([entry("a", "1", at=KILL - 9, status=None)], KILL - 9, [], id="accepted without a response"),
        pytest.param([], KILL - 0.2, [], id="about to be sent at a kill"),
        pytest.param([], KILL - 9, ["a"], id="never sent, and no kill"),
    ],
)
def test_an_uncertain_request_was_on_the_wire_at_a_kill(
    entries: list[dict[str, Any]], intended_at: float, expected: list[str]
) -> None:
    found = audit(entries, row("a", State.UNCERTAIN, intended_at=intended_at))
    assert found.uncertain_off_wire == expected


def test_a_new_store_is_empty(tmp_path: Path) -> None:
    with start_store("sqlite", tmp_path) as server:
        assert read_store(server.url) == StoreState((), ())


def test_checks_are_printed_with_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_checks({"one": True})
    assert not print_checks({"one": True, "two": False})
    assert not print_checks({})
    assert capsys.readouterr().out.splitlines() == ["ok     one", "ok     one", "NOT ok two"]

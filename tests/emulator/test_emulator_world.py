import math
import random
from decimal import Decimal

import attrs
import pytest
from hypothesis import given, strategies as st

from kontext_async.emulator import CreateOutcome, Fault, Ledger
from kontext_async.emulator.validation import CreateRequest
from kontext_async.emulator.world import ORDINARY, Account, Fate, Limits, Refusal, State, Task, World, fate_of

REQUEST = CreateRequest(
    model="flux_kontext_pro",
    prompt="a fox",
    images=(),
    seed=None,
    ratio=None,
    output_format="jpeg",
    digest="d",
)


def accept(world: World, account: Account, *, now: float = 0.0, seconds: float = 10.0, fate: Fate = ORDINARY) -> Task:
    rng = random.Random(f"{now} {seconds} {account.unfinished(now)}")
    return world.accept(account, REQUEST, sides=(8, 8), seconds=seconds, fate=fate, now=now, rng=rng)


def test_a_task_follows_from_the_time() -> None:
    world = World(Limits())
    task = accept(world, world.account("k", 0.0))
    assert task.state(9.99) is State.IN_PROGRESS
    assert task.state(10.0) is State.COMPLETED
    assert [task.progress(now) for now in (0.0, 5.0, 20.0)] == [0.0, 0.5, 0.99]
    assert task.progress(5.0, noise=-0.2) == 0.3
    assert len(task.id) == 20


def test_ids_are_never_given_twice() -> None:
    world = World(Limits())
    account = world.account("k", 0.0)
    ids = {
        world.accept(account, REQUEST, sides=(8, 8), seconds=1, fate=ORDINARY, now=0, rng=random.Random(rounds // 2)).id
        if rounds % 2 == 0
        else "x"
        for rounds in range(10)
    }
    assert len(ids) == 6
    rng = _Repeating()
    first, second = (
        world.accept(account, REQUEST, sides=(8, 8), seconds=1, fate=ORDINARY, now=0, rng=rng) for _ in range(2)
    )
    assert first.id != second.id


class _Repeating(random.Random):
    """Gives every number of bits twice."""

    def __init__(self) -> None:
        super().__init__(0)
        self.calls = 0

    def getrandbits(self, k: int, /) -> int:
        self.calls += 1
        return (self.calls // 3) % (1 << k)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=40), st.floats(0, 120))
def test_unfinished_tasks_are_counted_right(tasks: list[tuple[float, float]], end: float) -> None:
    world = World(Limits())
    account = world.account("k", 0.0)
    made = [accept(world, account, now=now, seconds=seconds) for now, seconds in sorted(tasks)]
    last = max([end, *(now for now, _ in tasks)])
    assert account.unfinished(last) == sum(task.state(last) is State.IN_PROGRESS for task in made)


@given(st.data())
def test_cancelled_tasks_are_not_counted(data: st.DataObject) -> None:
    world = World(Limits())
    account = world.account("k", 0.0)
    made = [accept(world, account, seconds=seconds) for seconds in (5.0, 6.0, 7.0, math.inf)]
    for task in data.draw(st.lists(st.sampled_from(made))):
        world.cancel(task, 1.0)
    now = data.draw(st.sampled_from([1.0, 5.5, 6.5, 8.0]))
    assert account.unfinished(now) == sum(task.state(now) is State.IN_PROGRESS for task in made)


def test_the_limit_on_tasks() -> None:
    world = World(Limits(max_tasks=1))
    account = world.account("k", 0.0)
    assert world.admit(account, 0.0) is None
    accept(world, account)
    refusal = world.admit(account, 9.0)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 429
    assert world.admit(world.account("other", 0.0), 9.0) is None
    assert world.admit(account, 10.0) is None


def test_the_limit_on_requests() -> None:
    world = World(Limits(requests_per_second=2))
    account = world.account("k", 0.0)
    refusals = [world.throttle(account, 0.0) for _ in range(3)]
    assert refusals[:2] == [None, None]
    assert refusals[2] == Refusal(
        status=429, code="RATE_LIMIT_EXCEEDED", message="more than 2 requests per second", retry_after=0.5
    )
    assert world.throttle(account, 0.5) is None
    assert world.throttle(account, 0.4) is not None, "a clock that goes back gives nothing"


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.floats(0.5, 20))
def test_the_rate_is_never_exceeded(gaps: list[float], rate: float) -> None:
    world = World(Limits(requests_per_second=rate))
    account, now, passed = world.account("k", 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += world.throttle(account, now) is None
    assert passed <= now * rate + max(1.0, rate) + 1e-6


def test_a_balance_is_spent_and_then_refused() -> None:
    world = World(Limits(balance=Decimal("0.10"), discount=0.5))
    account = world.account("k", 0.0)
    spent = 0
    while world.admit(account, 0.0) is None:
        spent += 1
        accept(world, account)
    assert spent == 5
    refusal = world.admit(account, 0.0)
    assert refusal is not None
    assert refusal.status == 403
    assert "balance" in refusal.message


def test_failed_tasks_are_billed_only_when_told() -> None:
    doomed = Fate(failure=("1", "no"))
    for bill_failed, cost in ((False, Decimal(0)), (True, Decimal("0.04"))):
        world = World(Limits(bill_failed=bill_failed))
        task = accept(world, world.account("k", 0.0), fate=doomed)
        assert task.cost == cost
        assert task.state(11.0) is State.FAILED


def test_fates() -> None:
    assert fate_of(None) is ORDINARY
    assert fate_of(Fault(kind="cut")) is ORDINARY
    assert fate_of(Fault(kind="task-fails", code="7", message="m")).failure == ("7", "m")
    assert fate_of(Fault(kind="failed-at-once")).at_once
    assert fate_of(Fault(kind="task-late", seconds=3)).known_after == 3
    world = World(Limits())
    account = world.account("k", 0.0)
    hung = accept(world, account, fate=fate_of(Fault(kind="task-hangs")))
    assert hung.state(1e12) is State.IN_PROGRESS
    assert hung.progress(5.0) == 0.5
    at_once = accept(world, account, fate=fate_of(Fault(kind="completed-at-once")))
    assert at_once.state(0.0) is State.COMPLETED
    assert at_once.progress(0.0) == 0.0


def test_who_may_see_a_task_and_when() -> None:
    world = World(Limits())
    account = world.account("k", 0.0)
    task = accept(world, account, fate=Fate(known_after=2, known_until=5))
    assert [world.find(task.id, "k", now) is task for now in (1.9, 2.0, 4.9, 5.0)] == [False, True, True, False]
    assert world.find(task.id, "other", 3.0) is None
    assert world.find("unknown", "k", 3.0) is None
    assert world.of_any_key(task.id) is task


def test_a_finished_task_cannot_be_cancelled() -> None:
    world = World(Limits())
    task = accept(world, world.account("k", 0.0))
    assert world.cancel(task, 10.0) is False
    assert task.state(10.0) is State.COMPLETED


def test_the_ledger_adds_up() -> None:
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
        ledger.note_answer(index, 200)
    ledger.record(at=2.0, outcome=CreateOutcome.REFUSED, reason="UNAUTHORIZED", status=401)
    ledger.record(at=3.0, outcome=CreateOutcome.CUT, reason="cut")
    assert (ledger.accepted, ledger.refused, ledger.cut, ledger.billed) == (3, 1, 1, 3)
    assert ledger.spent == Decimal("0.12")
    assert ledger.billed_twice == {"a": 2}
    assert ledger.task_ids == ("ta", "tb", "ta")
    assert [entry.answered for entry in ledger.entries] == [True, True, True, True, False]
    summary = ledger.as_dict(entries=False)
    assert summary["spent"] == "0.12"
    assert summary["reasons"] == {"accepted": 3, "UNAUTHORIZED": 1, "cut": 1}
    assert ledger.as_dict()["entries"][0]["cost"] == "0.04"
    assert "spent=0.12" in repr(ledger)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        ledger.entries[0].status = 500  # type: ignore[misc]

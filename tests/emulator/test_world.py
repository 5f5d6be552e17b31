import math
import random
from decimal import Decimal

from hypothesis import given, strategies as st

from kontext_async.emulator import Fault
from kontext_async.emulator.validation import CreateRequest
from kontext_async.emulator.world import (
    ORDINARY,
    Account,
    AccountLimits,
    PlannedOutcome,
    Refusal,
    Task,
    TaskPhase,
    World,
    plan_outcome,
)

REQUEST = CreateRequest(
    model="flux_kontext_pro",
    prompt="a fox",
    images=(),
    seed=None,
    ratio=None,
    output_format="jpeg",
    digest="d",
)


def accept(
    world: World, account: Account, *, now: float = 0.0, seconds: float = 10.0, outcome: PlannedOutcome = ORDINARY
) -> Task:
    rng = random.Random(f"{now} {seconds} {account.count_unfinished(now)}")
    return world.accept(account, REQUEST, sides=(8, 8), seconds=seconds, outcome=outcome, now=now, rng=rng)


def test_the_phase_and_progress_of_a_task_follow_from_the_time() -> None:
    world = World(AccountLimits())
    task = accept(world, world.get_account("k", 0.0))
    assert task.phase_at(9.99) is TaskPhase.IN_PROGRESS
    assert task.phase_at(10.0) is TaskPhase.COMPLETED
    assert [task.progress_at(now) for now in (0.0, 5.0, 20.0)] == [0.0, 0.5, 0.99]
    assert task.progress_at(5.0, noise=-0.2) == 0.3
    assert len(task.id) == 20


def test_task_ids_are_unique() -> None:
    world = World(AccountLimits())
    account = world.get_account("k", 0.0)
    ids = {
        world.accept(
            account, REQUEST, sides=(8, 8), seconds=1, outcome=ORDINARY, now=0, rng=random.Random(rounds // 2)
        ).id
        if rounds % 2 == 0
        else "x"
        for rounds in range(10)
    }
    assert len(ids) == 6
    rng = RepeatingRandom()
    first, second = (
        world.accept(account, REQUEST, sides=(8, 8), seconds=1, outcome=ORDINARY, now=0, rng=rng) for _ in range(2)
    )
    assert first.id != second.id


class RepeatingRandom(random.Random):
    """Returns the same bits in successive calls."""

    def __init__(self) -> None:
        super().__init__(0)
        self.calls = 0

    def getrandbits(self, k: int, /) -> int:
        self.calls += 1
        return (self.calls // 3) % (1 << k)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=40), st.floats(0, 120))
def test_unfinished_tasks_are_counted_exactly(tasks: list[tuple[float, float]], end: float) -> None:
    world = World(AccountLimits())
    account = world.get_account("k", 0.0)
    created = [accept(world, account, now=now, seconds=seconds) for now, seconds in sorted(tasks)]
    last = max([end, *(now for now, _ in tasks)])
    assert account.count_unfinished(last) == sum(task.phase_at(last) is TaskPhase.IN_PROGRESS for task in created)


@given(st.data())
def test_cancelled_tasks_are_not_counted(data: st.DataObject) -> None:
    world = World(AccountLimits())
    account = world.get_account("k", 0.0)
    created = [accept(world, account, seconds=seconds) for seconds in (5.0, 6.0, 7.0, math.inf)]
    for task in data.draw(st.lists(st.sampled_from(created))):
        world.cancel(task, 1.0, after=data.draw(st.sampled_from([0.0, 1.0, 5.5])))
    now = data.draw(st.sampled_from([1.0, 5.5, 6.5, 8.0]))
    assert account.count_unfinished(now) == sum(task.phase_at(now) is TaskPhase.IN_PROGRESS for task in created)


def test_tasks_over_the_limit_are_refused() -> None:
    world = World(AccountLimits(max_tasks=1))
    account = world.get_account("k", 0.0)
    assert world.admit(account, 0.0) is None
    accept(world, account)
    refusal = world.admit(account, 9.0)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 429
    assert world.admit(world.get_account("other", 0.0), 9.0) is None
    assert world.admit(account, 10.0) is None


def test_requests_over_the_rate_limit_are_refused() -> None:
    world = World(AccountLimits(requests_per_second=2))
    account = world.get_account("k", 0.0)
    refusals = [world.throttle(account, 0.0) for _ in range(3)]
    assert refusals[:2] == [None, None]
    assert refusals[2] == Refusal(
        status=429, code="RATE_LIMIT_EXCEEDED", message="more than 2 requests per second", retry_after=0.5
    )
    assert world.throttle(account, 0.5) is None
    assert world.throttle(account, 0.4) is not None, "a clock that runs backward adds no tokens"


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.floats(0.5, 20))
def test_the_request_rate_is_never_exceeded(gaps: list[float], rate: float) -> None:
    world = World(AccountLimits(requests_per_second=rate))
    account, now, passed = world.get_account("k", 0.0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += world.throttle(account, now) is None
    assert passed <= now * rate + max(1.0, rate) + 1e-6


def test_tasks_are_refused_once_the_balance_is_spent() -> None:
    world = World(AccountLimits(balance=Decimal("0.10"), discount=0.5))
    account = world.get_account("k", 0.0)
    spent = 0
    while world.admit(account, 0.0) is None:
        spent += 1
        accept(world, account)
    assert spent == 5
    refusal = world.admit(account, 0.0)
    assert refusal is not None
    assert refusal.status == 403
    assert "balance" in refusal.message


def test_failed_tasks_are_billed_only_with_bill_failed() -> None:
    doomed = PlannedOutcome(failure=("1", "no"))
    for bill_failed, cost in ((False, Decimal(0)), (True, Decimal("0.04"))):
        world = World(AccountLimits(bill_failed=bill_failed))
        task = accept(world, world.get_account("k", 0.0), outcome=doomed)
        assert task.cost == cost
        assert task.phase_at(11.0) is TaskPhase.FAILED


def test_faults_plan_the_outcome_of_a_task() -> None:
    assert plan_outcome(None) is ORDINARY
    assert plan_outcome(Fault(kind="cut")) is ORDINARY
    assert plan_outcome(Fault(kind="task-fails", code="7", message="m")).failure == ("7", "m")
    assert plan_outcome(Fault(kind="failed-at-once")).at_once
    assert plan_outcome(Fault(kind="task-late", seconds=3)).known_after == 3
    world = World(AccountLimits())
    account = world.get_account("k", 0.0)
    hung = accept(world, account, outcome=plan_outcome(Fault(kind="task-hangs")))
    assert hung.phase_at(1e12) is TaskPhase.IN_PROGRESS
    assert hung.progress_at(5.0) == 0.5
    at_once = accept(world, account, outcome=plan_outcome(Fault(kind="completed-at-once")))
    assert at_once.phase_at(0.0) is TaskPhase.COMPLETED
    assert at_once.progress_at(0.0) == 0.0


def test_a_task_is_visible_to_its_key_while_it_is_known() -> None:
    world = World(AccountLimits())
    account = world.get_account("k", 0.0)
    task = accept(world, account, outcome=PlannedOutcome(known_after=2, known_until=5))
    assert [world.find(task.id, "k", now) is task for now in (1.9, 2.0, 4.9, 5.0)] == [False, True, True, False]
    assert world.find(task.id, "other", 3.0) is None
    assert world.find("unknown", "k", 3.0) is None
    assert world.find_of_any_key(task.id) is task


def test_a_completed_task_cannot_be_cancelled() -> None:
    world = World(AccountLimits())
    task = accept(world, world.get_account("k", 0.0))
    assert world.cancel(task, 10.0) is False
    assert task.phase_at(10.0) is TaskPhase.COMPLETED

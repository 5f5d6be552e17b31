"""The shares: created on demand, dropped when idle, in bounded memory."""

from __future__ import annotations

from kontext_async.decisions.fair_queue import FairQueue
from kontext_async.decisions.shares import MAX_DEBTS, ShareOptions


def serve(queue: FairQueue[int], name: str, now: float, seconds: float = 5.0) -> None:
    share = queue.share(ShareOptions(name), now)
    queue.charge(share, seconds)
    queue.release(share, 0.0, now)


def test_a_million_names_leave_no_more_than_the_bounded_debts() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(50_000):
        serve(queue, f"user {number}", now=number / 10_000, seconds=5.0 + number)
    assert len(queue.shares) == 0
    assert queue.shares.debts <= MAX_DEBTS


def test_old_debts_are_forgotten_as_others_come() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(100):
        serve(queue, f"early {number}", now=0.0, seconds=10.0 * (100 - number))
    assert queue.shares.debts > 10
    serve(queue, "late", now=61.0)
    assert queue.shares.debts <= 1


def test_a_share_without_debt_leaves_nothing() -> None:
    queue: FairQueue[int] = FairQueue()
    ahead = queue.share(ShareOptions("ahead"), 0.0)
    queue.charge(ahead, 100.0)
    queue.charge(ahead, 1.0)
    share = queue.share(ShareOptions("behind"), 0.0)
    queue.charge(share, 5.0)
    queue.release(share, -5.0, 0.0)
    assert queue.shares.debts == 0


def test_the_weights_of_all_that_are_not_idle_are_summed_up() -> None:
    queue: FairQueue[int] = FairQueue()
    first, second = (queue.share(ShareOptions(name, weight), 0.0) for name, weight in (("a", 2.0), ("b", 3.0)))
    queue.charge(first, 1.0)
    queue.push(second, "pro", 1)
    assert queue.shares.active_weight == 5.0
    queue.share(ShareOptions("a", 4.0), 0.0)
    assert queue.shares.active_weight == 7.0
    queue.release(first, 0.0, 0.0)
    assert queue.shares.active_weight == 3.0


def test_one_name_in_two_classes_is_two_shares() -> None:
    queue: FairQueue[int] = FairQueue()
    high, low = (queue.share(ShareOptions("a", 1.0, priority), 0.0) for priority in (1, 0))
    queue.charge(high, 1.0)
    queue.charge(low, 1.0)
    assert high is not low
    assert queue.share(ShareOptions("a", 1.0, 1), 0.0) is high

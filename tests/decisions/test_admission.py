"""Whether one more request may wait, when a refused one may come again, and how long requests occupy a slot."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from kontext_async.decisions.admission import LONGEST, Pace, is_full, promise, share_of_pace, wait_in_queue
from kontext_async.decisions.durations import ASSUMED, MAX_KINDS, SlotDurations
from kontext_async.decisions.shares import ShareState

PACE = Pace(slots=10, seconds=2.0)


def promise_many(count: int, pace: Pace = PACE, random: float = 0.0) -> list[float]:
    promised, waits = -math.inf, []
    for _ in range(count):
        promised, seconds = promise(promised, 1, pace, 100.0, random)
        waits.append(seconds)
    return waits


def test_a_queue_without_a_limit_is_never_full() -> None:
    assert not is_full(10**9, None)
    assert not is_full(4, 5)
    assert is_full(5, 5)


def test_the_first_refused_request_may_come_when_one_request_has_left_the_queue() -> None:
    assert promise_many(1) == [pytest.approx(0.2)]


def test_each_further_request_has_a_place_of_its_own() -> None:
    waits = promise_many(200)
    assert all(0.2 <= later - earlier <= 0.22 for earlier, later in pairwise(waits))
    assert waits[-1] == pytest.approx(200 * 0.2, rel=0.06)


def test_promises_that_have_passed_delay_nobody() -> None:
    promised, _ = promise(50.0, 1, PACE, 100.0, 0.0)
    assert promised == pytest.approx(100.2)


def test_a_pause_of_the_session_comes_first() -> None:
    assert promise_many(1, Pace(slots=10, seconds=2.0, pause=30.0)) == [pytest.approx(30.2)]


def test_nobody_is_sent_away_for_longer_than_the_bound_and_the_crowd_is_spread() -> None:
    slow = Pace(slots=1, seconds=60.0)
    assert promise_many(100, slow, 0.0)[-1] == LONGEST / 2
    assert promise_many(100, slow, 1.0)[-1] == LONGEST


def test_a_share_has_its_part_of_the_pace() -> None:
    share: ShareState[int] = ShareState(("a", 0), 2.0)
    assert share_of_pace(PACE, share, 8.0).gap == pytest.approx(4 * PACE.gap)
    assert share_of_pace(PACE, share, 0.0) is PACE


def test_the_wait_grows_with_the_queue() -> None:
    assert wait_in_queue(9, PACE) == pytest.approx(2.0)


class TestSlotDurations:
    def test_before_the_first_end_a_duration_is_assumed(self) -> None:
        durations = SlotDurations()
        durations.observe_accepted(("pro", 0), 0.5)
        assert durations.expected(("pro", 0)) == durations.mean == ASSUMED

    def test_a_kind_is_expected_to_take_as_long_as_it_did(self) -> None:
        durations = SlotDurations()
        for kind, seconds in ((("pro", 0), 4.0), (("max", 0), 60.0)):
            durations.observe_accepted(kind, 0.5)
            durations.observe_ended(kind, seconds)
        assert durations.expected(("pro", 0)) == 4.5
        assert durations.expected(("max", 0)) == 60.5
        assert durations.expected(("new", 0)) == durations.mean == 32.5

    def test_the_mean_follows_a_service_that_becomes_slower(self) -> None:
        durations = SlotDurations()
        for _ in range(1000):
            durations.observe_ended(("pro", 0), 2.0)
        for _ in range(100):
            durations.observe_ended(("pro", 0), 8.0)
        assert 7.5 < durations.expected(("pro", 0)) < 8.0

    def test_only_so_many_kinds_have_a_mean_of_their_own(self) -> None:
        durations = SlotDurations()
        for number in range(MAX_KINDS + 10):
            durations.observe_ended((f"model {number}", 0), float(number))
        assert durations.expected(("model 3", 0)) == 3.0
        assert durations.expected((f"model {MAX_KINDS + 1}", 0)) == durations.mean

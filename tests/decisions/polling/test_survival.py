from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, strategies as st
from polling_support import ages_around

from kontext_async.decisions.polling.inspection import optimal_schedule
from kontext_async.decisions.polling.survival import MAX_ENDS, SurvivalEstimator

ages = st.one_of(st.floats(0, 100), st.floats(-1e6, 1e12), st.sampled_from([0.0, 1e-300, 1e-9, 1e300]))


def share_ended_by(survival: SurvivalEstimator, age: float) -> float:
    return survival.estimate().cumulative(age)[0]


def observe_ends(survival: SurvivalEstimator, *ends: float) -> None:
    """Let polls half a second before and after each end observe it."""
    for end in ends:
        survival.observe_alive(0, end - 0.5)
        survival.observe_end(end - 0.5, end + 0.5)


@pytest.mark.parametrize("gap", [1.0, 4.0])
def test_the_estimate_recovers_ends_that_lie_between_polls(gap: float) -> None:
    random, survival = Random(2), SurvivalEstimator()
    for _ in range(600):
        end, age = random.gauss(20, 4), 0.0
        while (following := age + gap * random.uniform(0.7, 1.3)) < end:
            survival.observe_alive(age, following)
            age = following
        survival.observe_end(age, following)
    for age in (14, 17, 20, 23, 26):
        truth = 0.5 * math.erfc(-(age - 20) / 4 / math.sqrt(2))
        assert share_ended_by(survival, age) == pytest.approx(truth, abs=0.06)


def test_running_tasks_count_at_once() -> None:
    survival = SurvivalEstimator()
    observe_ends(survival, *ages_around(10, 50))
    assert share_ended_by(survival, 12) > 0.9
    for _ in range(200):
        survival.observe_alive(0, 30)
    assert share_ended_by(survival, 12) < 0.4


def test_old_observations_count_less() -> None:
    survival = SurvivalEstimator()
    observe_ends(survival, *ages_around(10, 400), *ages_around(30, 400))
    assert share_ended_by(survival, 20) == pytest.approx(0.2, abs=0.07)
    survival.discount_past(0.1)
    observe_ends(survival, *ages_around(5, 100))
    assert share_ended_by(survival, 7) > 0.6


def test_weights_and_kept_ends_are_bounded() -> None:
    survival = SurvivalEstimator()
    observe_ends(survival, *ages_around(10, 9000))
    assert share_ended_by(survival, 12) > 0.9
    assert len(survival._ends) <= MAX_ENDS * 1.25
    assert survival._weight == 1.0


def test_a_past_that_is_discounted_repeatedly_leaves_a_distribution() -> None:
    survival = SurvivalEstimator()
    survival.observe_end(9, 10)
    for _ in range(600):
        survival.discount_past(0.25)
        survival.observe_alive(0, 20)
        assert 0 <= share_ended_by(survival, 15) < 1


@given(st.lists(st.tuples(ages, ages, st.booleans()), max_size=40), ages)
def test_any_ages_lead_to_a_distribution_and_a_schedule(
    observations: list[tuple[float, float, bool]], age: float
) -> None:
    survival = SurvivalEstimator()
    survival.observe_end(1, 2)
    for begin, end, ended in observations:
        (survival.observe_end if ended else survival.observe_alive)(begin, end)
    distribution = survival.estimate()
    assert all(0 <= a <= b <= 1 + 1e-9 for a, b in pairwise(distribution.ended))
    assert all(0 <= a < b for a, b in pairwise(distribution.ages))
    schedule = optimal_schedule(distribution, 0.1)
    assert math.isfinite(schedule.next_poll(abs(age)))
    assert schedule.next_poll(abs(age)) >= abs(age)

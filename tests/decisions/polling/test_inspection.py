from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from kontext_async.decisions.polling.inspection import LifetimeDistribution, optimal_schedule

share_lists = st.lists(st.floats(0, 1), min_size=2, max_size=25).filter(lambda shares: sum(shares) > 0.1)


@given(share_lists, st.floats(1e-3, 10))
def test_no_schedule_on_the_grid_costs_less_than_the_optimal_one(shares: list[float], poll_cost: float) -> None:
    grid = [place**1.3 for place in range(len(shares) + 1)]
    distribution = LifetimeDistribution.from_shares(grid, [share / sum(shares) * 0.98 for share in shares])
    last = len(grid) - 1
    beyond = (1 - distribution.ended[last]) * (math.sqrt(2 * poll_cost * grid[last]) + poll_cost)
    least, scheduled = [0.0] * last + [beyond], [0.0] * last + [beyond]
    schedule = optimal_schedule(distribution, poll_cost)
    for a in range(last - 1, -1, -1):

        def cost(b: int, then: list[float], a: int = a) -> float:
            alive = 1 - distribution.ended[a]
            return alive * (poll_cost + distribution.expected_delay(grid[a], grid[b])) + then[b]

        least[a] = min(cost(b, least) for b in range(a + 1, last + 1))
        scheduled[a] = cost(grid.index(schedule.following[a]), scheduled)
    assert scheduled[0] == pytest.approx(least[0], rel=1e-6, abs=1e-6)


def test_gaps_follow_the_rule_of_theory_where_the_rate_hardly_changes() -> None:
    rate, poll_cost = 0.05, 0.2
    grid = [place / 20 for place in range(2000)]
    ended = [1 - math.exp(-rate * age) for age in grid]
    distribution = LifetimeDistribution.from_shares(grid, [after - before for before, after in pairwise(ended)])
    schedule = optimal_schedule(distribution, poll_cost)
    for age in (0.0, 10.0, 40.0):
        assert schedule.next_poll(age) - age == pytest.approx(math.sqrt(2 * poll_cost / rate), rel=0.05)


@given(share_lists, st.floats(0, 1e6), st.floats(0, 1e6))
def test_probabilities_and_delays_stay_within_their_ranges(shares: list[float], begin: float, seconds: float) -> None:
    distribution = LifetimeDistribution.from_shares(range(len(shares) + 1), [share / sum(shares) for share in shares])
    assert 0 <= distribution.end_probability(begin, begin + seconds) <= 1
    assert 0 <= distribution.expected_delay(begin, begin + seconds) <= seconds * (1 + 1e-6) + 1e-6
    assert distribution.expected_delay(begin, begin) == 0

"""The simulated batch and its bound: what holds for every run."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.servers.schedule import compute_ideal_makespan
from benchmarks.suite.batch_end import RULES, Batch, simulate
from benchmarks.suite.batch_simulation import SimulatedBatch, compute_bound
from benchmarks.suite.simulation_service import FixedInterval
from kontext_async.decisions.polling.batch_end import BatchEnd

SEEDS = 3


@pytest.mark.parametrize("in_flight", [10, 50])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("poll_cost", [0.03, 0.3])
def test_no_rule_is_below_the_bound(in_flight: int, rule: str, poll_cost: float) -> None:
    batch = Batch(tasks=300, in_flight=in_flight, poll_cost=poll_cost)
    reached = simulate(batch, RULES[rule], SEEDS)
    assert batch.bound(SEEDS, reached["polls"]) < reached["makespan_ratio"]


def test_a_fixed_interval_is_not_below_the_bound() -> None:
    times = Batch(tasks=300, in_flight=20).service_times(1)
    run = SimulatedBatch(timing=FixedInterval(0.5), service_times=times, in_flight=20, random=Random(1), end=None).run()
    bound = compute_bound([times], 20, run.polls, median=2.0, sigma=0.5)
    ideal_ends = compute_bound([times], 20, 1000.0, median=2.0, sigma=0.5)
    assert 1 <= ideal_ends < bound < run.makespan / compute_ideal_makespan(times, 20)


def test_the_bound_falls_as_polls_become_more() -> None:
    batch = Batch(tasks=300, in_flight=20)
    bounds = [batch.bound(SEEDS, polls) for polls in (2.0, 4.0, 8.0, 16.0)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1] >= 1


def test_a_batch_without_waiting_requests_has_no_bound_but_its_longest_task() -> None:
    assert Batch(tasks=50, in_flight=50).bound(SEEDS, 2.0) == 1


def test_the_urgency_brings_the_last_outcome_sooner_for_about_as_many_polls() -> None:
    batch = Batch(tasks=300, in_flight=300)
    before, now = simulate(batch, lambda: None, 5), simulate(batch, BatchEnd, 5)
    assert now["last_delay"] < 0.6 * before["last_delay"]
    assert now["makespan_ratio"] < before["makespan_ratio"]
    assert now["polls"] < 1.05 * before["polls"]

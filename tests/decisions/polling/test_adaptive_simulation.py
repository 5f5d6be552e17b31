"""The adaptive timing in simulation: against the optimum, with progress, under a cap, and while the gateway changes."""

from __future__ import annotations

from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from polling_support import RUNNING, Job, SimulatedGateway, bimodal, cost, lognormal

from kontext_async.decisions.polling.adaptive import AdaptiveTiming
from kontext_async.decisions.polling.timing import IntervalTiming
from kontext_async.settings import Polling

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.models import TaskStatus


def adaptive(draw: Callable[[Random], float], poll_cost: float, seed: int = 1, **gateway: Any) -> SimulatedGateway:
    return SimulatedGateway(AdaptiveTiming(Polling(poll_cost=poll_cost)), draw, Random(seed), **gateway)


def test_the_same_random_numbers_lead_to_the_same_polls() -> None:
    runs = [adaptive(bimodal, 0.2, seed=5).run(150) for _ in range(2)]
    assert runs[0] == runs[1]


class TestProgress:
    """Statuses that report progress."""

    def run_with_progress(self, noise: float, seed: int = 1) -> tuple[float, float]:
        random = Random(seed)

        def status(job: Job, age: float) -> TaskStatus:
            return evolve(RUNNING, progress=min(1.0, age / job.takes * (1 + noise * random.uniform(-1, 1))))

        gateway = adaptive(lognormal(0.5), 0.25, status=status)
        gateway.run(150)
        results = gateway.run(300)
        return mean(delay for _, delay in results), mean(polls for polls, _ in results)

    def test_linear_progress_saves_polls_and_delay(self) -> None:
        delay, polls = self.run_with_progress(0.0)
        assert delay < 0.7
        assert polls < 2.5

    def test_random_progress_does_no_harm(self) -> None:
        random = Random(3)
        gateway = adaptive(
            lognormal(0.5), 0.25, status=lambda _, __: evolve(RUNNING, progress=random.choice([None, random.random()]))
        )
        gateway.run(200)
        plain = adaptive(lognormal(0.5), 0.25)
        plain.run(200)
        assert cost(gateway.run(600), 0.25) < 1.1 * cost(plain.run(600), 0.25)


def test_delays_under_a_cap_are_shorter_than_with_an_interval() -> None:
    delays = []
    for timing in (AdaptiveTiming[Job](Polling()), IntervalTiming(Polling(initial_delay=0.25, interval=0.25))):
        gateway = SimulatedGateway(timing, lognormal(0.5), Random(1), running=400, rate=100)
        gateway.run(700)
        delays.append(mean(delay for _, delay in gateway.run(1000)))
    assert delays[0] <= 0.8 * delays[1]


AT_A_TENTH = {"lognormal 0.25": (0.493, 2.43, 5.66), "lognormal 0.5": (0.253, 4.34, 6.2), "bimodal": (0.266, 4.4, 11.9)}
"""The cost of a poll at a mean delay of a tenth of the median; the optimum's polls; a fixed interval's."""


@pytest.mark.parametrize(
    ("name", "to_optimum", "to_fixed"),
    [
        ("lognormal 0.25", 1.12, 0.6),
        ("lognormal 0.5", 1.12, 0.8),
        ("bimodal", 1.3, 0.6),
    ],
)
def test_the_adaptive_timing_is_close_to_the_optimum(name: str, to_optimum: float, to_fixed: float) -> None:
    draw = {"lognormal 0.25": lognormal(0.25), "lognormal 0.5": lognormal(0.5), "bimodal": bimodal}[name]
    poll_cost, optimum, fixed = AT_A_TENTH[name]
    costs = []
    for seed in range(3):
        gateway = adaptive(draw, poll_cost, seed)
        gateway.run(300)
        costs.append(cost(gateway.run(700), poll_cost))
    # on the frontier the delay costs 1 s, a tenth of the median; the rest is the cost of the polls
    polls = (median(costs) - 1.0) / poll_cost
    assert polls <= to_optimum * optimum
    assert polls <= to_fixed * fixed


@pytest.mark.parametrize("draw", [lognormal(0.25), lognormal(1.0), bimodal])
def test_learning_costs_hardly_more_than_a_fixed_interval(draw: Callable[[Random], float]) -> None:
    fixed = SimulatedGateway(IntervalTiming(Polling()), draw, Random(4)).run(100)
    assert cost(adaptive(draw, 0.3, 4).run(100), 0.3) <= 1.02 * cost(fixed, 0.3)


def test_two_humps_do_not_lead_to_long_gaps() -> None:
    gateway = adaptive(bimodal, 0.3, 2)
    gateway.run(300)
    delays = sorted(delay for _, delay in gateway.run(500))
    assert delays[int(0.95 * len(delays))] < 5
    assert mean(delays) < 1.5


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_the_timing_adapts_to_a_gateway_that_becomes_slower_or_faster(factor: float) -> None:
    speed = 1.0
    gateway = adaptive(lambda random: speed * lognormal(0.5)(random), 0.3)
    gateway.run(400)
    speed = factor
    gateway.run(150)
    settled = adaptive(lambda random: factor * lognormal(0.5)(random), 0.3)
    settled.run(400)
    assert cost(gateway.run(250), 0.3) < 1.25 * cost(settled.run(400), 0.3)


def test_many_tasks_older_than_any_observed_slow_the_polls_at_once() -> None:
    takes = 10.0
    gateway = adaptive(lambda _: takes, 0.3)
    gateway.run(200)
    takes = 1e9
    gateway.run(24)
    polled_at: list[float] = []
    for _ in range(400):
        gateway.now = max(gateway.now, gateway.queue.wake_at())
        for job in gateway.queue.pop_all_due(gateway.now):
            polled_at.append(gateway.now)
            gateway.queue.poll_done(job)
            gateway.queue.status_received(job, RUNNING, gateway.now, gateway.random.random())
    assert (polled_at[-1] - polled_at[-101]) / 100 > 0.1

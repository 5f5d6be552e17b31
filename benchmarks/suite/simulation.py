"""Polls that the adaptive timing needs, and their delay: in simulation, against the optimum.

``python -m benchmarks.suite.simulation [--full]``

The real `PollQueue` and `AdaptiveTiming` run against a service with a virtual clock. Delay is from a task's end to the
poll that detects it, in units of the median service time. Timings are compared at equal mean delay: the cost of a poll
is varied, and polls are interpolated between the points.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, frozen

from benchmarks.suite.simulation_service import (
    DISTRIBUTIONS,
    MEDIAN,
    RUNNING,
    FixedInterval,
    Service,
    ServiceTimes,
    SimulatedTask,
    TaskPolls,
    compute_optimum,
    compute_optimum_at,
    summarize,
)
from benchmarks.support.thresholds import check_threshold
from kontext_async.decisions.polling.adaptive import AdaptiveTiming
from kontext_async.settings import Polling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kontext_async.models import TaskStatus

__all__ = ["Sizes", "draw", "measure"]

DELAY = 0.1
"""The mean delay at which polls are compared."""

Point = tuple[float, float]
"""A mean delay, and the mean number of polls per task."""

LIMITS = {
    "lognormal 0.25": (1.10, 0.6),
    "lognormal 0.5": (1.10, 0.8),
    "gamma 4": (1.10, 0.8),
    "bimodal": (1.25, 0.6),
    "lognormal 1": (None, 1.05),
}
"""Maximum polls relative to the optimum, and relative to the best fixed interval."""


@frozen(kw_only=True)
class Sizes:
    """The sizes of the simulation.

    Attributes:
        seeds: Runs; the median of them counts.
        learned: Completions before the count begins.
        counted: Completions that count.
    """

    seeds: int = 3
    learned: int = 300
    counted: int = 1200


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, object]:  # noqa: FBT001, FBT002 # all have it
    """Simulate polls per task of each distribution and timing, learning, changing service times, progress, and caps."""
    sizes = sizes or (Sizes() if quick else Sizes(seeds=9, counted=3000))
    caps = [(name, rate) for name in ("lognormal 0.25", "lognormal 0.5", "bimodal") for rate in (1.5, 3.0)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        comparisons = processes.map(partial(_compare_timings, sizes=sizes), DISTRIBUTIONS)
        capped_runs = processes.map(partial(_simulate_cap, sizes=sizes), caps)
        timings = dict(zip(DISTRIBUTIONS, comparisons, strict=True))
        capped = {f"{name}, cap of {rate:g}": run for (name, rate), run in zip(caps, capped_runs, strict=True)}
    factors = {f"service times {factor:g} times as long": factor for factor in (3.0, 1 / 3)}
    noises = {"linear": 0.0, "noise of 30 %": 0.3}
    return {
        "settings": {"seeds": sizes.seeds, "completions learned from": sizes.learned, "counted": sizes.counted},
        "polls_per_task": timings,
        "while_learning": {name: simulate_learning(times, sizes) for name, times in DISTRIBUTIONS.items()},
        "change": {name: simulate_change(factor, sizes) for name, factor in factors.items()},
        "progress": {name: simulate_progress(noise, sizes) for name, noise in noises.items()},
        "under_a_cap": capped,
        "thresholds": _check_thresholds(timings, capped),
    }


def _check_thresholds(timings: dict[str, dict[str, Any]], capped: dict[str, float]) -> list[dict[str, object]]:
    lines = []
    for name, (to_optimum, to_fixed) in LIMITS.items():
        polls = timings[name]
        what = f"polls at mean delay {DELAY}, {name}: against"
        if to_optimum:
            ratio = round(polls["adaptive"] / polls["optimum"], 3)
            lines.append(check_threshold(f"{what} the optimum", ratio, to_optimum))
        ratio = round(polls["adaptive"] / polls["fixed"], 3)
        lines.append(check_threshold(f"{what} a fixed interval", ratio, to_fixed))
    for name, ratio in capped.items():
        what = f"delay, 400 pending, {name} per completion: against round-robin"
        lines.append(check_threshold(what, ratio, 0.8))
    return lines


def _compare_timings(name: str, sizes: Sizes) -> dict[str, Any]:
    return compare_timings(DISTRIBUTIONS[name], sizes)


def _simulate_cap(cap: tuple[str, float], sizes: Sizes) -> float:
    name, rate = cap
    return round(median(simulate_cap(DISTRIBUTIONS[name], rate, seed) for seed in range(sizes.seeds)), 3)


def compare_timings(times: ServiceTimes, sizes: Sizes) -> dict[str, Any]:
    """Return the polls per task at `DELAY` of each timing, and the frontiers that they were interpolated from."""
    best, poll_cost = compute_optimum_at(times, DELAY)
    adaptive = [simulate_adaptive(times, poll_cost * factor, sizes) for factor in (0.5, 1.0, 2.0)]
    intervals = [2 * DELAY * MEDIAN * factor for factor in (0.8, 1.2)]
    fixed = [simulate_point(times, partial(FixedInterval, interval), sizes) for interval in intervals]
    backoff = [simulate_point(times, lambda: FixedInterval(0.02 * MEDIAN, 1.5), sizes)]
    return {
        "optimum": round(best, 3),
        "adaptive": round(interpolate_polls(adaptive, DELAY), 3),
        "fixed": round(interpolate_polls(fixed, DELAY), 3),
        "frontiers": {
            "optimum": [compute_optimum(times, poll_cost * 2**power) for power in range(-3, 4)],
            "adaptive": adaptive,
            "fixed": fixed,
            "backoff by 1.5": backoff,
        },
    }


def create_timing(poll_cost: float) -> AdaptiveTiming[SimulatedTask]:
    """Return the adaptive timing with the default settings, but for the cost of a poll."""
    return AdaptiveTiming[SimulatedTask](Polling(poll_cost=poll_cost))


def simulate_adaptive(times: ServiceTimes, poll_cost: float, sizes: Sizes) -> Point:
    """Return mean delay and polls of the adaptive timing."""
    return simulate_point(times, partial(create_timing, poll_cost), sizes)


def simulate_point(times: ServiceTimes, create: Callable[[], Any], sizes: Sizes) -> Point:
    """Return mean delay and polls of a timing, each the median of all seeds."""
    points = []
    for seed in range(sizes.seeds):
        service = Service(create(), times.draw, Random(seed))
        service.run(sizes.learned)
        points.append(summarize(service.run(sizes.counted)))
    return median(delay for delay, _ in points), median(polls for _, polls in points)


def interpolate_polls(points: Sequence[Point], delay: float) -> float:
    """Return the polls at a delay, from the two adjacent points: linear in logarithms."""
    points = sorted(points)
    above = next((number for number, (each, _) in enumerate(points) if each >= delay and number), len(points) - 1)
    (less, more_polls), (more, less_polls) = points[above - 1], points[above]
    part = math.log(delay / less) / math.log(more / less)
    return math.exp(math.log(more_polls) + part * math.log(less_polls / more_polls))


def simulate_learning(times: ServiceTimes, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Return the cost (see `compute_cost`) of the first completions, and that of the fixed interval of the settings."""
    _, poll_cost = compute_optimum_at(times, DELAY)
    timings: dict[str, Callable[[], Any]] = {
        "adaptive": partial(create_timing, poll_cost),
        "fixed": lambda: FixedInterval(Polling(poll_cost=poll_cost).interval),
    }
    costs: dict[str, dict[str, float]] = {}
    for name, create in timings.items():
        runs = [Service(create(), times.draw, Random(seed)).run(300) for seed in range(sizes.seeds)]
        costs[name] = {
            f"{first + 1} to {last}": round(median(compute_cost(run[first:last], poll_cost) for run in runs), 3)
            for first, last in ((0, 50), (50, 100), (100, 300))
        }
    return costs


def compute_cost(tasks: Sequence[TaskPolls], poll_cost: float) -> float:
    """Return the mean seconds of delay of a task, plus the cost of its polls in seconds."""
    delay, polls = summarize(tasks)
    return MEDIAN * delay + poll_cost * polls


def simulate_change(factor: float, sizes: Sizes) -> dict[str, float]:
    """Return the cost after the service becomes slower or faster, relative to the cost once the timing has adapted."""
    draw_one = DISTRIBUTIONS["lognormal 0.5"].draw
    _, poll_cost = compute_optimum_at(DISTRIBUTIONS["lognormal 0.5"], DELAY)
    parts: dict[str, list[float]] = {}
    for seed in range(sizes.seeds):
        adapted = ChangingTimes(draw_one, factor)
        service = Service(create_timing(poll_cost), adapted, Random(seed))
        service.run(400)
        least = compute_cost(service.run(sizes.counted), poll_cost)
        changing = ChangingTimes(draw_one)
        service = Service(create_timing(poll_cost), changing, Random(seed))
        service.run(400)
        changing.factor = factor
        run = service.run(400)
        for first, last in ((0, 50), (50, 100), (100, 200), (200, 400)):
            cost = compute_cost(run[first:last], poll_cost)
            parts.setdefault(f"{first + 1} to {last}", []).append(cost / least)
    return {name: round(median(each), 2) for name, each in parts.items()}


@define
class ChangingTimes:
    """Service times that are `factor` times as long as those of `before`."""

    before: Callable[[Random], float]
    factor: float = 1.0

    def __call__(self, random: Random) -> float:
        return self.factor * self.before(random)


def simulate_progress(noise: float, sizes: Sizes) -> dict[str, Point]:
    """Return delay and polls without progress, and with a progress that is linear in time, but for noise."""
    times = DISTRIBUTIONS["lognormal 0.5"]
    random = Random(1)

    def report_progress(task: SimulatedTask, age: float) -> TaskStatus:
        part = age / task.takes * (1 + noise * (2 * random.random() - 1))
        return evolve(RUNNING, progress=min(1.0, part))

    _, poll_cost = compute_optimum_at(times, DELAY)
    results = {}
    for name, status in (("without", lambda *_: RUNNING), ("with", report_progress)):
        points = []
        for seed in range(sizes.seeds):
            service = Service(create_timing(poll_cost), times.draw, Random(seed), status=status)
            service.run(sizes.learned)
            points.append(summarize(service.run(sizes.counted)))
        results[name] = median(delay for delay, _ in points), median(polls for _, polls in points)
    return results


def simulate_cap(times: ServiceTimes, polls: float, seed: int, pending: int = 400) -> float:
    """Return the mean delay relative to round-robin polling, where so many polls per completion are allowed."""
    random = Random(seed)
    rate = polls * pending / mean(times.draw(random) for _ in range(5000))
    delays = []
    timings: tuple[Any, ...] = AdaptiveTiming[SimulatedTask](Polling()), FixedInterval(0.25)
    for timing in timings:
        service = Service(timing, times.draw, Random(seed), at_once=pending, rate=rate)
        service.run(3 * pending)
        delays.append(mean(task.delay for task in service.run(4 * pending)))
    return delays[0] / delays[1]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw polls against delay: the frontiers of each timing."""
    from benchmarks.support.plots import open_panels  # noqa: PLC0415 # matplotlib is an extra

    with open_panels(path, len(figures["polls_per_task"]), 3) as axes:
        for axis, (name, each) in zip(axes, figures["polls_per_task"].items(), strict=False):
            for timing, points in each["frontiers"].items():
                axis.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=timing)
            axis.set(title=name, xlabel="mean delay / median time", ylabel="polls per task", xscale="log", yscale="log")
            axis.legend()
        for axis in axes[len(figures["polls_per_task"]) :]:
            axis.set_visible(False)


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("simulation")

"""How many asks the learned timing needs, and with what delay: in simulation, against the best there can be.

``python -m benchmarks.simulation [--full]``

The real `PollQueue` and `AdaptiveTiming` against a service with a virtual clock. Delay is from a task's end to the ask that
sees it, in units of the median time a task takes. Rules are compared at equal mean delay: what a request is worth is
varied, and asks are read off between the points.
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

from benchmarks.goals import goal
from benchmarks.simulation_service import (
    MEDIAN,
    RUNNING,
    SHAPES,
    EveryInterval,
    Look,
    Service,
    Shape,
    Task,
    optimum,
    optimum_at,
    summary,
)
from kontext_async.decisions.polling.adaptive import AdaptiveTiming
from kontext_async.settings import Polling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kontext_async.models import TaskStatus

__all__ = ["Sizes", "draw", "measure"]

DELAY = 0.1
"""The mean delay at which requests are compared."""

Point = tuple[float, float]
"""A mean delay, and the mean number of requests per task."""

GOALS = {
    "lognormal 0.25": (1.10, 0.6),
    "lognormal 0.5": (1.10, 0.8),
    "gamma 4": (1.10, 0.8),
    "bimodal": (1.25, 0.6),
    "lognormal 1": (None, 1.05),
}
"""Requests against the optimum, and against the best fixed interval, at most."""


@frozen(kw_only=True)
class Sizes:
    """How much is simulated.

    Attributes:
        seeds: Runs, of which the median is taken.
        learned: Finishes before the count begins.
        counted: Finishes that count.
    """

    seeds: int = 3
    learned: int = 300
    counted: int = 1200


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, object]:  # noqa: FBT001, FBT002 # all have it
    """Requests per task for each distribution and rule, the learning phase, change, progress, and a rate cap."""
    sizes = sizes or (Sizes() if quick else Sizes(seeds=9, counted=3000))
    caps = [(name, rate) for name in ("lognormal 0.25", "lognormal 0.5", "bimodal") for rate in (1.5, 3.0)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        running = processes.map(partial(_compared, sizes=sizes), SHAPES)
        runs = processes.map(partial(_capped, sizes=sizes), caps)
        shapes = dict(zip(SHAPES, running, strict=True))
        capped = {f"{name}, cap of {rate:g}": run for (name, rate), run in zip(caps, runs, strict=True)}
    goals = []
    for name, (to_optimum, to_fixed) in GOALS.items():
        each = shapes[name]
        if to_optimum:
            what = f"requests at mean delay {DELAY}, {name}: against the optimum"
            goals.append(goal(what, round(each["learned"] / each["optimum"], 3), to_optimum))
        what = f"requests at mean delay {DELAY}, {name}: against a fixed interval"
        goals.append(goal(what, round(each["learned"] / each["fixed"], 3), to_fixed))
    goals += [
        goal(f"delay, 400 pending, {name} per finish: against round-robin", each, 0.8) for name, each in capped.items()
    ]
    return {
        "settings": {"seeds": sizes.seeds, "finishes learned from": sizes.learned, "counted": sizes.counted},
        "requests_per_task": shapes,
        "while_learning": {name: while_learning(shape, sizes) for name, shape in SHAPES.items()},
        "change": {f"takes {factor:g} times as long": change(factor, sizes) for factor in (3.0, 1 / 3)},
        "progress": {name: with_progress(noise, sizes) for name, noise in (("linear", 0.0), ("noise of 30 %", 0.3))},
        "under_a_cap": capped,
        "goals": goals,
    }


def _compared(name: str, sizes: Sizes) -> dict[str, Any]:
    return compared(SHAPES[name], sizes)


def _capped(cap: tuple[str, float], sizes: Sizes) -> float:
    name, rate = cap
    return round(median(under_a_cap(SHAPES[name], rate, seed) for seed in range(sizes.seeds)), 3)


def compared(shape: Shape, sizes: Sizes) -> dict[str, Any]:
    """Requests per task at `DELAY` of each rule, and the frontiers that they were read off."""
    best, worth = optimum_at(shape, DELAY)
    learned = [learned_point(shape, worth * factor, sizes) for factor in (0.5, 1.0, 2.0)]
    intervals = [2 * DELAY * MEDIAN * factor for factor in (0.8, 1.2)]
    fixed = [point(shape, partial(EveryInterval, interval), sizes) for interval in intervals]
    backoff = [point(shape, lambda: EveryInterval(0.02 * MEDIAN, 1.5), sizes)]
    return {
        "optimum": round(best, 3),
        "learned": round(at_delay(learned, DELAY), 3),
        "fixed": round(at_delay(fixed, DELAY), 3),
        "frontiers": {
            "optimum": [optimum(shape, worth * 2**power) for power in range(-3, 4)],
            "learned": learned,
            "fixed": fixed,
            "backoff by 1.5": backoff,
        },
    }


def learned_point(shape: Shape, worth: float, sizes: Sizes) -> Point:
    return point(shape, lambda: AdaptiveTiming[Task](polling(worth)), sizes)


def polling(worth: float) -> Polling:
    """The defaults of the settings, for tasks of `MEDIAN` seconds."""
    return Polling(poll_cost=worth)


def point(shape: Shape, timing: Callable[[], Any], sizes: Sizes) -> Point:
    """Mean delay and requests of a rule, each the median of all seeds."""
    points = []
    for seed in range(sizes.seeds):
        service = Service(timing(), shape.draw, Random(seed))
        service.run(sizes.learned)
        points.append(summary(service.run(sizes.counted)))
    return median(delay for delay, _ in points), median(asks for _, asks in points)


def at_delay(points: Sequence[Point], delay: float) -> float:
    """Requests at a delay: straight between the two points around it, in logarithms."""
    points = sorted(points)
    above = next((place for place, (each, _) in enumerate(points) if each >= delay and place), len(points) - 1)
    (less, more_asks), (more, less_asks) = points[above - 1], points[above]
    part = math.log(delay / less) / math.log(more / less)
    return math.exp(math.log(more_asks) + part * math.log(less_asks / more_asks))


def while_learning(shape: Shape, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Seconds of delay + worth * requests in the first finishes, and what the same settings' fixed interval costs."""
    _, worth = optimum_at(shape, DELAY)
    rules: dict[str, Callable[[], Any]] = {
        "learned": lambda: AdaptiveTiming[Task](polling(worth)),
        "fixed": lambda: EveryInterval(polling(worth).interval),
    }
    costs: dict[str, dict[str, float]] = {}
    for name, rule in rules.items():
        looks = [Service(rule(), shape.draw, Random(seed)).run(300) for seed in range(sizes.seeds)]
        costs[name] = {
            f"{first + 1} to {last}": round(median(cost(each[first:last], worth) for each in looks), 3)
            for first, last in ((0, 50), (50, 100), (100, 300))
        }
    return costs


def cost(looks: Sequence[Look], worth: float) -> float:
    """Seconds of delay, and of what requests are worth, for one task."""
    delay, asks = summary(looks)
    return MEDIAN * delay + worth * asks


def change(factor: float, sizes: Sizes) -> dict[str, float]:
    """Cost against that of the settled rule, in the finishes after the service becomes slower or faster."""
    draw_one = SHAPES["lognormal 0.5"].draw
    _, worth = optimum_at(SHAPES["lognormal 0.5"], DELAY)
    parts: dict[str, list[float]] = {}
    for seed in range(sizes.seeds):
        settled = Changing(draw_one, factor)
        service = Service(AdaptiveTiming[Task](polling(worth)), settled, Random(seed))
        service.run(400)
        least = cost(service.run(sizes.counted), worth)
        changing = Changing(draw_one)
        service = Service(AdaptiveTiming[Task](polling(worth)), changing, Random(seed))
        service.run(400)
        changing.factor = factor
        looks = service.run(400)
        for first, last in ((0, 50), (50, 100), (100, 200), (200, 400)):
            parts.setdefault(f"{first + 1} to {last}", []).append(cost(looks[first:last], worth) / least)
    return {name: round(median(each), 2) for name, each in parts.items()}


@define
class Changing:
    """A service that takes `factor` times as long as before."""

    before: Callable[[Random], float]
    factor: float = 1.0

    def __call__(self, random: Random) -> float:
        return self.factor * self.before(random)


def with_progress(noise: float, sizes: Sizes) -> dict[str, Point]:
    """Delay and requests where answers have a progress that is linear in time, but for noise."""
    shape = SHAPES["lognormal 0.5"]
    random = Random(1)

    def status(task: Task, age: float) -> TaskStatus:
        part = age / task.takes * (1 + noise * (2 * random.random() - 1))
        return evolve(RUNNING, progress=min(1.0, part))

    _, worth = optimum_at(shape, DELAY)
    found = {}
    for name, answer in (("without", lambda *_: RUNNING), ("with", status)):
        points = []
        for seed in range(sizes.seeds):
            service = Service(AdaptiveTiming(polling(worth)), shape.draw, Random(seed), status=answer)
            service.run(sizes.learned)
            points.append(summary(service.run(sizes.counted)))
        found[name] = median(each for each, _ in points), median(each for _, each in points)
    return found


def under_a_cap(shape: Shape, requests: float, seed: int, pending: int = 400) -> float:
    """Mean delay against that of asking about everything in turn, where so many requests per finish are allowed."""
    random = Random(seed)
    rate = requests * pending / mean(shape.draw(random) for _ in range(5000))
    delays = []
    timings: tuple[Any, ...] = AdaptiveTiming[Task](Polling()), EveryInterval(0.25)
    for timing in timings:
        service = Service(timing, shape.draw, Random(seed), at_once=pending, rate=rate)
        service.run(3 * pending)
        delays.append(mean(look.delay for look in service.run(4 * pending)))
    return delays[0] / delays[1]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Requests against delay: the frontiers of each rule."""
    from benchmarks.drawing import panels  # noqa: PLC0415 # matplotlib is an extra

    with panels(path, len(figures["requests_per_task"]), 3) as axes:
        for axis, (name, each) in zip(axes, figures["requests_per_task"].items(), strict=False):
            for rule, points in each["frontiers"].items():
                axis.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=rule)
            axis.set(
                title=name, xlabel="mean delay / median time", ylabel="requests per task", xscale="log", yscale="log"
            )
            axis.legend()
        for axis in axes[len(figures["requests_per_task"]) :]:
            axis.set_visible(False)


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("simulation")

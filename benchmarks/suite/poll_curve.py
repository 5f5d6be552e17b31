"""Makespan and CPU of 1000 tasks with 100 in flight, at two prices of a poll, against aiohttp by hand.

``python -m benchmarks.suite.poll_curve [--full]``

Two points of one curve: `Polling.poll_cost` decides how many polls a task gets, and how late its end is detected. They
run side by side with aiohttp by hand (gather, semaphore, a sleep of 0.5 s between two polls), each against a server of
its own, with one seed of the service times. A run takes half a minute, so there is one round; with ``--full`` three.

The bound at each point is the least makespan that any polling reaches with as many polls for these service times, if it
knows only their distribution: see `benchmarks.suite.batch_simulation`.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from attrs import evolve, field, frozen

from benchmarks.comparison.comparison import ClientConfig, compare_clients, format_table, summarize_run
from benchmarks.servers.schedule import Workload
from benchmarks.suite.batch_end import Batch
from benchmarks.support.thresholds import check_threshold

__all__ = ["Point", "Sizes", "describe", "measure"]


@frozen(kw_only=True)
class Point:
    """One point of the curve, and what it has to reach.

    Attributes:
        poll_cost: `Polling.poll_cost`.
        makespan: The most of makespan / ideal.
        polls: The most polls of a task.
        cpu: The most CPU per task, relative to by hand.
    """

    poll_cost: float
    makespan: float
    polls: float
    cpu: float


POINTS = {
    "many polls": Point(poll_cost=0.024, makespan=1.07, polls=5.9, cpu=1.10),
    "few polls": Point(poll_cost=0.08, makespan=1.12, polls=3.9, cpu=0.85),
}
BY_HAND = "by hand"


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        rounds: Runs of every client; each figure is the median of them.
        tasks: Images in each run.
        in_flight: Unfinished tasks at once.
        workload: The service times, but for their seed.
        points: The points of the curve, by name.
        polling: Our `Polling`, but for `poll_cost`.
        interval: Seconds between two polls by hand.
    """

    rounds: int = 1
    tasks: int = 1000
    in_flight: int = 100
    workload: Workload = field(factory=Workload)
    points: dict[str, Point] = field(factory=lambda: dict(POINTS))
    polling: dict[str, Any] = field(factory=lambda: {"initial_delay": 0.5, "interval": 0.5})
    interval: float = 0.5

    @property
    def configs(self) -> dict[str, ClientConfig]:
        """The clients that are compared, without their seed."""
        limits = {"polls_per_second": 400.0}
        ours = {
            name: ClientConfig(
                client="ours", options={"limits": limits, "polling": {**self.polling, "poll_cost": point.poll_cost}}
            )
            for name, point in self.points.items()
        }
        return {**ours, BY_HAND: ClientConfig(client="by_hand", options={"interval": self.interval})}

    def bound(self, polls: float) -> float:
        """Return the least mean of makespan / ideal that any polling reaches in these rounds."""
        batch = Batch(tasks=self.tasks, in_flight=self.in_flight, workload=self.workload)
        return batch.bound(self.rounds, polls)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure every point, and compute its bound."""
    sizes = sizes or Sizes(rounds=1 if quick else 3)
    rounds = [_measure_round(sizes, seed) for seed in range(sizes.rounds)]
    points = {name: _summarize(name, rounds, sizes) for name in sizes.points}
    return {
        "settings": {
            "rounds": sizes.rounds,
            "tasks": sizes.tasks,
            "in flight": sizes.in_flight,
            "polling": sizes.polling,
            "poll costs": {name: point.poll_cost for name, point in sizes.points.items()},
        },
        "rounds": rounds,
        "points": points,
        "thresholds": [
            line for name, point in sizes.points.items() for line in _check_thresholds(name, point, points[name])
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return every row of every round, and the bounds."""
    lines: list[str] = []
    for seed, rows in enumerate(figures["rounds"]):
        lines += [f"seed {seed}:", *format_table(rows)]
    lines += [
        f"{name}: makespan / ideal {point['makespan']:.4f} with {point['polls']:.2f} polls; "
        f"no polling with as many is below {point['bound']:.4f}"
        for name, point in figures["points"].items()
    ]
    return lines


def _measure_round(sizes: Sizes, seed: int) -> dict[str, dict[str, Any]]:
    workload = evolve(sizes.workload, seed=seed)
    configs = {name: _seeded(config, seed) for name, config in sizes.configs.items()}
    runs = compare_clients(configs, workload, sizes.tasks, sizes.in_flight, at_once=len(configs))
    return {name: summarize_run(run, workload, sizes.tasks, sizes.in_flight) for name, run in runs.items()}


def _seeded(config: ClientConfig, seed: int) -> ClientConfig:
    return evolve(config, options={**config.options, "seed": seed})


def _summarize(name: str, rounds: list[dict[str, dict[str, Any]]], sizes: Sizes) -> dict[str, float]:
    polls = median(rows[name]["requests_per_task"] - 1 for rows in rounds)
    return {
        "makespan": median(rows[name]["makespan_ratio"] for rows in rounds),
        "polls": round(polls, 3),
        "cpu": round(median(rows[name]["cpu_ms_per_task"] / rows[BY_HAND]["cpu_ms_per_task"] for rows in rounds), 3),
        "bound": sizes.bound(polls),
    }


def _check_thresholds(name: str, point: Point, measured: dict[str, float]) -> list[dict[str, object]]:
    return [
        check_threshold(f"{name}: makespan against ideal", measured["makespan"], point.makespan),
        check_threshold(f"{name}: polls per task", measured["polls"], point.polls),
        check_threshold(f"{name}: CPU per task, against by hand every 0.5 s", measured["cpu"], point.cpu),
    ]


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("poll_curve")

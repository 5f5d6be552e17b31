"""The end of a batch, in simulation: when its last outcome comes, and how many polls that takes.

``python -m benchmarks.suite.batch_end [--full]``

Batches with paired seeds, with and without `decisions.polling.batch_end`, and with the share K / n that its docstring
names. The bound is the least makespan that any polling reaches with as many polls (`batch_simulation`).
"""

from __future__ import annotations

from itertools import islice
from random import Random
from statistics import mean
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from benchmarks.servers.schedule import Workload, compute_ideal_makespan
from benchmarks.suite.batch_simulation import SimulatedBatch, compute_bound
from benchmarks.suite.simulation_service import SimulatedTask
from benchmarks.support.thresholds import check_threshold
from kontext_async.decisions.polling.adaptive import AdaptiveTiming
from kontext_async.decisions.polling.batch_end import BatchEnd
from kontext_async.settings import Polling

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Batch", "Sizes", "describe", "measure", "simulate"]


@frozen(kw_only=True)
class Batch:
    """One kind of batch.

    Attributes:
        tasks: Images in all.
        in_flight: Unfinished tasks at once.
        poll_cost: `Polling.poll_cost`.
        workload: The service times, but for their seed.
    """

    tasks: int = 1000
    in_flight: int = 100
    poll_cost: float = 0.1
    workload: Workload = field(factory=Workload)

    def service_times(self, seed: int) -> list[float]:
        """Return the seconds of each task, in the order of creation."""
        workload = Workload(median=self.workload.median, sigma=self.workload.sigma, seed=seed)
        return list(islice(workload.service_times(), self.tasks))

    def bound(self, seeds: int, polls: float) -> float:
        """Return the least mean of makespan / ideal that any polling reaches with so many polls per task."""
        assert self.workload.median is not None
        batches = [self.service_times(seed) for seed in range(seeds)]
        bound = compute_bound(batches, self.in_flight, polls, median=self.workload.median, sigma=self.workload.sigma)
        return round(bound, 4)


BATCHES = {
    "1000 at once": Batch(in_flight=1000),
    "100 in flight, most polls": Batch(poll_cost=0.022),
    "100 in flight": Batch(),
    "24 in flight": Batch(tasks=240, in_flight=24),
}


@frozen(kw_only=True)
class Sizes:
    """The sizes of the simulation.

    Attributes:
        seeds: Batches of each kind.
        batches: The kinds, by name.
    """

    seeds: int = 10
    batches: dict[str, Batch] = field(factory=lambda: dict(BATCHES))


@define
class EqualShares(BatchEnd):
    """Divides the worth of the end of the batch among the tasks that are left: K / n for each."""

    def urgency(self, pending: int, *, more_to_come: bool) -> float:
        """See `BatchEnd.urgency`."""
        return 1.0 if more_to_come or pending < 1 else max(1.0, self._at_last_acceptance / pending)


RULES: dict[str, Callable[[], BatchEnd | None]] = {
    "as in the middle": lambda: None,
    "shares K / n": EqualShares,
    "urgency": BatchEnd,
}


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Simulate every kind of batch by every rule."""
    sizes = sizes or Sizes(seeds=10 if quick else 50)
    cases = {name: _compare_rules(batch, sizes.seeds) for name, batch in sizes.batches.items()}
    return {
        "settings": {"seeds": sizes.seeds},
        "cases": cases,
        "thresholds": [line for name, rows in cases.items() for line in _check_thresholds(name, rows)],
    }


def simulate(batch: Batch, rule: Callable[[], BatchEnd | None], seeds: int) -> dict[str, float]:
    """Return the figures of a rule, as means over the seeds."""
    makespans, polls, delays = [], [], []
    for seed in range(seeds):
        times = batch.service_times(seed)
        timing = AdaptiveTiming[SimulatedTask](Polling(poll_cost=batch.poll_cost))
        run = SimulatedBatch(
            timing=timing, service_times=times, in_flight=batch.in_flight, random=Random(seed), end=rule()
        ).run()
        makespans.append(run.makespan / compute_ideal_makespan(times, batch.in_flight))
        polls.append(run.polls)
        delays.append(run.last_delay)
    return {"makespan_ratio": mean(makespans), "polls": mean(polls), "last_delay": mean(delays)}


def describe(figures: dict[str, Any]) -> list[str]:
    """Return every row."""
    lines = []
    for name, rows in figures["cases"].items():
        lines.append(f"{name}: makespan/ideal, polls per task, seconds from the last end to its detection")
        lines += [
            f"  {rule:18}{row['makespan_ratio']:8.4f}{row['polls']:8.3f}{row.get('last_delay', 0.0):8.3f}"
            for rule, row in rows.items()
        ]
    return lines


def _compare_rules(batch: Batch, seeds: int) -> dict[str, dict[str, float]]:
    rows = {name: simulate(batch, rule, seeds) for name, rule in RULES.items()}
    rows["bound"] = {"makespan_ratio": batch.bound(seeds, rows["urgency"]["polls"]), "polls": rows["urgency"]["polls"]}
    return rows


def _check_thresholds(name: str, rows: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    ours, before = rows["urgency"], rows["as in the middle"]
    return [
        check_threshold(f"{name}: {what}, against polls as in the middle", round(ours[key] / before[key], 3), limit)
        for what, key, limit in (
            ("last end to its detection", "last_delay", 0.6),
            ("polls per task", "polls", 1.02),
            ("makespan", "makespan_ratio", 1.0),
        )
    ]


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("batch_end")

"""The last outcome of 1000 requests at once, and their requests, against aiohttp by hand.

``python -m benchmarks.suite.at_once [--full]``

Paired runs over real HTTP, one after the other: each pair has one seed of the service times, and of the session's
random numbers. By hand is gather and a sleep of 0.5 s between two polls. A run takes ten seconds, so there are three
pairs; with ``--full`` ten.

Two clocks: the client's, from the call to the last outcome, and the server's, from the first create request to the last
end that was detected. The server's leaves out what a client does before its first request is there; gather prepares all
1000 before it sends one.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from benchmarks.comparison.comparison import (
    LIMITS_ALL_AT_ONCE,
    ClientConfig,
    ClientRun,
    compare_clients,
    format_table,
    summarize_run,
)
from benchmarks.servers.schedule import Workload
from benchmarks.support.thresholds import check_threshold

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Sizes", "describe", "measure"]

POLLING = {"poll_cost": 0.25, "min_interval": 0.05}
"""Our `Polling`. While no request waits, a delay in the middle of the batch costs it nothing: polls may be few."""


CLOCKS = {"client": "seconds", "server": "makespan"}
"""The figure of a run that each clock gives."""


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        pairs: Paired runs.
        tasks: Images in each.
        workload: The service times, but for their seed.
        polling: Our `Polling`, where it is not the default.
        interval: Seconds between two polls by hand.
    """

    pairs: int = 3
    tasks: int = 1000
    workload: Workload = field(factory=Workload)
    polling: dict[str, Any] = field(factory=lambda: dict(POLLING))
    interval: float = 0.5


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure every pair."""
    sizes = sizes or Sizes(pairs=3 if quick else 10)
    pairs = [_measure_pair(sizes, seed) for seed in range(sizes.pairs)]
    ends = {clock: [_ratio(pair, figure) for pair in pairs] for clock, figure in CLOCKS.items()}
    requests = [_ratio(pair, "requests_per_task") for pair in pairs]
    failures = sum(sum(pair["kontext_async"]["failures"].values()) for pair in pairs)
    return {
        "settings": {"pairs": sizes.pairs, "tasks": sizes.tasks, "polling": sizes.polling, "by hand": sizes.interval},
        "pairs": pairs,
        "ends": ends,
        "thresholds": [
            *(line for clock, ratios in ends.items() for line in _check_ends(clock, ratios)),
            check_threshold("requests against by hand, median", round(median(requests), 4), 0.75),
            check_threshold("failures", failures, 0),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return every row of every pair."""
    lines: list[str] = []
    for seed, pair in enumerate(figures["pairs"]):
        ends = ", ".join(f"{ratios[seed]:.4g} by the {clock}'s clock" for clock, ratios in figures["ends"].items())
        lines += [f"seed {seed}: last outcome {ends}", *format_table(pair)]
        lines += [
            f"  {name}: last request accepted after {row['accepted']:.3f} s, last end detected after "
            f"{row['last_delay']:.3f} s"
            for name, row in pair.items()
        ]
    return lines


def _measure_pair(sizes: Sizes, seed: int) -> dict[str, dict[str, Any]]:
    ours = ClientConfig(client="ours", options={"limits": LIMITS_ALL_AT_ONCE, "polling": sizes.polling, "seed": seed})
    configs = {"kontext_async": ours, "by hand": ClientConfig(client="by_hand", options={"interval": sizes.interval})}
    workload = evolve(sizes.workload, seed=seed)
    in_turn = dict(configs if seed % 2 == 0 else reversed(configs.items()))
    runs = compare_clients(in_turn, workload, sizes.tasks, sizes.tasks, at_once=1)
    return {name: _summarize(runs[name], workload, sizes.tasks) for name in configs}


def _summarize(run: ClientRun, workload: Workload, tasks: int) -> dict[str, Any]:
    first = min(created for created, _, _ in run.tasks)
    last = max(ends for _, ends, _ in run.tasks)
    row = summarize_run(run, workload, tasks, tasks)
    return {
        **row,
        "seconds": round(run.report.seconds, 3),
        "accepted": round(max(created for created, _, _ in run.tasks) - first, 3),
        "last_delay": round(first + row["makespan"] - last, 3),
    }


def _check_ends(clock: str, ratios: list[float]) -> list[dict[str, object]]:
    return [
        check_threshold(f"last outcome against by hand, {clock}'s clock, median", round(median(ratios), 4), 1.0),
        check_threshold(f"last outcome against by hand, {clock}'s clock, worst pair", max(ratios), 1.04),
    ]


def _ratio(pair: Mapping[str, Mapping[str, Any]], figure: str) -> float:
    return float(round(pair["kontext_async"][figure] / pair["by hand"][figure], 4))


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("at_once")

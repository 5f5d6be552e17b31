"""Duration of a run of many tasks, against the best possible one, and its longest stall.

``python -m benchmarks.suite.makespan [--full]``

1000 tasks with lognormal service times, median 2 s, over real HTTP: with 100 in flight, and all 1000 at once. The
reference is aiohttp by hand: gather, semaphore, a sleep of 0.5 s between two polls. Both run at the same time, each
against its own server. A run takes over 20 s, so there is one, of 600 tasks where 100 are in flight; with ``--full``
three of 1000.

With 100 in flight every second of delay is a second in which a slot is idle, and the least delay that a number of polls
can achieve is known: `best_without_progress` is the makespan of the best possible schedule, for tasks that report only
"not yet". That bound does not apply to a gateway that reports progress (PROTOCOL.md, "The task"): a case of its own.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

from benchmarks.comparison.comparison import (
    LIMITS_ALL_AT_ONCE,
    ClientConfig,
    ClientRun,
    compare_clients,
    format_table,
    summarize_run,
)
from benchmarks.servers.schedule import Workload, build_timeline, compute_ideal_makespan
from benchmarks.suite.simulation_service import compute_best_ages, lognormal
from benchmarks.support.thresholds import check_threshold

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Case", "describe", "draw", "measure"]

POLLING = {"poll_cost": 0.037, "initial_delay": 0.5, "interval": 0.5}
TWO_SECONDS = Workload()


@frozen(kw_only=True)
class Case:
    """One kind of run.

    Attributes:
        tasks: Images in all.
        in_flight: Unfinished tasks at once.
        workload: The service times.
        limits: Our `Limits`, but for `max_in_flight`.
        polling: Our `Polling`, where it is not the default.
        interval: Seconds between two polls by hand.
    """

    tasks: int = 1000
    in_flight: int = 100
    workload: Workload = TWO_SECONDS
    limits: dict[str, Any] = field(factory=lambda: {"polls_per_second": 400.0})
    polling: dict[str, Any] = field(factory=lambda: dict(POLLING))
    interval: float = 0.5

    @property
    def configs(self) -> dict[str, ClientConfig]:
        """The clients that are compared."""
        ours = ClientConfig(client="ours", options={"limits": self.limits, "polling": self.polling})
        return {"kontext_async": ours, "by hand": ClientConfig(client="by_hand", options={"interval": self.interval})}


POLLING_ALL_AT_ONCE = {**POLLING, "max_interval": 0.5}
"""The run ends with its longest task, so its completion must be detected within this interval."""

WITH_PROGRESS = Workload(linear=True)
CASES = {
    "100 in flight": Case(),
    "100 in flight, with progress": Case(workload=WITH_PROGRESS),
    "1000 at once": Case(in_flight=1000, limits=LIMITS_ALL_AT_ONCE, polling=POLLING_ALL_AT_ONCE),
}
QUICK = {name: case if case.in_flight >= case.tasks else attrs.evolve(case, tasks=600) for name, case in CASES.items()}


def measure(quick: bool = True, cases: dict[str, Case] | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure every case; the figures are those of the median run."""
    cases = cases or (QUICK if quick else CASES)
    measured = _measure_all(cases, 1 if quick else 3)
    return {
        "settings": {name: attrs.asdict(case) for name, case in cases.items()},
        "cases": measured,
        "best_without_progress": {name: _bound(cases[name], rows["kontext_async"]) for name, rows in measured.items()},
        "thresholds": [line for name, rows in measured.items() for line in _check_thresholds(name, cases[name], rows)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return every row of the comparison."""
    lines: list[str] = []
    for case, rows in figures["cases"].items():
        best = figures["best_without_progress"][case]
        lines += [f"{case}:", *format_table(rows)]
        if best:
            lines.append(f"best possible schedule with as many polls: {best:.4g}, without any other overhead")
    return lines


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the timelines: tasks at work, and completed tasks that the client has not detected yet."""
    from benchmarks.support.plots import open_panels  # noqa: PLC0415 # matplotlib is an extra

    with open_panels(path, len(figures["cases"]), columns=len(figures["cases"])) as axes:
        for axis, (name, case) in zip(axes, figures["cases"].items(), strict=True):
            for client, color in (("kontext_async", "C0"), ("by hand", "C1")):
                moments, busy, unseen = zip(*case[client]["timeline"], strict=True)
                ratio = case[client]["makespan_ratio"]
                axis.plot(moments, unseen, color, label=f"{client}: {ratio:.2f} of the ideal makespan")
                axis.fill_between(moments, busy, unseen, color=color, alpha=0.25)
            axis.axvline(case["kontext_async"]["ideal"], color="grey", linestyle=":", label="ideal end")
            axis.set(title=f"{name}: line = tasks in flight, shaded = completed, not detected", xlabel="seconds")
            axis.legend()


def _measure_all(cases: dict[str, Case], rounds: int) -> dict[str, dict[str, Any]]:
    """Measure the cases that leave the machine idle side by side, and the others alone."""
    light = {name: case for name, case in cases.items() if case.in_flight < case.tasks}
    with ThreadPoolExecutor(max(1, len(light))) as threads:
        runs = threads.map(lambda case: _measure_case(case, rounds), light.values())
        side_by_side = dict(zip(light, runs, strict=True))
    return {name: side_by_side.get(name) or _measure_case(case, rounds) for name, case in cases.items()}


def _measure_case(case: Case, rounds: int) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in case.configs}
    for _ in range(rounds):
        for name, run in compare_clients(case.configs, case.workload, case.tasks, case.in_flight).items():
            rows[name].append(_build_row(run, case))
    return {name: _select_median_row(some) for name, some in rows.items()}


def _bound(case: Case, ours: dict[str, Any]) -> float | None:
    if case.workload.linear or case.in_flight >= case.tasks:
        return None
    return best_without_progress(case, ours["requests_per_task"] - 1)


def best_without_progress(case: Case, polls: float) -> float:
    """Return makespan / ideal makespan of a client without overhead that polls by the best schedule for such tasks.

    Args:
        case: The run.
        polls: Mean number of status requests per task.
    """
    assert case.workload.median is not None
    ages = [case.workload.median * age for age in compute_best_ages(lognormal(case.workload.sigma), polls)]
    times = list(islice(case.workload.service_times(), case.tasks))
    seen = [ages[bisect_left(ages, seconds)] for seconds in times]
    return round(compute_ideal_makespan(seen, case.in_flight) / compute_ideal_makespan(times, case.in_flight), 4)


def _build_row(run: ClientRun, case: Case) -> dict[str, Any]:
    figures = summarize_run(run, case.workload, case.tasks, case.in_flight)
    return {**figures, "timeline": build_timeline(run.tasks)}


def _select_median_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    middle = statistics.median_low(row["makespan"] for row in rows)
    return next(row for row in rows if row["makespan"] == middle)


def _check_thresholds(name: str, case: Case, rows: dict[str, dict[str, Any]]) -> list[dict[str, object]]:
    ours, theirs = rows["kontext_async"], rows["by hand"]
    makespan = check_threshold(f"{name}: makespan against ideal", ours["makespan_ratio"], 1.06)
    if case.in_flight < case.tasks:
        requests = round(ours["requests_per_task"] / theirs["requests_per_task"], 3)
        what = f"{name}: requests per task, against a fixed interval of 0.5 s"
        return [makespan, check_threshold(what, requests, 1.0)]
    failures = check_threshold(f"{name}: failures", sum(ours["failures"].values()), 0)
    return [makespan, check_threshold(f"{name}: longest loop stall", ours["stall_ms"], 50, "ms"), failures]


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("makespan")

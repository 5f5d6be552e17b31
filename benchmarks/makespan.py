"""How long a run of many tasks takes, against the best possible one, and how smoothly.

``python -m benchmarks.makespan [--full]``

1000 tasks with lognormal service times, median 2 s, over real HTTP: with 100 in flight, and all 1000 at once. Beside it
aiohttp by hand: gather, semaphore, a sleep of 0.5 s between two asks. Both run at the same time, each against a server
of its own. A run takes over 20 s, so one is taken, and with 100 in flight of 600 tasks; with ``--full`` three of 1000.

With 100 in flight every second of delay is a second in which a slot does nothing, and how little delay a number of
asks can buy is known: `best_without_progress` is what the best schedule of all comes to, for tasks that tell nothing
but "not yet". A gateway that tells its progress (PROTOCOL.md, "The task") sets no such bound: a case of its own.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

from benchmarks.contest import Entry, Run, compete, figures_of, table
from benchmarks.goals import goal
from benchmarks.schedule import Plan, ideal_makespan, unseen_over_time
from benchmarks.simulation_service import best_ages, lognormal

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Case", "describe", "draw", "measure"]

POLLING = {"poll_cost": 0.037, "initial_delay": 0.5, "interval": 0.5}
TWO_SECONDS = Plan()


@frozen(kw_only=True)
class Case:
    """One kind of run.

    Attributes:
        tasks: Pictures in all.
        in_flight: Tasks unfinished at once.
        limits: Our `Limits`, but for `max_in_flight`.
        polling: Our `Polling`, where it is not the default.
        interval: The other's sleep.
    """

    tasks: int = 1000
    in_flight: int = 100
    plan: Plan = TWO_SECONDS
    limits: dict[str, Any] = field(factory=lambda: {"polls_per_second": 400.0})
    polling: dict[str, Any] = field(factory=lambda: dict(POLLING))
    interval: float = 0.5

    @property
    def entries(self) -> dict[str, Entry]:
        """Who competes."""
        ours = Entry(contender="ours", options={"limits": self.limits, "polling": self.polling})
        return {"kontext_async": ours, "by hand": Entry(contender="by_hand", options={"interval": self.interval})}


PROMPT = {**POLLING, "max_interval": 0.5}
"""The run ends with its longest task, and so no task's end may go unseen for longer."""

WITH_PROGRESS = Plan(linear=True)
ALL_AT_ONCE = {"polls_per_second": 1500.0, "max_connections": 200, "max_polls_in_flight": 64}
CASES = {
    "100 in flight": Case(),
    "100 in flight, with progress": Case(plan=WITH_PROGRESS),
    "1000 at once": Case(in_flight=1000, limits=ALL_AT_ONCE, polling=PROMPT),
}
QUICK = {name: case if case.in_flight >= case.tasks else attrs.evolve(case, tasks=600) for name, case in CASES.items()}


def measure(quick: bool = True, cases: dict[str, Case] | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Run every case; the figures are those of the median run."""
    cases = cases or (QUICK if quick else CASES)
    measured = _measure_all(cases, 1 if quick else 3)
    return {
        "settings": {name: attrs.asdict(case) for name, case in cases.items()},
        "cases": measured,
        "best_without_progress": {name: _best(cases[name], rows["kontext_async"]) for name, rows in measured.items()},
        "goals": [line for name, rows in measured.items() for line in _goals(name, cases[name], rows)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Every row of the comparison."""
    lines: list[str] = []
    for case, rows in figures["cases"].items():
        best = figures["best_without_progress"][case]
        lines += [f"{case}:", *table(rows)]
        if best:
            lines.append(f"{'the best schedule of so many asks':24}{best:6.4g}, with no time lost but to it")
    return lines


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the time lines: tasks at work, and tasks whose end nobody has seen yet."""
    from benchmarks.drawing import panels  # noqa: PLC0415 # matplotlib is an extra

    with panels(path, len(figures["cases"]), columns=len(figures["cases"])) as axes:
        for axis, (name, case) in zip(axes, figures["cases"].items(), strict=True):
            for contender, colour in (("kontext_async", "C0"), ("by hand", "C1")):
                moments, busy, unseen = zip(*case[contender]["time_line"], strict=True)
                ratio = case[contender]["makespan_ratio"]
                axis.plot(moments, unseen, colour, label=f"{contender}: {ratio:.2f} of the ideal makespan")
                axis.fill_between(moments, busy, unseen, color=colour, alpha=0.25)
            axis.axvline(case["kontext_async"]["ideal"], color="grey", linestyle=":", label="ideal end")
            axis.set(title=f"{name}: line = tasks in flight, shaded = finished, not seen", xlabel="seconds")
            axis.legend()


def _measure_all(cases: dict[str, Case], rounds: int) -> dict[str, dict[str, Any]]:
    """Those that leave the machine idle run side by side, the others alone."""
    light = {name: case for name, case in cases.items() if case.in_flight < case.tasks}
    with ThreadPoolExecutor(max(1, len(light))) as threads:
        runs = threads.map(lambda case: _measure_case(case, rounds), light.values())
        side_by_side = dict(zip(light, runs, strict=True))
    return {name: side_by_side.get(name) or _measure_case(case, rounds) for name, case in cases.items()}


def _measure_case(case: Case, rounds: int) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in case.entries}
    for _ in range(rounds):
        for name, run in compete(case.entries, case.plan, case.tasks, case.in_flight).items():
            rows[name].append(_row(run, case))
    return {name: _median_row(some) for name, some in rows.items()}


def _best(case: Case, ours: dict[str, Any]) -> float | None:
    if case.plan.linear or case.in_flight >= case.tasks:
        return None
    return best_without_progress(case, ours["requests_per_task"] - 1)


def best_without_progress(case: Case, asks: float) -> float:
    """The makespan against the ideal one of a client that takes no time at all, and asks as is best for such tasks.

    Args:
        case: The run.
        asks: Status requests per task, in the mean.
    """
    assert case.plan.median is not None
    ages = [case.plan.median * age for age in best_ages(lognormal(case.plan.sigma), asks)]
    times = list(islice(case.plan.service_times(), case.tasks))
    seen = [ages[bisect_left(ages, seconds)] for seconds in times]
    return round(ideal_makespan(seen, case.in_flight) / ideal_makespan(times, case.in_flight), 4)


def _row(run: Run, case: Case) -> dict[str, Any]:
    figures = figures_of(run, case.plan, case.tasks, case.in_flight)
    return {**figures, "time_line": unseen_over_time(run.tasks)}


def _median_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    middle = statistics.median_low(row["makespan"] for row in rows)
    return next(row for row in rows if row["makespan"] == middle)


def _goals(name: str, case: Case, rows: dict[str, dict[str, Any]]) -> list[dict[str, object]]:
    ours, theirs = rows["kontext_async"], rows["by hand"]
    makespan = goal(f"{name}: makespan against ideal", ours["makespan_ratio"], 1.06)
    if case.in_flight < case.tasks:
        requests = round(ours["requests_per_task"] / theirs["requests_per_task"], 3)
        return [makespan, goal(f"{name}: requests per task, against a fixed interval of 0.5 s", requests, 1.0)]
    failures = goal(f"{name}: failures", sum(ours["failures"].values()), 0)
    return [makespan, goal(f"{name}: longest loop stall", ours["stall_ms"], 50, "ms"), failures]


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("makespan")

"""How long a run of many tasks takes, against the best possible one, and how smoothly.

``python -m benchmarks.makespan [--full]``

1000 tasks with lognormal service times, median 2 s, over real HTTP: with 100 in flight, and all 1000 at once. Beside it
aiohttp by hand: gather, semaphore, a sleep of 0.5 s between two asks. Both run at the same time, each against a server
of its own. A run takes over 20 s, so one is taken; with ``--full`` three.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field, frozen

from benchmarks.contest import Entry, Run, compete, figures_of, table
from benchmarks.goals import goal
from benchmarks.schedule import Plan, unseen_over_time

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Case", "describe", "draw", "measure"]

POLLING = {"request_worth": 0.04, "first_after": 0.5, "interval": 0.5}
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


ALL_AT_ONCE = {"polls_per_second": 1500.0, "max_connections": 200, "max_polls_in_flight": 64}
CASES = {"100 in flight": Case(), "1000 at once": Case(in_flight=1000, limits=ALL_AT_ONCE)}


def measure(quick: bool = True, cases: dict[str, Case] | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Run every case; the figures are those of the median run."""
    measured = {name: _measure_case(case, 1 if quick else 3) for name, case in (cases or CASES).items()}
    rows = list(measured.values())
    return {
        "settings": {name: attrs.asdict(case) for name, case in (cases or CASES).items()},
        "cases": measured,
        "goals": [*_goals_in_flight(rows[0]), *_goals_at_once(rows[-1])],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Every row of the comparison."""
    return [line for case, rows in figures["cases"].items() for line in (f"{case}:", *table(rows))]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the time lines: tasks at work, and tasks whose end nobody has seen yet."""
    from benchmarks.drawing import panels  # noqa: PLC0415 # matplotlib is an extra

    with panels(path, len(figures["cases"])) as axes:
        for axis, (name, case) in zip(axes, figures["cases"].items(), strict=True):
            for contender, colour in (("kontext_async", "C0"), ("by hand", "C1")):
                moments, busy, unseen = zip(*case[contender]["time_line"], strict=True)
                ratio = case[contender]["makespan_ratio"]
                axis.plot(moments, unseen, colour, label=f"{contender}: {ratio:.2f} of the ideal makespan")
                axis.fill_between(moments, busy, unseen, color=colour, alpha=0.25)
            axis.axvline(case["kontext_async"]["ideal"], color="grey", linestyle=":", label="ideal end")
            axis.set(title=f"{name}: line = tasks in flight, shaded = finished, not seen", xlabel="seconds")
            axis.legend()


def _measure_case(case: Case, rounds: int) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in case.entries}
    for _ in range(rounds):
        for name, run in compete(case.entries, case.plan, case.tasks, case.in_flight).items():
            rows[name].append(_row(run, case))
    return {name: _median_row(some) for name, some in rows.items()}


def _row(run: Run, case: Case) -> dict[str, Any]:
    figures = figures_of(run, case.plan, case.tasks, case.in_flight)
    return {**figures, "time_line": unseen_over_time(run.tasks)}


def _median_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    middle = statistics.median_low(row["makespan"] for row in rows)
    return next(row for row in rows if row["makespan"] == middle)


def _goals_in_flight(rows: dict[str, dict[str, Any]]) -> list[dict[str, object]]:
    ours, theirs = rows["kontext_async"], rows["by hand"]
    requests = "requests per task, against a fixed interval of 0.5 s"
    return [
        goal("100 in flight: makespan against ideal", ours["makespan_ratio"], 1.06),
        goal(f"100 in flight: {requests}", round(ours["requests_per_task"] / theirs["requests_per_task"], 3), 1.0),
    ]


def _goals_at_once(rows: dict[str, dict[str, Any]]) -> list[dict[str, object]]:
    ours = rows["kontext_async"]
    return [
        goal("1000 at once: makespan against ideal", ours["makespan_ratio"], 1.06),
        goal("1000 at once: longest loop stall", ours["stall_ms"], 50, "ms"),
        goal("1000 at once: failures", sum(ours["failures"].values()), 0),
    ]


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("makespan")

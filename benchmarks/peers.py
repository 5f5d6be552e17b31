"""Others at the same work, side by side: 1000 tasks, lognormal, median 2 s, 100 in flight.

``python -m benchmarks.peers [--full]``, with ``pip install 'kontext_async[benchmarks]'``. With ``--full`` 1000 at
once as well, which takes some of them minutes.

Each runs in a process of its own against a server that speaks its dialect, and polls as its makers have it poll: we by
the defaults of `Polling`. Two run at a time.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from benchmarks.contest import Entry, compete, figures_of, table
from benchmarks.goals import goal
from benchmarks.makespan import ALL_AT_ONCE
from benchmarks.schedule import Plan

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PEERS", "Sizes", "describe", "draw", "measure"]

PEERS = {
    "fal-client": ("fal_client", Entry(contender="fal")),
    "replicate": ("replicate", Entry(contender="replicate_")),
    "runwayml": ("runwayml", Entry(contender="runway")),
    "seaart-sdk in threads": ("seaart_sdk", Entry(contender="vendor")),
    "aiohttp by hand, 0.5 s": ("aiohttp", Entry(contender="by_hand")),
    "aiohttp by hand, 3 s": ("aiohttp", Entry(contender="by_hand", options={"interval": 3.0})),
}
"""By name: the module that must be installed, and the contender."""

TWO_SECONDS = Plan()


@frozen(kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        tasks: Pictures in all.
        in_flight: Tasks unfinished at once, in each case.
        peers: Who takes part beside us.
        polling: Our `Polling`, where it is not the default.
    """

    tasks: int = 1000
    in_flight: tuple[int, ...] = (100,)
    plan: Plan = TWO_SECONDS
    peers: tuple[str, ...] = field(factory=lambda: tuple(PEERS))
    polling: dict[str, Any] = field(factory=dict)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Every peer that is installed, beside us."""
    sizes = sizes or Sizes(in_flight=(100,) if quick else (100, 1000))
    missing = [name for name in sizes.peers if find_spec(PEERS[name][0]) is None]
    cases = {in_flight: _case(sizes, in_flight, missing) for in_flight in sizes.in_flight}
    return {
        "settings": {"tasks": sizes.tasks, "ours": _ours(sizes, sizes.in_flight[0]).options, "not_installed": missing},
        "cases": {f"{in_flight} in flight": rows for in_flight, rows in cases.items()},
        "goals": _goals(cases[sizes.in_flight[0]], sizes.in_flight[0]),
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Every row of the comparison."""
    return [line for case, rows in figures["cases"].items() for line in (f"{case}:", *table(rows))]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw CPU per task, requests per task, makespan and delay, side by side."""
    from benchmarks.drawing import panels  # noqa: PLC0415 # matplotlib is an extra

    shown = {
        "cpu_ms_per_task": "CPU per task, ms",
        "makespan_ratio": "makespan / ideal",
        "requests_per_task": "requests per task",
        "delay_p95": "delay, 95 %, s",
    }
    with panels(path, len(figures["cases"]) * len(shown), columns=len(shown)) as axes:
        for number, (case, rows) in enumerate(figures["cases"].items()):
            for axis, (key, title) in zip(axes[number * len(shown) :], shown.items(), strict=False):
                names = list(rows)[::-1]
                bars = axis.barh(names, [rows[name][key] for name in names], color="C1")
                bars[-1].set_color("C0")
                axis.bar_label(bars, fmt="%.3g", padding=2)
                axis.set(title=f"{case}: {title}", xscale="log" if key == "cpu_ms_per_task" else "linear")
                axis.margins(x=0.2)


def _ours(sizes: Sizes, in_flight: int) -> Entry:
    limits = {"polls_per_second": 400.0} if in_flight <= 100 else ALL_AT_ONCE
    return Entry(contender="ours", options={"limits": limits, "polling": sizes.polling})


def _case(sizes: Sizes, in_flight: int, missing: list[str]) -> dict[str, dict[str, Any]]:
    entries = {"kontext_async": _ours(sizes, in_flight)}
    entries |= {name: PEERS[name][1] for name in sizes.peers if name not in missing}
    runs = compete(entries, sizes.plan, sizes.tasks, in_flight)
    rows = {name: figures_of(run, sizes.plan, sizes.tasks, in_flight) for name, run in runs.items()}
    for row in rows.values():
        row["our_cpu_against_theirs"] = round(rows["kontext_async"]["cpu_ms_per_task"] / row["cpu_ms_per_task"], 3)
    return rows


def _goals(rows: dict[str, dict[str, Any]], in_flight: int) -> list[dict[str, object]]:
    what = f"CPU per task, {in_flight} in flight, against"
    compared = [name for name in ("fal-client", "replicate", "runwayml") if name in rows]
    return [goal(f"{what} {name}", rows[name]["our_cpu_against_theirs"], 0.1) for name in compared]


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("peers")

"""Compares this package with other clients: 1000 tasks, lognormal service times, median 2 s, 100 in flight.

``python -m benchmarks.comparison.peers [--full]``, with ``pip install 'kontext_async[benchmarks]'``. With ``--full``
1000 at once as well, which takes minutes with some of the clients.

Each client runs in its own process against a server that speaks its dialect, with its default polling: ours is that of
`Polling`. Two run at a time.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from benchmarks.comparison.comparison import (
    LIMITS_ALL_AT_ONCE,
    ClientConfig,
    compare_clients,
    format_table,
    summarize_run,
)
from benchmarks.servers.schedule import Workload
from benchmarks.support.thresholds import check_threshold

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PEERS", "Sizes", "describe", "draw", "measure"]

PEERS = {
    "fal-client": ("fal_client", ClientConfig(client="fal")),
    "replicate": ("replicate", ClientConfig(client="replicate_")),
    "runwayml": ("runwayml", ClientConfig(client="runway")),
    "seaart-sdk in threads": ("seaart_sdk", ClientConfig(client="vendor")),
    "aiohttp by hand, 0.5 s": ("aiohttp", ClientConfig(client="by_hand")),
    "aiohttp by hand, 3 s": ("aiohttp", ClientConfig(client="by_hand", options={"interval": 3.0})),
}
"""By name: the module that must be installed, and the client."""

TWO_SECONDS = Workload()


@frozen(kw_only=True)
class Sizes:
    """The sizes of the comparison.

    Attributes:
        tasks: Images in all.
        in_flight: Unfinished tasks at once, in each case.
        workload: The service times.
        peers: The clients that are compared with ours.
        polling: Our `Polling`, where it is not the default.
    """

    tasks: int = 1000
    in_flight: tuple[int, ...] = (100,)
    workload: Workload = TWO_SECONDS
    peers: tuple[str, ...] = field(factory=lambda: tuple(PEERS))
    polling: dict[str, Any] = field(factory=dict)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure every peer that is installed, beside this package."""
    sizes = sizes or Sizes(in_flight=(100,) if quick else (100, 1000))
    missing = [name for name in sizes.peers if find_spec(PEERS[name][0]) is None]
    cases = {in_flight: _measure_case(sizes, in_flight, missing) for in_flight in sizes.in_flight}
    ours = _configure_ours(sizes, sizes.in_flight[0]).options
    return {
        "settings": {"tasks": sizes.tasks, "ours": ours, "not_installed": missing},
        "cases": {f"{in_flight} in flight": rows for in_flight, rows in cases.items()},
        "thresholds": _check_thresholds(cases[sizes.in_flight[0]], sizes.in_flight[0]),
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return every row of the comparison."""
    return [line for case, rows in figures["cases"].items() for line in (f"{case}:", *format_table(rows))]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw CPU per task, requests per task, makespan and delay, side by side."""
    from benchmarks.support.plots import open_panels  # noqa: PLC0415 # matplotlib is an extra

    columns = {
        "cpu_ms_per_task": "CPU per task, ms",
        "makespan_ratio": "makespan / ideal",
        "requests_per_task": "requests per task",
        "delay_p95": "delay, 95 %, s",
    }
    with open_panels(path, len(figures["cases"]) * len(columns), columns=len(columns)) as axes:
        for number, (case, rows) in enumerate(figures["cases"].items()):
            for axis, (key, title) in zip(axes[number * len(columns) :], columns.items(), strict=False):
                names = list(rows)[::-1]
                bars = axis.barh(names, [rows[name][key] for name in names], color="C1")
                bars[-1].set_color("C0")
                axis.bar_label(bars, fmt="%.3g", padding=2)
                axis.set(title=f"{case}: {title}", xscale="log" if key == "cpu_ms_per_task" else "linear")
                axis.margins(x=0.2)


def _configure_ours(sizes: Sizes, in_flight: int) -> ClientConfig:
    limits = {"polls_per_second": 400.0} if in_flight <= 100 else LIMITS_ALL_AT_ONCE
    return ClientConfig(client="ours", options={"limits": limits, "polling": sizes.polling})


def _measure_case(sizes: Sizes, in_flight: int, missing: list[str]) -> dict[str, dict[str, Any]]:
    configs = {"kontext_async": _configure_ours(sizes, in_flight)}
    configs |= {name: PEERS[name][1] for name in sizes.peers if name not in missing}
    runs = compare_clients(configs, sizes.workload, sizes.tasks, in_flight)
    rows = {name: summarize_run(run, sizes.workload, sizes.tasks, in_flight) for name, run in runs.items()}
    for row in rows.values():
        row["our_cpu_against_theirs"] = round(rows["kontext_async"]["cpu_ms_per_task"] / row["cpu_ms_per_task"], 3)
    return rows


def _check_thresholds(rows: dict[str, dict[str, Any]], in_flight: int) -> list[dict[str, object]]:
    what = f"CPU per task, {in_flight} in flight, against"
    compared = [name for name in ("fal-client", "replicate", "runwayml") if name in rows]
    return [check_threshold(f"{what} {name}", rows[name]["our_cpu_against_theirs"], 0.1) for name in compared]


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("peers")

"""CPU, memory beyond the images, and stalls of create requests with four images of 15 MB; 1 and 32 at once.

``python -m benchmarks.suite.uploads [--full]`` takes minutes with ``--full``; without it the images have 2 MB.

All ways send the same 80 MB of JSON through aiohttp, to a server in its own process that discards it. *floor* sends
pieces that were encoded beforehand; *with turns* yields to the loop between two pieces, as ours does. *ours* is the
body through our transport; *submit* is everything, including the digest of the images for the fingerprint. CPU is
compared in one process, in which the ways take turns. For memory (VmHWM of the kernel, above its value once the sources
were loaded) and stalls, each way has its own process. The stall is given as wall time, and as the CPU of the longest
turn, since other processes may use the machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from benchmarks.support.server_process import ROOT, start_raw_sink
from benchmarks.support.thresholds import check_threshold

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Sizes", "draw", "measure"]

COMPARED = ("floor", "floor with turns", "ours", "submit")
ALONE = ("floor", "ours", "submit", "submit, paths", "json.dumps")
MEMORY = {1: 2, 32: 16}
STALL = {1: 5, 32: 25}


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        image: Bytes of each of the four images.
        at_once: Requests at once.
        rounds: Runs of each way.
        repeats: Consecutive requests, where there is one at once.
    """

    image: int = 15_000_000
    at_once: tuple[int, ...] = (1, 32)
    rounds: int = 3
    repeats: int = 5


QUICK = Sizes(image=2_000_000, rounds=1, repeats=3)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure CPU, memory and the longest turn of the loop."""
    sizes = sizes or (QUICK if quick else Sizes())
    thresholds: list[dict[str, object]] = []
    figures: dict[str, Any] = {"settings": asdict(sizes), "alone": {}, "cpu_ms": {}, "cpu_ratios": {}}
    with start_raw_sink() as address:
        for at_once in sizes.at_once:
            thresholds += _measure_at_once(figures, address, at_once, sizes)
    return {**figures, "thresholds": thresholds}


def _measure_at_once(figures: dict[str, Any], address: str, at_once: int, sizes: Sizes) -> list[dict[str, object]]:
    """Add the figures of one number of requests at once to `figures`, and return its thresholds."""
    turns: dict[str, list[float]] = {}
    plain: dict[str, list[float]] = {}
    alone: dict[str, list[dict[str, float]]] = {way: [] for way in ALONE}
    for turn in range(sizes.rounds):
        _extend(turns, _run_worker("|".join(COMPARED), address, at_once, sizes))
        for way in ALONE:
            if way != "json.dumps" or at_once == 1 or turn == 0:  # it takes gigabytes and many seconds
                alone[way].append(_run_worker(way, address, at_once, sizes))
    _extend(plain, _run_worker("floor|ours", address, at_once, sizes, "stdlib"))
    name = f"{at_once} at once"
    figures["cpu_ms"][name] = {way: round(statistics.median(some), 1) for way, some in turns.items()}
    figures["cpu_ms"][name]["ours, stdlib base64"] = round(statistics.median(plain["ours"]), 1)
    figures["alone"][name] = {
        way: {what: _compute_median(runs, what) for what in runs[0]} for way, runs in alone.items()
    }
    ratios = figures["cpu_ratios"][name] = {
        "ours to floor with turns": _compute_ratio(turns["ours"], turns["floor with turns"]),
        "ours to floor": _compute_ratio(turns["ours"], turns["floor"]),
        "submit to floor with turns": _compute_ratio(turns["submit"], turns["floor with turns"]),
        "stdlib base64 to floor": _compute_ratio(plain["ours"], plain["floor"]),
    }
    figures.setdefault("all_runs", {})[name] = {"turns": turns, "alone": alone}
    ours, submit, paths, dumps = (figures["alone"][name][way] for way in ALONE[1:])
    memory, stall = MEMORY.get(at_once, 16), STALL.get(at_once, 25)
    return [
        check_threshold(f"CPU against pieces encoded beforehand, {name}", ratios["ours to floor with turns"], 1.3),
        check_threshold(f"memory beyond the sources, {name}", ours["memory_mb"], memory, "MB"),
        check_threshold(f"memory beyond the sources, all of submit, {name}", submit["memory_mb"], memory, "MB"),
        check_threshold(f"memory, all of submit from paths, {name}", paths["memory_mb"], memory, "MB"),
        check_threshold(f"longest loop stall in wall time, {name}", ours["stall_ms"], stall, "ms"),
        check_threshold(f"longest loop stall in wall time, all of submit, {name}", submit["stall_ms"], stall, "ms"),
        check_threshold(f"longest loop stall in CPU, {name}", ours["stall_cpu_ms"], stall, "ms"),
        check_threshold(f"CPU against json.dumps, {name}", round(ours["cpu_ms"] / dumps["cpu_ms"], 3), 0.1),
        check_threshold(f"memory against json.dumps, {name}", round(ours["memory_mb"] / dumps["memory_mb"], 4), 0.02),
    ]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw CPU, memory and stall of each way, at one and at many at once."""
    from benchmarks.support.plots import open_panels  # noqa: PLC0415 # matplotlib is an extra

    titles = {"cpu_ms": "CPU of a request, ms", "memory_mb": "memory beyond the images, MB", "stall_ms": "stall, ms"}
    with open_panels(path, len(titles), columns=len(titles)) as axes:
        for axis, (what, title) in zip(axes, titles.items(), strict=True):
            for number, (name, ways) in enumerate(figures["alone"].items()):
                heights = [row + 0.4 * number for row in range(len(ways))]
                axis.barh(heights, [max(0.05, each[what]) for each in ways.values()], height=0.4, label=name)
            axis.set_yticks(range(len(ALONE)), ALONE)
            axis.set(xscale="log", title=title)
            axis.legend()


def _extend(runs: dict[str, list[float]], more: dict[str, list[float]]) -> None:
    for way, values in more.items():
        runs.setdefault(way, []).extend(values)


def _compute_median(runs: list[dict[str, float]], what: str) -> float:
    return round(statistics.median(run[what] for run in runs), 2)


def _compute_ratio(ones: list[float], others: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(ones, others, strict=True)), 3)


def _run_worker(way: str, address: str, at_once: int, sizes: Sizes, *more: str) -> Any:
    numbers = (at_once, sizes.repeats if at_once == 1 else 1, sizes.image)
    command = [sys.executable, "-m", "benchmarks.suite.upload_worker", way, address, *map(str, numbers), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("uploads")

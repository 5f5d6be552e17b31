"""Four images of 15 MB in one create: CPU, memory beyond the images, and how long the loop is held; 1 and 32 at once.

``python -m benchmarks.uploads [--full]``, in minutes with ``--full``; without it the images have 2 MB.

All ways send the same 80 MB of JSON through aiohttp, to a server in a process of its own that looks at nothing.
*floor* sends pieces that were encoded beforehand; *with turns* lets others run between two pieces, as ours does.
*ours* is the body through our transport; *submit* is everything, with the digest of the images for the fingerprint.
CPU is compared in one process, in which the ways take turns. Memory (what the kernel counts: VmHWM, above what it was
when the sources were there) and stalls take a process of their own each. The stall is given by the clock, and as the
CPU that the longest turn took, since others may use the machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from benchmarks.goals import goal
from benchmarks.pouring import pouring_process
from benchmarks.serving import ROOT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Sizes", "draw", "measure"]

COMPARED = ("floor", "floor with turns", "ours", "submit")
ALONE = ("floor", "ours", "submit", "submit, paths", "json.dumps")
MEMORY = {1: 2, 32: 16}
STALL = {1: 5, 32: 25}


@frozen(kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        image: Bytes of each of the four images.
        at_once: Requests at once.
        rounds: Runs of each.
        repeats: Requests one after the other, where there is one at once.
    """

    image: int = 15_000_000
    at_once: tuple[int, ...] = (1, 32)
    rounds: int = 3
    repeats: int = 5


QUICK = Sizes(image=2_000_000, rounds=1, repeats=3)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """CPU, memory and the longest turn of the loop."""
    sizes = sizes or (QUICK if quick else Sizes())
    goals: list[dict[str, object]] = []
    figures: dict[str, Any] = {"settings": asdict(sizes), "alone": {}, "cpu_ms": {}, "cpu_ratios": {}}
    with pouring_process() as address:
        for at_once in sizes.at_once:
            goals += _at_once(figures, address, at_once, sizes)
    return {**figures, "goals": goals}


def _at_once(figures: dict[str, Any], address: str, at_once: int, sizes: Sizes) -> list[dict[str, object]]:
    turns: dict[str, list[float]] = {}
    plain: dict[str, list[float]] = {}
    alone: dict[str, list[dict[str, float]]] = {way: [] for way in ALONE}
    for turn in range(sizes.rounds):
        _extend(turns, _run("|".join(COMPARED), address, at_once, sizes))
        for way in ALONE:
            if way != "json.dumps" or at_once == 1 or turn == 0:  # it takes gigabytes and many seconds
                alone[way].append(_run(way, address, at_once, sizes))
    _extend(plain, _run("floor|ours", address, at_once, sizes, "stdlib"))
    name = f"{at_once} at once"
    figures["cpu_ms"][name] = {way: round(statistics.median(some), 1) for way, some in turns.items()}
    figures["cpu_ms"][name]["ours, stdlib base64"] = round(statistics.median(plain["ours"]), 1)
    figures["alone"][name] = {way: {what: _median(runs, what) for what in runs[0]} for way, runs in alone.items()}
    ratios = figures["cpu_ratios"][name] = {
        "ours to floor with turns": _ratio(turns["ours"], turns["floor with turns"]),
        "ours to floor": _ratio(turns["ours"], turns["floor"]),
        "submit to floor with turns": _ratio(turns["submit"], turns["floor with turns"]),
        "stdlib base64 to floor": _ratio(plain["ours"], plain["floor"]),
    }
    figures.setdefault("all_runs", {})[name] = {"turns": turns, "alone": alone}
    ours, submit, paths, dumps = (figures["alone"][name][way] for way in ALONE[1:])
    memory, stall = MEMORY.get(at_once, 16), STALL.get(at_once, 25)
    return [
        goal(f"CPU against pieces encoded beforehand, {name}", ratios["ours to floor with turns"], 1.3),
        goal(f"memory beyond the sources, {name}", ours["memory_mb"], memory, "MB"),
        goal(f"memory beyond the sources, all of submit, {name}", submit["memory_mb"], memory, "MB"),
        goal(f"memory, all of submit from paths, {name}", paths["memory_mb"], memory, "MB"),
        goal(f"longest loop stall by the clock, {name}", ours["stall_ms"], stall, "ms"),
        goal(f"longest loop stall by the clock, all of submit, {name}", submit["stall_ms"], stall, "ms"),
        goal(f"longest loop stall in CPU, {name}", ours["stall_cpu_ms"], stall, "ms"),
        goal(f"CPU against json.dumps, {name}", round(ours["cpu_ms"] / dumps["cpu_ms"], 3), 0.1),
        goal(f"memory against json.dumps, {name}", round(ours["memory_mb"] / dumps["memory_mb"], 4), 0.02),
    ]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw CPU, memory and stall of each way, at one and at many at once."""
    from benchmarks.drawing import panels  # noqa: PLC0415 # matplotlib is an extra

    whats = {"cpu_ms": "CPU of a request, ms", "memory_mb": "memory beyond the images, MB", "stall_ms": "stall, ms"}
    with panels(path, len(whats), columns=len(whats)) as axes:
        for axis, (what, title) in zip(axes, whats.items(), strict=True):
            for place, (name, ways) in enumerate(figures["alone"].items()):
                heights = [row + 0.4 * place for row in range(len(ways))]
                axis.barh(heights, [max(0.05, each[what]) for each in ways.values()], height=0.4, label=name)
            axis.set_yticks(range(len(ALONE)), ALONE)
            axis.set(xscale="log", title=title)
            axis.legend()


def _extend(taken: dict[str, list[float]], more: dict[str, list[float]]) -> None:
    for way, values in more.items():
        taken.setdefault(way, []).extend(values)


def _median(runs: list[dict[str, float]], what: str) -> float:
    return round(statistics.median(run[what] for run in runs), 2)


def _ratio(ones: list[float], others: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(ones, others, strict=True)), 3)


def _run(way: str, address: str, at_once: int, sizes: Sizes, *more: str) -> Any:
    numbers = (at_once, sizes.repeats if at_once == 1 else 1, sizes.image)
    command = [sys.executable, "-m", "benchmarks.sending", way, address, *map(str, numbers), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("uploads")

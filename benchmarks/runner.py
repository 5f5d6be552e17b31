"""Runs benchmarks, prints their figures, saves them as JSON and draws them as PNG.

``python -m benchmarks [--full] [--only NAME ...] [--peers] [--out DIR]``

A benchmark is a module of `benchmarks.suite` with ``measure(quick: bool = True) -> dict`` and, where there is more to
show, ``draw(figures, path)`` and ``describe(figures) -> list[str]``. The runner prints ``settings`` and ``thresholds``
of its figures; a threshold has what, value, limit, unit, met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.support.measure import describe_machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["BENCHMARKS", "main", "run", "run_alone"]

SUITE = (
    "imports",
    "create_cpu",
    "status_cpu",
    "log_cpu",
    "connections",
    "memory",
    "makespan",
    "at_once",
    "poll_curve",
    "simulation",
    "batch_end",
    "watched",
    "pacing",
    "fair_shares",
    "overload",
    "uploads",
    "downloads",
    "idle_close",
    "validation",
)
NAMED = ("store_contention", "store_cpu", "store_size")
"""Benchmarks that need PostgreSQL, or take many minutes: they run only where they are named."""
PEERS = "peers"
BENCHMARKS = {
    **{name: f"benchmarks.suite.{name}" for name in (*SUITE, *NAMED)},
    PEERS: f"benchmarks.comparison.{PEERS}",
}
"""The module of each benchmark, by its short name."""

RESULTS = Path(__file__).parent / "results"
WIDTH = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=str(__doc__).splitlines()[0])
    parser.add_argument("--full", action="store_true", help="measure at full size; takes many minutes")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="run this benchmark; may be repeated")
    parser.add_argument("--peers", action="store_true", help="compare the other clients that are installed, too")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for JSON and PNG (default: %(default)s)")
    options = parser.parse_args(arguments)
    names = options.only or [*SUITE, *([PEERS] if options.peers else [])]
    run({name: import_module(BENCHMARKS[name]) for name in names}, quick=not options.full, out=options.out)
    return 0


def run_alone(name: str) -> None:
    """Run one benchmark with the options of the command line, and exit."""
    sys.exit(main([*sys.argv[1:], "--only", name]))


def run(modules: dict[str, ModuleType], *, quick: bool, out: Path) -> dict[str, dict[str, Any]]:
    """Run benchmarks one after the other. Each one's results are saved even if the next one fails."""
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name, module in modules.items():
        began = time.perf_counter()
        machine = describe_machine()
        figures = module.measure(quick=quick)
        seconds = round(time.perf_counter() - began, 1)
        command = f"python -m benchmarks --only {name}{'' if quick else ' --full'}"
        results[name] = {"command": command, "seconds": seconds, "machine": machine, "figures": figures}
        (out / f"{name}.json").write_text(json.dumps(results[name], indent=1, default=str) + "\n", encoding="utf-8")
        _print_figures(command, seconds, figures)
        for line in module.describe(figures) if hasattr(module, "describe") else ():
            print(f"    {line}")
        _draw_plot(module, figures, out / f"{name}.png")
    _save_table(results, out / "table.md")
    return results


def _print_figures(command: str, seconds: float, figures: dict[str, Any]) -> None:
    print(f"\n{command}  ({seconds:.0f} s)")
    for key, value in figures.get("settings", {}).items():
        print(f"    {key}: {value}")
    for line in figures.get("thresholds", ()):
        verdict = "ok" if line["met"] else "NOT MET"
        print(f"  {line['what']:{WIDTH}} {_format_value(line):>12}   <= {line['limit']:<6g} {verdict}", flush=True)


def _format_value(line: dict[str, Any]) -> str:
    return f"{line['value']:g} {line['unit']}".strip()


def _draw_plot(module: ModuleType, figures: dict[str, Any], path: Path) -> None:
    if not hasattr(module, "draw"):
        return
    if find_spec("matplotlib") is None:
        print(f"  (no {path.name}: matplotlib is not installed)")
        return
    module.draw(figures, path)
    print(f"  plot: {path}")


def _save_table(results: dict[str, dict[str, Any]], path: Path) -> None:
    rows = ["| measure | value | threshold |", "|---|---|---|"]
    for result in results.values():
        rows += [
            f"| {line['what']} | {_format_value(line)} | <= {line['limit']:g} {line['unit']} |"
            for line in result["figures"].get("thresholds", ())
        ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")

"""Runs benchmarks, prints what they show, saves figures as JSON and draws them as PNG.

``python -m benchmarks [--full] [--only NAME ...] [--peers] [--out DIR]``

A benchmark is a module of this package with ``measure(quick: bool = True) -> dict`` and, where more is to be shown,
``draw(figures, path)`` and ``describe(figures) -> list[str]``. Of its figures, ``settings`` and ``goals`` are printed;
a goal has what, value, limit, unit, reached.
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

from benchmarks.measuring import machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["BENCHMARKS", "alone", "main", "run"]

BENCHMARKS = ("imports", "status_cpu", "connections", "memory", "makespan", "simulation", "uploads", "downloads")
WITH_PEERS = "peers"
RESULTS = Path(__file__).parent / "results"
WIDTH = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=str(__doc__).splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more runs and larger ones; takes many minutes")
    parser.add_argument("--only", action="append", choices=[*BENCHMARKS, WITH_PEERS], help="this one, alone")
    parser.add_argument("--peers", action="store_true", help="other clients, too: what of the extra is installed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where JSON and PNG go (%(default)s)")
    options = parser.parse_args(arguments)
    chosen = [*BENCHMARKS, *([WITH_PEERS] if options.peers else [])]
    names = options.only or chosen
    found = {name: import_module(f"benchmarks.{name}") for name in names if find_spec(f"benchmarks.{name}")}
    run(found, quick=not options.full, out=options.out)
    return 0


def alone(name: str) -> None:
    """What ``python -m benchmarks.NAME`` does."""
    sys.exit(main([*sys.argv[1:], "--only", name]))


def run(modules: dict[str, ModuleType], *, quick: bool, out: Path) -> dict[str, dict[str, Any]]:
    """Run benchmarks one after the other; what each has written is there even if the next one fails."""
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name, module in modules.items():
        began = time.perf_counter()
        where = machine()
        figures = module.measure(quick=quick)
        seconds = round(time.perf_counter() - began, 1)
        command = f"python -m benchmarks --only {name}{'' if quick else ' --full'}"
        results[name] = {"command": command, "seconds": seconds, "machine": where, "figures": figures}
        (out / f"{name}.json").write_text(json.dumps(results[name], indent=1, default=str) + "\n", encoding="utf-8")
        _show(command, seconds, figures)
        for line in module.describe(figures) if hasattr(module, "describe") else ():
            print(f"    {line}")
        _draw(module, figures, out / f"{name}.png")
    _save_table(results, out / "table.md")
    return results


def _show(command: str, seconds: float, figures: dict[str, Any]) -> None:
    print(f"\n{command}  ({seconds:.0f} s)")
    for key, value in figures.get("settings", {}).items():
        print(f"    {key}: {value}")
    for line in figures.get("goals", ()):
        reached = "ok" if line["reached"] else "NOT REACHED"
        print(f"  {line['what']:{WIDTH}} {_value(line):>12}   <= {line['limit']:<6g} {reached}", flush=True)


def _value(line: dict[str, Any]) -> str:
    return f"{line['value']:g} {line['unit']}".strip()


def _draw(module: ModuleType, figures: dict[str, Any], path: Path) -> None:
    if not hasattr(module, "draw"):
        return
    if find_spec("matplotlib") is None:
        print(f"  (no {path.name}: matplotlib is not installed)")
        return
    module.draw(figures, path)
    print(f"  drawn: {path}")


def _save_table(results: dict[str, dict[str, Any]], path: Path) -> None:
    rows = ["| what | measured | goal |", "|---|---|---|"]
    for result in results.values():
        rows += [
            f"| {line['what']} | {_value(line)} | <= {line['limit']:g} {line['unit']} |"
            for line in result["figures"].get("goals", ())
        ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")

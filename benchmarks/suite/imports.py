"""CPU of ``import kontext_async`` against that of ``import aiohttp``, in fresh interpreters.

``python -m benchmarks.suite.imports [--full]``
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import partial
from typing import Any

from attrs import frozen

from benchmarks.support.measure import compute_median, compute_median_ratio, run_interleaved
from benchmarks.support.server_process import ROOT
from benchmarks.support.thresholds import check_threshold

__all__ = ["Sizes", "describe", "measure"]

AIOHTTP = "import aiohttp"
PACKAGE = "import kontext_async"
SESSION = "from kontext_async import KontextSession"


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        rounds: Fresh interpreters for each statement.
        statements: The reference, the import of the package, and the import of the session.
    """

    rounds: int = 15
    statements: tuple[str, str, str] = (AIOHTTP, PACKAGE, SESSION)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure the CPU of each statement in milliseconds, and its share by package."""
    sizes = sizes or Sizes(rounds=5 if quick else 41)
    for statement in sizes.statements:
        measure_cpu(statement)  # compiles every file, and fills the system's file cache
    runs = run_interleaved({statement: partial(measure_cpu, statement) for statement in sizes.statements}, sizes.rounds)
    aiohttp, *ours = runs.values()
    package, session = (compute_median_ratio(each, aiohttp) for each in ours)
    return {
        "settings": {"runs": sizes.rounds},
        "cpu_ms": {statement: compute_median([1e3 * each for each in some]) for statement, some in runs.items()},
        "self_ms_by_package": {statement: measure_self_times(statement) for statement in sizes.statements[::2]},
        "thresholds": [
            check_threshold("`import kontext_async` against `import aiohttp`, CPU", package, 1.25),
            check_threshold("the same with `KontextSession`, which imports aiohttp", session, 1.25),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the medians, and the packages that take the most time."""
    medians = [f"{statement}: {spent:g} ms" for statement, spent in figures["cpu_ms"].items()]
    *_, own = figures["self_ms_by_package"].values() or [{}]
    return [*medians, "of the last, ms: " + ", ".join(f"{package} {spent:g}" for package, spent in own.items())]


def measure_cpu(statement: str) -> float:
    """Return the seconds of CPU of a statement."""
    code = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return float(done.stdout)


def measure_self_times(statement: str, most: int = 12) -> dict[str, float]:
    """Return milliseconds by top-level package: wall time of ``-X importtime``, its own overhead included."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    printed = subprocess.run(command, stderr=subprocess.PIPE, cwd=ROOT, check=True).stderr.decode()
    spent: Counter[str] = Counter()
    for line in printed.splitlines()[1:]:
        own, _, module = (part.strip() for part in line.removeprefix("import time:").split("|"))
        spent[module.split(".")[0]] += int(own)
    return {package: round(micro / 1e3, 1) for package, micro in spent.most_common(most)}


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("imports")

"""The CPU of `import kontext_async` against that of `import aiohttp`, in fresh interpreters.

``python -m benchmarks.imports [--full]``
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from functools import partial
from typing import Any

from attrs import frozen

from benchmarks.goals import goal
from benchmarks.measuring import interleaved, median_of, median_ratio
from benchmarks.serving import ROOT

__all__ = ["Sizes", "describe", "measure"]

AIOHTTP = "import aiohttp"
PACKAGE = "import kontext_async"
SESSION = "from kontext_async import KontextSession"


@frozen(kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        rounds: Fresh interpreters for each statement.
        statements: The one that the others are compared with, the package's, and that for the session.
    """

    rounds: int = 15
    statements: tuple[str, str, str] = (AIOHTTP, PACKAGE, SESSION)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Milliseconds of CPU of each statement, the ratios of runs side by side, and what takes the time."""
    sizes = sizes or Sizes(rounds=5 if quick else 41)
    for statement in sizes.statements:
        cpu_of(statement)  # so that every file is compiled, and in the system's cache
    runs = interleaved({statement: partial(cpu_of, statement) for statement in sizes.statements}, sizes.rounds)
    aiohttp, *ours = runs.values()
    package, session = (median_ratio(each, aiohttp) for each in ours)
    return {
        "settings": {"runs": sizes.rounds},
        "cpu_ms": {statement: median_of([1e3 * each for each in some]) for statement, some in runs.items()},
        "self_ms_by_package": {statement: self_times(statement) for statement in sizes.statements[::2]},
        "goals": [
            goal("`import kontext_async` against `import aiohttp`, CPU", package, 1.25),
            goal("the same with `KontextSession`, which brings aiohttp", session, 1.25),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """The medians, and what takes the time."""
    medians = [f"{statement}: {spent:g} ms" for statement, spent in figures["cpu_ms"].items()]
    *_, own = figures["self_ms_by_package"].values() or [{}]
    return [*medians, "of the last, ms: " + ", ".join(f"{package} {spent:g}" for package, spent in own.items())]


def cpu_of(statement: str) -> float:
    """Seconds of CPU of a statement."""
    code = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return float(done.stdout)


def self_times(statement: str, most: int = 12) -> dict[str, float]:
    """Milliseconds by top-level package, as ``-X importtime`` sees them: by the wall clock, and with its own cost."""
    command = [sys.executable, "-X", "importtime", "-c", statement]
    printed = subprocess.run(command, stderr=subprocess.PIPE, cwd=ROOT, check=True).stderr.decode()
    spent: Counter[str] = Counter()
    for line in printed.splitlines()[1:]:
        own, _, module = (part.strip() for part in line.removeprefix("import time:").split("|"))
        spent[module.split(".")[0]] += int(own)
    return {package: round(micro / 1e3, 1) for package, micro in spent.most_common(most)}


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("imports")

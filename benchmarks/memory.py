"""Memory per pending task, and how long the loop is held when all are submitted together.

``python -m benchmarks.memory [--full]``

A server accepts at once and never finishes. For the memory, tasks are submitted in waves, so that no caller's task is
left, and `tracemalloc` counts what stays: with the handles that `submit` returns, and without them. For the stall, all
are given to `generate_many` together; the longest one is a full collection of Python's garbage collector, which looks
at every object of the process, and so it is told with and without. Each takes a process of its own. 2,000 tasks, or
100,000 with ``--full``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from attrs import frozen

from benchmarks.goals import goal
from benchmarks.schedule import Plan
from benchmarks.serving import ROOT, Server, server_process

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Sizes", "describe", "draw", "measure"]


@frozen(kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        pending: Tasks.
        steps: Points of the curve.
        watched: Seconds for which the loop is watched after all were submitted together.
    """

    pending: int = 100_000
    steps: int = 10
    watched: float = 2.0


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Bytes per pending task, what they consist of, and the longest turn of the loop."""
    sizes = sizes or Sizes(pending=2_000 if quick else 100_000)
    with server_process() as server:
        kept = _in_process(server, "keep", sizes)
        together = _in_process(server, "together", sizes)
    per_task, stall = kept["bytes_without_handles"], together["stall_ms"]
    return {
        "settings": {"pending": sizes.pending, "session": "defaults, but for max_in_flight = pending"},
        "memory": kept,
        "together": together,
        "goals": [
            goal(f"memory per pending task at {sizes.pending:,} pending, the caller's aside", per_task, 450, "B"),
            goal(f"longest loop stall, {sizes.pending:,} submitted together", stall, 100, "ms"),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """What the memory of a task consists of."""
    kept = figures["memory"]
    lines = [f"{size:7.1f} B  {where}" for where, size in kept["bytes_by_line"].items()]
    together = figures["together"]
    stall = (
        f"longest stall without Python's garbage collector {together['stall_ms_besides_collector']} ms; "
        f"while all are polled {together['stall_ms_while_polling']} ms"
    )
    return [stall, f"{kept['bytes_with_handles']} B with the callers' handles; by the line that took it:", *lines]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw memory against pending tasks."""
    from benchmarks.drawing import panels  # noqa: PLC0415 # matplotlib is an extra

    pending, taken = zip(*figures["memory"]["curve"], strict=True)
    with panels(path, 1) as (axis,):
        axis.plot(pending, [each / 1e6 for each in taken], "C0o-", label="measured, with the callers' handles")
        without = figures["memory"]["bytes_without_handles"]
        axis.plot(pending[-1:], [without * pending[-1] / 1e6], "C1s", label=f"without them: {without:.0f} B each")
        axis.plot(pending, [450 * each / 1e6 for each in pending], "grey", linestyle=":", label="450 B each")
        axis.set(xlabel="pending tasks", ylabel="MB", title="Memory of a session against its pending tasks")
        axis.legend()


def _in_process(server: Server, way: str, sizes: Sizes) -> dict[str, Any]:
    server.reset(Plan(median=None, progress=0.42))
    told = {"address": server.address, "tasks": sizes.pending, "steps": sizes.steps, "watched": sizes.watched}
    command = [sys.executable, "-m", "benchmarks.pending", way, json.dumps(told)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("memory")

"""Memory per pending task, and the longest stall of the loop when all tasks are submitted together.

``python -m benchmarks.suite.memory [--full]``

A server accepts at once and never completes a task. For the memory, tasks are submitted in waves, so that no caller's
asyncio task remains, and `tracemalloc` counts what is retained: with the handles that `submit` returns, and without
them. For the stall, all requests go to `generate_many` together. The longest stall is a full collection of Python's
garbage collector, which visits every object of the process, so the figures have it with and without. Each measurement
has its own process. 2,000 tasks, or 100,000 with ``--full``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from attrs import frozen

from benchmarks.servers.schedule import Workload
from benchmarks.support.server_process import ROOT, MockGatewayClient, start_mock_gateway
from benchmarks.support.thresholds import check_threshold

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Sizes", "describe", "draw", "measure"]


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        pending: Pending tasks.
        steps: Points of the curve.
        watched: Seconds for which the loop is watched after all were submitted together.
    """

    pending: int = 100_000
    steps: int = 10
    watched: float = 2.0


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure bytes per pending task, their allocation sites, and the longest turn of the loop."""
    sizes = sizes or Sizes(pending=2_000 if quick else 100_000)
    with start_mock_gateway() as server:
        retained = _run_worker(server, "memory", sizes)
        together = _run_worker(server, "stall", sizes)
    per_task = f"memory per pending task at {sizes.pending:,} pending, without the caller's handles"
    stall = f"longest loop stall, {sizes.pending:,} submitted together"
    return {
        "settings": {"pending": sizes.pending, "session": "defaults, but for max_in_flight = pending"},
        "memory": retained,
        "together": together,
        "thresholds": [
            check_threshold(per_task, retained["bytes_without_handles"], 450, "B"),
            check_threshold(stall, together["stall_ms"], 100, "ms"),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the allocation sites of a task's memory."""
    memory = figures["memory"]
    lines = [f"{size:7.1f} B  {where}" for where, size in memory["bytes_by_line"].items()]
    together = figures["together"]
    stall = (
        f"longest stall without Python's garbage collector {together['stall_ms_without_gc']} ms; "
        f"while all are polled {together['stall_ms_while_polling']} ms"
    )
    return [stall, f"{memory['bytes_with_handles']} B with the callers' handles; by allocating line:", *lines]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw memory against pending tasks."""
    from benchmarks.support.plots import open_panels  # noqa: PLC0415 # matplotlib is an extra

    pending, retained = zip(*figures["memory"]["curve"], strict=True)
    with open_panels(path, 1) as (axis,):
        axis.plot(pending, [each / 1e6 for each in retained], "C0o-", label="measured, with the callers' handles")
        without = figures["memory"]["bytes_without_handles"]
        axis.plot(pending[-1:], [without * pending[-1] / 1e6], "C1s", label=f"without them: {without:.0f} B each")
        axis.plot(pending, [450 * each / 1e6 for each in pending], "grey", linestyle=":", label="450 B each")
        axis.set(xlabel="pending tasks", ylabel="MB", title="Memory of a session against its pending tasks")
        axis.legend()


def _run_worker(server: MockGatewayClient, what: str, sizes: Sizes) -> dict[str, Any]:
    server.reset(Workload(median=None, progress=0.42))
    job = {"address": server.address, "tasks": sizes.pending, "steps": sizes.steps, "watched": sizes.watched}
    command = [sys.executable, "-m", "benchmarks.suite.pending_worker", what, json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("memory")

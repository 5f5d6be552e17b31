"""Compares the speed of two checkouts of this package.

``python -m benchmarks.comparison.revisions --old DIR [--new DIR] [--pairs 10] [--work NAME]``

The measurements of old and new are interleaved: each pair runs every job with each checkout, in alternating order.
Every measurement has a new interpreter, with the checkout in PYTHONPATH, and a mock gateway, which is that of this
repository. Where the work has no end, the two processes of a pair take turns of a quarter of a second while the other
one is stopped: on a machine that others use, too, the cost of the same work differs by a tenth from one second to the
next. The result is the median of the pairs' ratios new / old, with its 90 % interval: the 5 % and 95 % points of the
medians of bootstrap resamples of the ratios. The exit code is 1 if the upper end of an interval is above 1.05.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from benchmarks.servers.schedule import Workload
from benchmarks.support.server_process import ROOT, start_mock_gateway

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.support.server_process import MockGatewayClient

__all__ = ["JOBS", "Comparison", "RevisionJob", "compare_revisions", "compute_interval", "format_table"]

WORKER = Path(__file__).with_name("revision_worker.py")
LIMIT = 1.05
"""The largest upper end of an interval that is accepted."""

RESAMPLES = 10_000

TURN = 0.25
"""Seconds of a turn."""

MOST_SECONDS = 300
"""Seconds after which a measurement has failed."""

ENDLESS = Workload(median=None, progress=0.42)
SHORT = Workload(median=0.8)
"""With 100 of 1000 tasks in flight, a run takes about 10 s."""

ALL_THE_TIME = {"interval": 1e-4, "min_interval": 1e-4, "max_interval": 1e-4}


@frozen(kw_only=True)
class RevisionJob:
    """One measurement that the worker makes.

    Attributes:
        work: The name of the work, in `revision_worker.WORK`.
        workload: The service times.
        limits: Of the session; only fields that both revisions have.
        polling: Of the session; only fields that both revisions have.
        tasks: Tasks in all, or at the beginning.
        figures: The measured figures, by title: "cpu" (per operation) or "seconds" (of the run).
        turns: The turns of each process, where the work has no end; 0 where it has one.
        processes: The processes of each checkout in a pair, whose figures are added up. The CPU of the same work
            differs from one process to the next, for as long as they live.
        warm_up: Seconds before the first turn; longer than the first delay of `Polling`.
    """

    work: str
    workload: Workload
    limits: dict[str, Any]
    figures: dict[str, str]
    polling: dict[str, Any] = field(factory=dict)
    tasks: int = 1000
    turns: int = 0
    processes: int = 1
    warm_up: float = 1.5


JOBS = (
    RevisionJob(
        work="polls",
        workload=ENDLESS,
        limits={"max_in_flight": 100, "max_polls_in_flight": 100, "max_connections": 400, "polls_per_second": 1e6},
        polling=ALL_THE_TIME,
        tasks=100,
        figures={"CPU per status request, 100 at once": "cpu"},
        turns=4,
        processes=4,
    ),
    RevisionJob(
        work="generations",
        workload=SHORT,
        limits={"max_in_flight": 100, "polls_per_second": 400.0},
        figures={"CPU per task, 1000 tasks, 100 in flight": "cpu", "makespan of the same": "seconds"},
    ),
    RevisionJob(
        work="creates",
        workload=ENDLESS,
        limits={"max_in_flight": 100_000, "polls_per_second": 0.1},
        figures={"CPU per create request": "cpu"},
        turns=4,
        processes=4,
    ),
    RevisionJob(
        work="generations",
        workload=SHORT,
        limits={"max_in_flight": 1000, "max_polls_in_flight": 64, "max_connections": 200, "polls_per_second": 1500.0},
        polling={"interval": 0.5, "max_interval": 0.5},
        figures={"CPU per task, 1000 at once": "cpu", "makespan of the same, 1000 at once": "seconds"},
    ),
)


@frozen
class Comparison:
    """The values of one figure, pair by pair.

    Attributes:
        title: What was measured.
        old: Values of the old checkout: microseconds of CPU per operation, or seconds.
        new: Values of the new checkout.
    """

    title: str
    old: Sequence[float]
    new: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """The ratios new / old of the pairs."""
        return [new / old for old, new in zip(self.old, self.new, strict=True)]

    @property
    def interval(self) -> tuple[float, float]:
        """The 90 % interval of the median ratio."""
        return compute_interval(self.ratios)

    @property
    def is_accepted(self) -> bool:
        """True if the upper end of the interval is at most `LIMIT`."""
        return self.interval[1] <= LIMIT


def compute_interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 90 % interval of the median: percentiles of 10,000 bootstrap resamples, with a fixed seed."""
    random = Random(1)
    medians = [median(random.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)]
    points = quantiles(medians, n=20, method="inclusive")
    return points[0], points[-1]


def compare_revisions(
    old: Path, new: Path, pairs: int, jobs: Sequence[RevisionJob] = JOBS, *, verbose: bool = False
) -> list[Comparison]:
    """Measure both checkouts, pair by pair."""
    values: dict[str, dict[str, list[float]]] = {title: {"old": [], "new": []} for job in jobs for title in job.figures}
    with start_mock_gateway() as old_server, start_mock_gateway() as new_server:
        sides = [_Side("old", old, old_server), _Side("new", new, new_server)]
        for pair in range(pairs):
            for job in jobs:
                results = _measure_pair(sides if pair % 2 == 0 else sides[::-1], job)
                for title, figure in job.figures.items():
                    for name, result in results.items():
                        values[title][name].append(_read_figure(result, figure))
            if verbose:
                print(f"pair {pair + 1} of {pairs} done", flush=True)
    return [Comparison(title, each["old"], each["new"]) for title, each in values.items()]


@frozen
class _Side:
    """A checkout with the gateway of its own that it uses.

    Attributes:
        name: Its name in the comparison.
        checkout: Its folder.
        server: The gateway.
    """

    name: str
    checkout: Path
    server: MockGatewayClient

    def start(self, job: RevisionJob) -> subprocess.Popen[bytes]:
        """Start a job."""
        self.server.reset(job.workload)
        arguments = {
            "address": self.server.address,
            **{name: getattr(job, name) for name in ("work", "limits", "polling", "tasks", "warm_up")},
        }
        command = [sys.executable, "-P", str(WORKER), json.dumps(arguments)]
        environment = {**os.environ, "PYTHONPATH": str(self.checkout)}
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def read_result(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Have a job end, if it has no end of its own, and return its result."""
        output, _ = process.communicate(b"\n", timeout=MOST_SECONDS)
        if process.returncode:
            raise RuntimeError(f"the worker ended with {process.returncode} with {self.checkout}")
        result: dict[str, Any] = json.loads(output)
        if Path(result["path"]) != self.checkout:
            raise RuntimeError(f"the worker imported the package from {result['path']}, not from {self.checkout}")
        if result["failures"]:
            raise RuntimeError(f"{result['failures']} of {result['operations']} operations failed with {self.checkout}")
        return result


def _measure_pair(sides: Sequence[_Side], job: RevisionJob) -> dict[str, dict[str, Any]]:
    """Measure each side by its processes, and return the sums by name."""
    results = [_measure_processes(sides[:: 1 if number % 2 == 0 else -1], job) for number in range(job.processes)]
    return {side.name: _add_up([each[side.name] for each in results]) for side in sides}


def _add_up(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: sum(each[name] for each in results) for name in ("cpu", "seconds", "operations")}


def _measure_processes(sides: Sequence[_Side], job: RevisionJob) -> dict[str, dict[str, Any]]:
    """Measure one process of each side, and return the results by name."""
    if not job.turns:
        return {side.name: side.read_result(side.start(job)) for side in sides}
    with ExitStack() as stack:
        running: list[tuple[_Side, subprocess.Popen[bytes]]] = []
        for side in sides:
            process = side.start(job)
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()  # it has warmed up
            process.send_signal(signal.SIGSTOP)
            running.append((side, process))
        for turn in range(job.turns):
            for _, process in running[:: 1 if turn % 2 == 0 else -1]:
                process.send_signal(signal.SIGCONT)
                time.sleep(TURN)
                process.send_signal(signal.SIGSTOP)
        return {side.name: _end_turns(side, process) for side, process in running}


def _end_turns(side: _Side, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    process.send_signal(signal.SIGCONT)
    return side.read_result(process)


def _read_figure(result: Mapping[str, Any], figure: str) -> float:
    if figure == "cpu":
        return float(result["cpu"] * 1e6 / max(1, result["operations"]))
    return float(result[figure])


def format_table(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the comparison as lines of a table; CPU is in microseconds."""
    lines = [f"{'':42}{'old':>10}{'new':>10}{'new / old':>11}   90 % interval"]
    for each in comparisons:
        low, high = each.interval
        verdict = "ok" if each.is_accepted else f"SLOWER: above {LIMIT}"
        medians = f"{median(each.old):10.4g}{median(each.new):10.4g}{median(each.ratios):11.3f}"
        lines.append(f"{each.title:42}{medians}   {low:.3f} to {high:.3f}  {verdict}")
    return lines


def _parse_checkout(text: str) -> Path:
    checkout = Path(text).resolve()
    if not (checkout / "kontext_async" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text} does not contain the package kontext_async")
    return checkout


def _parse_pairs(text: str) -> int:
    pairs = int(text)
    if pairs < 1:
        raise argparse.ArgumentTypeError("there must be at least one pair")
    return pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison.revisions", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--old", type=_parse_checkout, required=True, help="folder of the old checkout")
    parser.add_argument("--new", type=_parse_checkout, default=ROOT, help="folder of the new checkout (default: this)")
    parser.add_argument("--pairs", type=_parse_pairs, default=10, help="measurements of each (default: %(default)s)")
    works = sorted({job.work for job in JOBS})
    parser.add_argument("--work", choices=works, nargs="+", default=works, help="what to measure (default: all)")
    options = parser.parse_args(arguments)
    jobs = [job for job in JOBS if job.work in options.work]
    comparisons = compare_revisions(options.old, options.new, options.pairs, jobs, verbose=True)
    print("\n".join(format_table(comparisons)))
    return 0 if all(each.is_accepted for each in comparisons) else 1


if __name__ == "__main__":
    sys.exit(main())

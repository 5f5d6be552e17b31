"""Compares the speed of two checkouts of this package.

``python -m benchmarks.comparison.revisions --old DIR [--new DIR] [--pairs 10] [--work NAME]``

The measurements of old and new are interleaved: each pair runs every job with each checkout, in alternating order.
Every measurement has a new interpreter, with the checkout in PYTHONPATH, and all of them use one mock gateway, which is
that of this repository. The result is the median of the pairs' ratios new / old, with its 90 % interval: the 5 % and
95 % points of the medians of bootstrap resamples of the ratios. The exit code is 1 if the upper end of an interval is
above 1.05.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
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
        tasks: Tasks in all.
        figures: The measured figures, by title: "cpu" (per operation) or "seconds" (of the run).
        seconds: Duration of the measurement, where the work has no end.
        warm_up: Seconds before it; longer than the first delay of `Polling`.
        turns: Runs of each checkout for one pair, in turn, of which the least counts: what disturbs a run adds to it.
    """

    work: str
    workload: Workload
    limits: dict[str, Any]
    figures: dict[str, str]
    polling: dict[str, Any] = field(factory=dict)
    tasks: int = 1000
    seconds: float = 2.0
    warm_up: float = 1.5
    turns: int = 1


JOBS = (
    RevisionJob(
        work="polls",
        workload=ENDLESS,
        limits={"max_in_flight": 100, "max_polls_in_flight": 100, "max_connections": 400, "polls_per_second": 1e6},
        polling=ALL_THE_TIME,
        tasks=100,
        figures={"CPU per status request, 100 at once": "cpu"},
        turns=5,
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
        limits={"max_in_flight": 3000, "polls_per_second": 0.1},
        tasks=2500,
        figures={"CPU per create request": "cpu"},
        turns=5,
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
    checkouts = {"old": old, "new": new}
    values: dict[str, dict[str, list[float]]] = {
        title: {name: [] for name in checkouts} for job in jobs for title in job.figures
    }
    with start_mock_gateway() as server:
        for pair in range(pairs):
            for job in jobs:
                order = list(checkouts) if pair % 2 == 0 else list(reversed(checkouts))
                runs = [(name, _run_worker(server, checkouts[name], job)) for name in order * job.turns]
                for title, figure in job.figures.items():
                    for name in checkouts:
                        figures = [_read_figure(result, figure) for each, result in runs if each == name]
                        values[title][name].append(min(figures))
            if verbose:
                print(f"pair {pair + 1} of {pairs} done", flush=True)
    return [Comparison(title, each["old"], each["new"]) for title, each in values.items()]


def _run_worker(server: MockGatewayClient, checkout: Path, job: RevisionJob) -> dict[str, Any]:
    server.reset(job.workload)
    arguments = {
        "address": server.address,
        **{name: getattr(job, name) for name in ("work", "limits", "polling", "tasks", "seconds", "warm_up")},
    }
    command = [sys.executable, "-P", str(WORKER), json.dumps(arguments)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    if Path(result["path"]) != checkout:
        raise RuntimeError(f"the worker imported the package from {result['path']}, not from {checkout}")
    if result["failures"]:
        raise RuntimeError(f"{result['failures']} of {result['operations']} operations failed with {checkout}")
    return result


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

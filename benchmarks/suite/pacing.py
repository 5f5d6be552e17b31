"""Sessions that share an account: how long their batches take, what is throttled, and how fair their shares are.

``python -m benchmarks.suite.pacing [--full]`` simulates, with the rule of this package and with the former one.
``python -m benchmarks.suite.pacing --http [--runs N] [--against DIR]`` runs the batches over HTTP: each session in a
process of its own, against an emulator in a process of its own; with DIR, those of another checkout, too. Batches run
one after the other: side by side, their 14 processes delay each other's first requests on two cores, so that a batch is
not behind the old tasks but among them.

The account has 24 slots. Over HTTP that is also the ceiling of each session; in the simulation the ceiling is 100, so
that even a single session must find the slots. There a round trip takes 20 to 60 ms, and the end of a task is detected
up to an eighth of its duration later; both are a part of every ratio to the ideal end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from attrs import field, frozen

from benchmarks.suite.pacing_reference import FormerLimit
from benchmarks.suite.pacing_simulation import Account, Plan, Simulation, constant, lognormal
from benchmarks.support.measure import run_interleaved
from benchmarks.support.server_process import ROOT, start_emulator
from benchmarks.support.thresholds import check_threshold
from kontext_async.decisions.concurrency import AdaptiveLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.suite.pacing_simulation import Rule, ServiceTime

__all__ = ["BATCHES", "Batch", "describe", "measure", "measure_http"]

SLOTS = 24
CEILING = 100
RULES: dict[str, Callable[[int], Rule]] = {"now": AdaptiveLimit, "before": FormerLimit}
DETECTION = 0.125
SIGMA = 0.3
ENDLESS = Plan(jobs=math.inf, ceiling=CEILING)
Spread: TypeAlias = tuple[float, float]
"""The median, and the value of the worst tenth."""

LENGTHS = 120
"""The duration of a simulated run in steady state, in task lengths; the second half counts."""

FAIR_LENGTHS = 60
"""The task lengths within which the shares must become equal; the second half counts."""

FAIR_SECONDS = 120.0
"""The same in seconds, where tasks are short."""

LATE_LENGTHS = 5
"""The task lengths by which one session is alone at first."""

WORKER = Path(__file__).with_name("pacing_worker.py")
LEAD = 0.2
"""Seconds from the moment at which all processes are ready to their first request."""

OLD_TASKS_LEAD = 0.5
"""Seconds from the old tasks to the batch that is submitted behind them."""


@frozen(kw_only=True)
class Batch:
    """Batches that are submitted together.

    Attributes:
        sessions: The number of sessions.
        tasks: The tasks of each.
        seconds: The duration of a task.
        ideal: The seconds until the end of the last one, if all slots are always busy.
        old_tasks: The tasks of others that were submitted just before.
    """

    sessions: int
    tasks: int
    seconds: float
    ideal: float
    old_tasks: int = 0


BATCHES = {
    "2 sessions x 30 tasks of 1 s": Batch(sessions=2, tasks=30, seconds=1.0, ideal=3.0),
    "2 sessions x 30 tasks of 8 s": Batch(sessions=2, tasks=30, seconds=8.0, ideal=24.0),
    "48 tasks of 8 s behind 24 old ones": Batch(sessions=1, tasks=48, seconds=8.0, ideal=24.0, old_tasks=SLOTS),
    "4 sessions x 60 tasks of 1 s": Batch(sessions=4, tasks=60, seconds=1.0, ideal=10.0),
}


@frozen(kw_only=True)
class Sizes:
    """The sizes of the simulation.

    Attributes:
        seeds: Runs; the median of them counts.
        batches: The batches.
        sessions: The numbers of sessions in steady state.
        durations: The durations of their tasks, in seconds.
        lengths: The duration of a run, in task lengths.
    """

    seeds: int = 20
    batches: dict[str, Batch] = field(factory=lambda: dict(BATCHES))
    sessions: tuple[int, ...] = (1, 4)
    durations: tuple[float, ...] = (1.0, 8.0)
    lengths: int = LENGTHS


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Simulate batches, the steady state, and the way to equal shares, with both rules."""
    sizes = sizes or (Sizes() if quick else Sizes(seeds=100, sessions=(1, 2, 4, 8, 16), durations=(1.0, 8.0, 60.0)))
    rules = {name: _measure_rule(create, sizes) for name, create in RULES.items()}
    return {
        "settings": {"seeds": sizes.seeds, "slots": SLOTS, "task lengths": sizes.lengths},
        "rules": rules,
        "thresholds": _check_thresholds(rules["now"]),
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return every figure of both rules: medians, and the worst tenth."""
    lines = [f"{'':64}{'now':>16}{'before':>16}"]
    for kind, now in figures["rules"]["now"].items():
        before = figures["rules"]["before"][kind]
        lines += [f"{f'{name}: {kind}':64}{_format(now[name]):>16}{_format(before[name]):>16}" for name in now]
    return lines


def _format(spread: Spread) -> str:
    return f"{spread[0]:.3g} ({spread[1]:.3g})"


def _measure_rule(create: Callable[[int], Rule], sizes: Sizes) -> dict[str, dict[str, Spread]]:
    run = partial(_run_seeds, create_rule=create, seeds=sizes.seeds)
    figures: dict[str, dict[str, Spread]] = {
        "end / ideal": {name: _measure_batch(run, batch) for name, batch in sizes.batches.items()},
        "throttled of 100": {},
        "slots idle": {},
        "unfairness": {},
    }
    for seconds in sizes.durations:
        for kind, times in (("", constant(seconds)), (", lognormal", lognormal(seconds, SIGMA))):
            account, tasks = _account(times, seconds), f"tasks of {seconds:g} s{kind}"
            for count in sizes.sessions:
                runs = run(account, [ENDLESS] * count, until=sizes.lengths * seconds)
                name = f"{count} session{'s' if count > 1 else ''}, {tasks}"
                figures["throttled of 100"][name] = _spread(each.throttled_percent for each in runs)
                figures["slots idle"][name] = _spread(_compute_idle(each) for each in runs)
            late = attrs.evolve(ENDLESS, start=LATE_LENGTHS * seconds)
            span = max(FAIR_LENGTHS * seconds, FAIR_SECONDS) * sizes.lengths / LENGTHS
            runs = run(account, [ENDLESS, late, late, late], until=span)
            figures["unfairness"][f"from 24/0/0/0, {tasks}"] = _spread(1 - each.fairness for each in runs)
    return figures


def _measure_batch(run: Callable[..., list[Simulation]], batch: Batch) -> Spread:
    start = OLD_TASKS_LEAD if batch.old_tasks else 0.0
    account = _account(constant(batch.seconds), batch.seconds, batch.old_tasks)
    plans = [Plan(jobs=batch.tasks, start=start, ceiling=CEILING)] * batch.sessions
    return _spread(each.ended / batch.ideal for each in run(account, plans))


def _spread(values: Iterable[float]) -> Spread:
    """Return the median and the value of the worst tenth."""
    ordered = sorted(values)
    return round(median(ordered), 4), round(ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))], 4)


def _account(times: ServiceTime, seconds: float, old_tasks: int = 0) -> Account:
    detection = (0.01, 0.01 + DETECTION * seconds)
    return Account(service_time=times, slots=SLOTS, detection=detection, old_tasks=old_tasks)


def _run_seeds(
    account: Account, plans: Sequence[Plan], *, create_rule: Callable[[int], Rule], seeds: int, until: float = math.inf
) -> list[Simulation]:
    window = (until / 2, until) if until < math.inf else (0.0, until)
    simulate = partial(Simulation, account, plans, until=until, window=window, create_rule=create_rule)
    return [simulate(seed=seed).run() for seed in range(seeds)]


def _compute_idle(run: Simulation) -> float:
    slot_seconds = sum(session.slot_seconds for session in run.sessions)
    return 1 - slot_seconds / (run.window[1] - run.window[0]) / SLOTS


def _check_thresholds(figures: dict[str, dict[str, Spread]]) -> list[dict[str, object]]:
    lines = [
        check_threshold(f"{name}: end / ideal", *_limit(each, 1.35)) for name, each in figures["end / ideal"].items()
    ]
    for name, each in figures["throttled of 100"].items():
        if name.startswith(("1 ", "4 ")) and "of 60 s" not in name:
            lines.append(check_threshold(f"{name}: throttled of 100", *_limit(each, 3 if name.startswith("1 ") else 6)))
    for name, each in figures["unfairness"].items():
        lines.append(check_threshold(f"{name}: 1 - Jain's index of slots", *_limit(each, 0.1)))
    return lines


def _limit(spread: Spread, limit: float) -> tuple[float, float]:
    return round(spread[0], 3), limit


def measure_http(checkout: Path = ROOT, runs: int = 3, batches: dict[str, Batch] | None = None) -> dict[str, Any]:
    """Run the batches over HTTP with the sessions of a checkout, one after the other, several times."""
    batches = BATCHES if batches is None else batches
    runners = {name: partial(_run_batch, checkout, batch) for name, batch in batches.items()}
    rows = run_interleaved(runners, runs)
    limits = [
        check_threshold(f"{name}: end / ideal, worst", max(row["ratio"] for row in some), 1.5)
        for name, some in rows.items()
    ]
    return {"settings": {"checkout": str(checkout), "runs": runs}, "batches": rows, "thresholds": limits}


def _run_batch(checkout: Path, batch: Batch) -> dict[str, float]:
    """Run one batch against an emulator of its own; each session is a process."""
    tasks = [batch.tasks] * batch.sessions
    delays = [0.0] * batch.sessions
    if batch.old_tasks:
        tasks, delays = [batch.old_tasks, *tasks], [0.0] + [OLD_TASKS_LEAD] * batch.sessions
    options = ("--max-tasks", str(SLOTS), "--service-time", f"constant:{batch.seconds:g}", "--pixels", "4096")
    with start_emulator(*options) as emulator, ExitStack() as stack:
        processes = [stack.enter_context(_start_worker(checkout, emulator.address, count)) for count in tasks]
        start = _start_together(processes, delays)
        results = [json.loads(process.communicate()[0]) for process in processes]
    for result in results:
        if result["failures"] or Path(result["path"]) != checkout:
            raise RuntimeError(f"{result['failures']} failures with the package from {result['path']}")
    seconds = max(result["ended_at"] for result in results) - start
    throttled = sum(result["throttled"] for result in results)
    return {
        "seconds": round(seconds, 2),
        "ratio": round(seconds / batch.ideal, 3),
        "throttled_of_100": round(100 * throttled / (sum(tasks) + throttled), 1),
    }


def _start_worker(checkout: Path, address: str, tasks: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", str(WORKER), address, str(tasks)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
    )


def _start_together(processes: Sequence[subprocess.Popen[str]], delays: Sequence[float]) -> float:
    """Wait until all processes are ready, send each its start, and return the first one, in unix seconds."""
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.time() + LEAD
    for process, delay in zip(processes, delays, strict=True):
        assert process.stdin is not None
        process.stdin.write(f"{start + delay}\n")
    return start


def main(arguments: Sequence[str]) -> int:
    """Run the batches over HTTP, and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite.pacing")
    parser.add_argument("--http", action="store_true", required=True, help="run the batches over HTTP")
    parser.add_argument("--runs", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--against", type=lambda text: Path(text).resolve(), help="folder of another checkout")
    options = parser.parse_args(arguments)
    met = True
    for checkout in (ROOT, *([options.against] if options.against else [])):
        figures = measure_http(checkout, options.runs)
        print(f"{checkout}")
        for name, rows in figures["batches"].items():
            ratios = " ".join(f"{row['ratio']:.2f}" for row in rows)
            throttled = " ".join(f"{row['throttled_of_100']:g}" for row in rows)
            print(f"  {name:36} end / ideal {ratios:18} throttled of 100 {throttled}", flush=True)
        met = met and (checkout != ROOT or all(line["met"] for line in figures["thresholds"]))
    return 0 if met else 1


if __name__ == "__main__":
    if "--http" in sys.argv:
        sys.exit(main(sys.argv[1:]))
    from benchmarks.runner import run_alone

    run_alone("pacing")

"""Lets contenders do a job, each in a process of its own and against a server of its own, and draws up the account."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from benchmarks.contenders import Job, Report
from benchmarks.schedule import delays, ideal_makespan, makespan, percentile
from benchmarks.serving import ROOT, Counts, server_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.schedule import Plan, TaskRecord
    from benchmarks.serving import Server

__all__ = ["Entry", "Run", "compete", "figures_of", "run_job", "table"]


@frozen(kw_only=True)
class Entry:
    """A contender, and what it is told.

    Attributes:
        contender: The module's name in `benchmarks.contenders`.
        options: See `Job.options`.
    """

    contender: str
    options: dict[str, Any] = attrs.field(factory=dict)


@frozen(kw_only=True)
class Run:
    """One contender's run, as it and the server saw it."""

    report: Report
    counts: Counts
    tasks: list[TaskRecord]


def compete(
    entries: Mapping[str, Entry], plan: Plan, tasks: int, in_flight: int, *, at_once: int = 2
) -> dict[str, Run]:
    """Let the contenders do the same job, `at_once` of them side by side."""
    with ThreadPoolExecutor(at_once) as threads:
        runs = threads.map(lambda entry: run_one(entry, plan, tasks, in_flight), entries.values())
        return dict(zip(entries, runs, strict=True))


def run_one(entry: Entry, plan: Plan, tasks: int, in_flight: int) -> Run:
    """One run."""
    with server_process() as server:
        server.reset(plan)
        report = run_job(entry, server, tasks, in_flight)
        return Run(report=report, counts=server.counts(), tasks=server.tasks())


def run_job(entry: Entry, server: Server, tasks: int, in_flight: int) -> Report:
    """Have a contender do a job, in a process of its own."""
    job = Job(address=server.address, tasks=tasks, in_flight=in_flight, options=entry.options)
    told = json.dumps({"name": entry.contender, **attrs.asdict(job)})
    command = [sys.executable, "-m", "benchmarks.contenders", told]
    printed = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True).stdout
    return Report(**json.loads(printed))


def figures_of(run: Run, plan: Plan, tasks: int, in_flight: int) -> dict[str, Any]:
    """What is to be told of a run."""
    ideal = ideal_makespan(list(islice(plan.service_times(), tasks)), in_flight)
    late = delays(run.tasks)
    return {
        "makespan": round(makespan(run.tasks), 3),
        "ideal": round(ideal, 3),
        "makespan_ratio": round(makespan(run.tasks) / ideal, 4),
        "requests_per_task": round(run.counts.requests / tasks, 3),
        "delay_mean": round(sum(late) / max(1, len(late)), 4),
        "delay_p50": round(percentile(late, 0.5), 4),
        "delay_p95": round(percentile(late, 0.95), 4),
        "cpu_ms_per_task": round(run.report.cpu * 1e3 / tasks, 3),
        "cpu_us_per_request": round(run.report.cpu * 1e6 / max(1, run.counts.requests), 1),
        "loop_turns_per_request": round(run.report.turns / max(1, run.counts.requests), 2),
        "stall_ms": round(run.report.stall * 1e3, 1),
        "connections": run.counts.connections,
        "failures": run.report.failures,
    }


COLUMNS = {
    "makespan_ratio": "makespan/ideal",
    "requests_per_task": "requests/task",
    "delay_p50": "delay 50 %",
    "delay_p95": "95 %, s",
    "cpu_ms_per_task": "CPU ms/task",
    "loop_turns_per_request": "turns/request",
    "stall_ms": "stall ms",
    "connections": "connections",
}


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Figures side by side, as lines of text."""
    head = "".join(f"{title:>15}" for title in COLUMNS.values())
    lines = [f"{'':24}{head}  failures"]
    for name, row in rows.items():
        failures = ", ".join(f"{count} {kind}" for kind, count in row["failures"].items()) or "none"
        lines.append(f"{name:24}{''.join(f'{row[key]:15.4g}' for key in COLUMNS)}  {failures}")
    return lines

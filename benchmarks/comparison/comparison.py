"""Runs clients, each in its own process and against its own server, and tabulates their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from benchmarks.comparison.clients import ClientReport, Job
from benchmarks.servers.schedule import compute_delays, compute_ideal_makespan, compute_makespan, compute_percentile
from benchmarks.support.server_process import ROOT, RequestCounts, start_mock_gateway

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.servers.schedule import TaskTimes, Workload
    from benchmarks.support.server_process import MockGatewayClient

__all__ = [
    "LIMITS_ALL_AT_ONCE",
    "ClientConfig",
    "ClientRun",
    "compare_clients",
    "format_table",
    "run_client_process",
    "summarize_run",
]

LIMITS_ALL_AT_ONCE = {"polls_per_second": 1500.0, "max_connections": 200, "max_polls_in_flight": 64}
"""Our `Limits` for 1000 tasks in flight, but for `max_in_flight`."""


@frozen(kw_only=True)
class ClientConfig:
    """A client and its options.

    Attributes:
        client: The name of its module in `benchmarks.comparison.clients`.
        options: See `Job.options`.
    """

    client: str
    options: dict[str, Any] = attrs.field(factory=dict)


@frozen(kw_only=True)
class ClientRun:
    """One run of a client, as the client and the server recorded it."""

    report: ClientReport
    counts: RequestCounts
    tasks: list[TaskTimes]


def compare_clients(
    configs: Mapping[str, ClientConfig], workload: Workload, tasks: int, in_flight: int, *, at_once: int = 2
) -> dict[str, ClientRun]:
    """Run the same job with every client, `at_once` of them side by side."""
    with ThreadPoolExecutor(at_once) as threads:
        runs = threads.map(lambda config: _run_with_own_server(config, workload, tasks, in_flight), configs.values())
        return dict(zip(configs, runs, strict=True))


def _run_with_own_server(config: ClientConfig, workload: Workload, tasks: int, in_flight: int) -> ClientRun:
    with start_mock_gateway() as server:
        server.reset(workload)
        report = run_client_process(config, server, tasks, in_flight)
        return ClientRun(report=report, counts=server.counts(), tasks=server.task_times())


def run_client_process(config: ClientConfig, server: MockGatewayClient, tasks: int, in_flight: int) -> ClientReport:
    """Run a job with one client, in its own process."""
    job = Job(address=server.address, tasks=tasks, in_flight=in_flight, options=config.options)
    arguments = json.dumps({"client": config.client, **attrs.asdict(job)})
    command = [sys.executable, "-m", "benchmarks.comparison.clients", arguments]
    printed = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True).stdout
    return ClientReport(**json.loads(printed))


def summarize_run(run: ClientRun, workload: Workload, tasks: int, in_flight: int) -> dict[str, Any]:
    """Return the figures of a run."""
    ideal = compute_ideal_makespan(list(islice(workload.service_times(), tasks)), in_flight)
    makespan = compute_makespan(run.tasks)
    delays = compute_delays(run.tasks)
    return {
        "makespan": round(makespan, 3),
        "ideal": round(ideal, 3),
        "makespan_ratio": round(makespan / ideal, 4),
        "requests_per_task": round(run.counts.requests / tasks, 3),
        "delay_mean": round(sum(delays) / max(1, len(delays)), 4),
        "delay_p50": round(compute_percentile(delays, 0.5), 4),
        "delay_p95": round(compute_percentile(delays, 0.95), 4),
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


def format_table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the figures of several runs as lines of a table."""
    head = "".join(f"{title:>15}" for title in COLUMNS.values())
    lines = [f"{'':24}{head}  failures"]
    for name, row in rows.items():
        failures = ", ".join(f"{count} {kind}" for kind, count in row["failures"].items()) or "none"
        lines.append(f"{name:24}{''.join(f'{row[key]:15.4g}' for key in COLUMNS)}  {failures}")
    return lines

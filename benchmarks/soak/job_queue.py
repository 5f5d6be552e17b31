"""A job queue whose workers are terminated and killed: is a job billed twice, or lost?

``python -m benchmarks.soak.job_queue [--store sqlite|postgres|pgbouncer] [--signal TERM|KILL] [--quick]``

40 jobs of arq in a real Redis, each with its job ID as its key. The worker is a process, which is ended ten times while
jobs run, and started again. After SIGTERM, arq cancels its jobs and waits for them; a session waits for the response to
a create request that is on the wire (`Timeouts.cancel`), so nothing is uncertain. After SIGKILL, what was on the wire
is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job
from attrs import define, field

from benchmarks.servers.redis_server import start_redis
from benchmarks.soak.job_queue_worker import JOB, JOB_SECONDS, UNCERTAIN
from benchmarks.support.checks import print_checks
from benchmarks.support.server_process import ROOT, start_emulator
from benchmarks.support.stores import Audit, add_store_option, read_store, start_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.support.server_process import EmulatorClient
    from benchmarks.support.stores import StoreServer

__all__ = ["QueueHarness", "run_checks"]

SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL}
SLOW = "slow-after-accept=0.5"
"""Half of the create requests get their response a second after they were accepted: many are on the wire at a kill."""
FINISH_SECONDS = 120 + 2 * JOB_SECONDS


@define
class QueueHarness:
    """Puts jobs into a queue, and ends its worker again and again.

    Attributes:
        gateway: The emulator.
        store: The store.
        redis: The URL of Redis.
        jobs: The number of jobs.
        signal: What ends the worker.
        random: Draws the moments.
        kills: When the worker was ended while it ran, in Unix seconds.
        longest_stop: Seconds of the longest end after the signal.
    """

    gateway: EmulatorClient
    store: StoreServer
    redis: str
    jobs: int
    signal: signal.Signals
    random: random.Random
    kills: list[float] = field(factory=list)
    longest_stop: float = 0.0

    @property
    def names(self) -> list[str]:
        """The IDs of the jobs, which are their keys."""
        return [f"job-{number}" for number in range(self.jobs)]

    def run(self, kills: int) -> dict[str, str | None]:
        """Run all jobs while the worker is ended so often; return the results of the jobs by ID."""
        asyncio.run(self.enqueue())
        for _ in range(kills):
            self.start_and_end()
        with self.start() as worker:
            try:
                return asyncio.run(self.collect())
            finally:
                worker.terminate()

    async def enqueue(self) -> None:
        """Put the jobs into the queue."""
        async with await create_pool(RedisSettings.from_dsn(self.redis)) as queue:
            for name in self.names:
                await queue.enqueue_job(JOB, f"a fox for {name}", _job_id=name)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the worker."""
        environment = {**os.environ, **self.gateway.environment(), **self.store.environment(), "SOAK_REDIS": self.redis}
        with (self.store.folder / "worker.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.soak.job_queue_worker"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
            )

    def start_and_end(self) -> None:
        """Start the worker, and end it some time after it has submitted something."""
        before = self.gateway.accepted()
        with self.start() as worker:
            deadline = time.monotonic() + 10
            while self.gateway.accepted() == before and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(self.random.uniform(0.0, 1.0))
            self.kills.append(time.time())
            began = time.perf_counter()
            worker.send_signal(self.signal)
            worker.wait(60)
            self.longest_stop = max(self.longest_stop, time.perf_counter() - began)

    async def collect(self) -> dict[str, str | None]:
        """Wait for the results of all jobs; a job without one has None."""
        async with await create_pool(RedisSettings.from_dsn(self.redis)) as queue:
            jobs = [Job(name, queue) for name in self.names]
            results = await asyncio.gather(
                *(job.result(FINISH_SECONDS, poll_delay=0.5) for job in jobs), return_exceptions=True
            )
        for name, result in zip(self.names, results, strict=True):
            if isinstance(result, BaseException):
                print(f"{name}: {type(result).__name__}: {result}")
        return {
            name: result if isinstance(result, str) else None for name, result in zip(self.names, results, strict=True)
        }


def run_checks(harness: QueueHarness, results: Mapping[str, str | None]) -> dict[str, bool]:
    """Compare the results of the jobs, the ledger and the store."""
    ledger = harness.gateway.ledger()
    audit = Audit.of(ledger, read_store(harness.store.url), harness.kills)
    finished = sum(result not in (None, UNCERTAIN) for result in results.values())
    uncertain = sum(result == UNCERTAIN for result in results.values())
    print(
        f"states {dict(audit.store.states)}; accepted {ledger['accepted']}, longest stop {harness.longest_stop:.1f} s"
    )
    checks = audit.checks()
    if harness.signal is signal.SIGTERM:
        checks[f"{ledger['billed']} billed, {finished} finished"] = ledger["billed"] == finished == harness.jobs
    else:
        text = f"each job finished or is reported uncertain: {finished} and {uncertain} of {harness.jobs}"
        checks[text] = finished + uncertain == harness.jobs
        checks["the reports of the jobs are those of the store"] = uncertain == len(audit.store.uncertain)
    return checks


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.job_queue", description="End the workers of a job queue, and check the bills."
    )
    add_store_option(parser)
    parser.add_argument("--signal", choices=SIGNALS, action="append", help="what ends a worker; both by default")
    parser.add_argument("--jobs", type=int, default=40, help="jobs (default: %(default)s)")
    parser.add_argument("--kills", type=int, help="ends of the worker (default: 10; with --quick 3)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments")
    options = parser.parse_args()
    kills = options.kills or (3 if options.quick else 10)
    print(f"seed {options.seed}")
    passed = True
    for kind in options.store or options.stores:
        for name in options.signal or SIGNALS:
            with (
                tempfile.TemporaryDirectory() as folder,
                start_emulator("--service-time", "constant:1.5", "--pixels", "256", "--fault", SLOW) as gateway,
                start_redis() as redis,
                start_store(kind, Path(folder)) as store,
            ):
                moments = random.Random(options.seed)
                harness = QueueHarness(gateway, store, redis.url, options.jobs, SIGNALS[name], moments)
                began = time.perf_counter()
                results = harness.run(kills)
                print(f"{kind}, SIG{name} {len(harness.kills)} times, {time.perf_counter() - began:.0f} s")
                passed &= print_checks(run_checks(harness, results))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

"""Ten thousand generations through one session while the gateway misbehaves: is every one accounted for?

``python -m benchmarks.endurance [--tasks N] [--in-flight N]``

The emulator runs in a process of its own. Of the requests, 5 % have their connection cut (for creates, half of them
after the task was accepted), 5 % are answered with a 5xx, 5 % with 429, and 2 % stall for two seconds. At the end the
session's account is compared with the emulator's ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kontext_async import (
    KontextSession,
    Limits,
    Outcome,
    Polling,
    Retries,
    Settings,
    Timeouts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = """
import anyio, sys
from kontext_async.emulator import Emulator, Fault, FaultKind, Faults, ServiceTime
from kontext_async.emulator import Operation

both = (Operation.CREATE, Operation.STATUS)
rates = {
    Fault(kind=FaultKind.CUT, on=[Operation.CREATE]): 0.025,
    Fault(kind=FaultKind.CUT_AFTER_ACCEPT): 0.025,
    Fault(kind=FaultKind.CUT, on=[Operation.STATUS]): 0.05,
    Fault(kind=FaultKind.HTTP_STATUS, on=[Operation.CREATE], status=500): 0.02,
    Fault(kind=FaultKind.HTTP_STATUS_AFTER_ACCEPT, status=502): 0.01,
    Fault(kind=FaultKind.UNAVAILABLE, on=[Operation.CREATE], retry_after=1): 0.02,
    Fault(kind=FaultKind.HTTP_STATUS, on=[Operation.STATUS], status=500): 0.05,
    Fault(kind=FaultKind.RATE_LIMITED, on=both, retry_after=1): 0.05,
    Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=2.0): 0.01,
    Fault(kind=FaultKind.STALL, on=[Operation.CREATE]): 0.01,
    Fault(kind=FaultKind.SLOW, on=[Operation.STATUS], seconds=2.0): 0.01,
    Fault(kind=FaultKind.STALL, on=[Operation.STATUS]): 0.01,
}

async def main():
    emulator = Emulator(service_time=ServiceTime.lognormal(2.0, 0.5), faults=Faults(rates), pixels=64 * 64)
    async with emulator:
        print(emulator.base_url, emulator.api_key, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)

anyio.run(main)
"""


@contextmanager
def emulator_process() -> Iterator[tuple[str, str]]:
    """The emulator as a process of its own: its address and its key."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address, key = process.stdout.readline().decode().split()
        try:
            yield address, key
        finally:
            process.communicate()


def settings(in_flight: int) -> Settings:
    return Settings(
        limits=Limits(
            max_in_flight=in_flight, max_connections=300, max_polls_in_flight=100, polls_per_second=1000.0
        ),
        timeouts=Timeouts(submit=5.0, status=5.0),
        polling=Polling(first_after=1.0, interval=1.0),
        retries=Retries(attempts=8),
    )


def memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def run(address: str, key: str, tasks: int, in_flight: int) -> bool:
    outcomes: Counter[str] = Counter()
    samples: dict[int, int] = {}
    kept: list[tuple[int, str | None]] = []
    began = time.perf_counter()
    async with KontextSession(key, base_url=address, settings=settings(in_flight)) as session:
        done = 0
        async for outcome in session.generate_many(f"picture number {index}" for index in range(tasks)):
            done += 1
            outcomes[name(outcome)] += 1
            kept.append((outcome.index, outcome.task_id))
            if not done % 1000:
                samples[done] = memory()
                print(f"{done:6} done, {time.perf_counter() - began:6.1f} s, {session.statistics()}", flush=True)
        figures = session.statistics()
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    with urllib.request.urlopen(f"{address}/_emulator/ledger") as answer:  # noqa: S310 # our own emulator
        ledger = json.load(answer)
    entries = ledger["entries"]
    twice = [prompt for prompt, count in Counter(e["prompt"] for e in entries if e["task_id"]).items() if count > 1]
    uncertain = outcomes["SubmissionUncertain"]
    known = {task_id for _, task_id in kept if task_id}
    accepted = {e["task_id"] for e in entries if e["task_id"]}
    silent = len(accepted - known)
    print(f"outcomes {dict(outcomes)}; makespan {time.perf_counter() - began:.1f} s")
    print(f"session: {figures}")
    print(f"ledger: accepted {ledger['accepted']}, billed {ledger['billed']}, refused {ledger['refused']}")
    growth = samples[tasks] - samples[1000] if tasks > 1000 else 0  # noqa: PLR2004
    checks = {
        "every request has one outcome": sorted(index for index, _ in kept) == list(range(tasks)),
        "every id that the session knows is in the ledger": known <= accepted,
        "accepted = known + silent, and what is silent is uncertain": silent <= uncertain,
        "accepted = finished + failed + uncertain that were accepted": ledger["accepted"]
        == outcomes["ok"] + outcomes["TaskFailed"] + silent,
        "no prompt is billed twice": not twice,
        "no task is left running": not left,
        f"memory grew by {growth / 1024:.0f} KiB between the first and the last thousand (at most 1 MiB)": growth
        < 1 << 20,
    }
    for text, held in checks.items():
        print("ok  " if held else "FAIL", text)
    return all(checks.values())


def name(outcome: Outcome) -> str:
    if outcome.ok:
        return "ok"
    return type(outcome.error).__name__


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=500)
    options = parser.parse_args()
    tracemalloc.start()
    with emulator_process() as (address, key):
        return 0 if asyncio.run(run(address, key, options.tasks, options.in_flight)) else 1


if __name__ == "__main__":
    sys.exit(main())

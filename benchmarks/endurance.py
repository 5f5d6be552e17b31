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
import sys
import time
import tracemalloc
import urllib.request
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field

from benchmarks.serving import address_of
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
    with address_of("-c", SERVER) as printed:
        address, key = printed.split()
        yield address, key


def settings(in_flight: int) -> Settings:
    return Settings(
        limits=Limits(max_in_flight=in_flight, max_connections=300, max_polls_in_flight=100, polls_per_second=1000.0),
        timeouts=Timeouts(submit=5.0, status=5.0),
        polling=Polling(initial_delay=1.0, interval=1.0),
        retries=Retries(attempts=8),
    )


def memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@define
class Account:
    """What the session said of every request, and what was left when it was closed."""

    ids: dict[int, str | None] = field(factory=dict)
    kinds: dict[int, str] = field(factory=dict)
    memory: dict[int, int] = field(factory=dict)
    twice: int = 0
    left: int = 0
    seconds: float = 0.0

    def take(self, outcome: Outcome) -> None:
        self.twice += outcome.index in self.kinds
        self.kinds[outcome.index] = "ok" if outcome.ok else type(outcome.error).__name__
        self.ids[outcome.index] = outcome.task_id

    def of_kind(self, kind: str) -> set[str]:
        return {prompt(index) for index, known in self.kinds.items() if known == kind}


def prompt(index: int) -> str:
    return f"picture number {index}"


async def run(address: str, key: str, tasks: int, in_flight: int) -> Account:
    account = Account()
    began = time.perf_counter()
    async with KontextSession(key, base_url=address, settings=settings(in_flight)) as session:
        async for outcome in session.generate_many(prompt(index) for index in range(tasks)):
            account.take(outcome)
            if not len(account.kinds) % 1000:
                account.memory[len(account.kinds)] = memory()
                print(f"{time.perf_counter() - began:6.1f} s: {session.statistics()}", flush=True)
    account.seconds = time.perf_counter() - began
    account.left = sum(task is not asyncio.current_task() for task in asyncio.all_tasks())
    return account


def settled(account: Account, ledger: dict[str, Any], tasks: int) -> bool:
    """Compare the session's account with the ledger."""
    accepted = {entry["task_id"]: entry["prompt"] for entry in ledger["entries"] if entry["task_id"]}
    known = {task_id for task_id in account.ids.values() if task_id}
    silent = {accepted[task_id] for task_id in set(accepted) - known}
    uncertain = account.of_kind("SubmissionUncertain")
    kinds = Counter(account.kinds.values())
    samples = list(account.memory.values())
    growth = (samples[-1] - samples[0]) / 1024 if samples else 0.0
    print(f"outcomes {dict(kinds)} in {account.seconds:.1f} s")
    print(f"ledger: accepted {ledger['accepted']}, billed {ledger['billed']}, refused {ledger['refused']}")
    checks = {
        "every request has one outcome": set(account.kinds) == set(range(tasks)) and not account.twice,
        "every id that the session named is in the ledger": known <= set(accepted),
        "whatever was accepted and not named is of an uncertain request": silent <= uncertain,
        "accepted = finished + failed + those uncertain ones": ledger["accepted"]
        == kinds["ok"] + kinds["TaskFailed"] + len(silent),
        "no prompt was accepted twice": len(accepted) == len(set(accepted.values())),
        "no task is left running": not account.left,
        f"memory grew by {growth:.0f} KiB from the first to the last thousand (at most 2048)": growth <= 2048,
    }
    for text, held in checks.items():
        print("ok  " if held else "FAIL", text)
    return all(checks.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=500)
    options = parser.parse_args()
    tracemalloc.start()
    with emulator_process() as (address, key):
        account = asyncio.run(run(address, key, options.tasks, options.in_flight))
        with urllib.request.urlopen(f"{address}/_emulator/ledger") as answer:  # noqa: S310 # our own emulator
            ledger = json.load(answer)
    return 0 if settled(account, ledger, options.tasks) else 1


if __name__ == "__main__":
    sys.exit(main())

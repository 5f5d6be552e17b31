"""Ten thousand generations through one session while the gateway misbehaves: is every request accounted for?

``python -m benchmarks.soak.endurance [--tasks N] [--in-flight N]``

The emulator runs in its own process. Of the requests, 5 % have their connection cut (for create requests, half of them
after the task was accepted), 5 % get a 5xx response, 5 % a 429, and 2 % stall for two seconds. At the end the session's
account is compared with the emulator's ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field

from benchmarks.support.checks import print_checks
from benchmarks.support.measure import measure_traced_memory
from benchmarks.support.server_process import EmulatorClient, start_server
from kontext_async import KontextSession, Limits, Outcome, Polling, Retries, Settings, Timeouts

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
def start_faulty_emulator() -> Iterator[EmulatorClient]:
    """Run the emulator with its faults in its own process."""
    with start_server("-c", SERVER) as printed:
        address, key = printed.split()
        yield EmulatorClient(address, key)


def build_settings(in_flight: int) -> Settings:
    return Settings(
        limits=Limits(max_in_flight=in_flight, max_connections=300, max_polls_in_flight=100, polls_per_second=1000.0),
        timeouts=Timeouts(submit=5.0, status=5.0),
        polling=Polling(initial_delay=1.0, interval=1.0),
        retries=Retries(attempts=8),
    )


@define
class Account:
    """The session's results of all requests.

    Attributes:
        task_ids: The task ID of each request, by its index.
        results: "ok" or the error type of each request, by its index.
        memory: Traced bytes, by the number of completed requests.
        duplicates: Requests with a second outcome.
        running_tasks: asyncio tasks that remained when the session was closed.
        seconds: Duration of the run.
    """

    task_ids: dict[int, str | None] = field(factory=dict)
    results: dict[int, str] = field(factory=dict)
    memory: dict[int, int] = field(factory=dict)
    duplicates: int = 0
    running_tasks: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Record the outcome of one request."""
        self.duplicates += outcome.index in self.results
        self.results[outcome.index] = "ok" if outcome.ok else type(outcome.error).__name__
        self.task_ids[outcome.index] = outcome.task_id

    def prompts_of(self, result: str) -> set[str]:
        """Return the prompts of the requests with this result."""
        return {build_prompt(index) for index, known in self.results.items() if known == result}


def build_prompt(index: int) -> str:
    return f"image number {index}"


async def run(gateway: EmulatorClient, tasks: int, in_flight: int) -> Account:
    """Generate all images through one session."""
    account = Account()
    began = time.perf_counter()
    async with KontextSession(gateway.key, base_url=gateway.address, settings=build_settings(in_flight)) as session:
        async for outcome in session.generate_many(build_prompt(index) for index in range(tasks)):
            account.add(outcome)
            if not len(account.results) % 1000:
                account.memory[len(account.results)] = measure_traced_memory()
                print(f"{time.perf_counter() - began:6.1f} s: {session.statistics()}", flush=True)
    account.seconds = time.perf_counter() - began
    account.running_tasks = sum(task is not asyncio.current_task() for task in asyncio.all_tasks())
    return account


def check_account(account: Account, ledger: dict[str, Any], tasks: int) -> bool:
    """Compare the session's account with the ledger; return True if all checks pass."""
    accepted = {entry["task_id"]: entry["prompt"] for entry in ledger["entries"] if entry["task_id"]}
    known = {task_id for task_id in account.task_ids.values() if task_id}
    unreported = {accepted[task_id] for task_id in set(accepted) - known}
    uncertain = account.prompts_of("SubmissionUncertain")
    results = Counter(account.results.values())
    samples = list(account.memory.values())
    growth = (samples[-1] - samples[0]) / 1024 if samples else 0.0
    print(f"outcomes {dict(results)} in {account.seconds:.1f} s")
    print(f"ledger: accepted {ledger['accepted']}, billed {ledger['billed']}, refused {ledger['refused']}")
    checks = {
        "every request has one outcome": set(account.results) == set(range(tasks)) and not account.duplicates,
        "every task ID that the session reported is in the ledger": known <= set(accepted),
        "every accepted task that was not reported belongs to an uncertain request": unreported <= uncertain,
        "accepted = completed + failed + accepted but uncertain": ledger["accepted"]
        == results["ok"] + results["TaskFailed"] + len(unreported),
        "no prompt was accepted twice": len(accepted) == len(set(accepted.values())),
        "no asyncio task is left running": not account.running_tasks,
        f"memory grew by {growth:.0f} KiB from the first to the last thousand (at most 2048)": growth <= 2048,
    }
    return print_checks(checks)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.endurance", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--tasks", type=int, default=10_000, help="images in all (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=500, help="unfinished tasks at once (default: %(default)s)")
    options = parser.parse_args()
    tracemalloc.start()
    with start_faulty_emulator() as gateway:
        account = asyncio.run(run(gateway, options.tasks, options.in_flight))
        ledger = gateway.ledger()
    return 0 if check_account(account, ledger, options.tasks) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Four processes over one durable run, one of them killed every two seconds: is anything billed twice, or late?

``python -m benchmarks.soak.shared_run [--store sqlite|postgres|pgbouncer] [--prompts 3000] [--quick]``

Each process is ``kontext-async bulk`` with a folder of its own. In turn, one is killed with SIGKILL and replaced at
once; the last kill is about ten seconds before the end. The measure of the time is the same run without kills, once
before it and once after it, because a machine becomes slower or faster from one minute to the next. The gateway has
room for all, and its tasks take two seconds; the lease is three seconds.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from attrs import define, field

from benchmarks.support.bulk_processes import BulkProcesses
from benchmarks.support.checks import print_checks
from benchmarks.support.server_process import start_emulator
from benchmarks.support.stores import Audit, StoreState, add_store_option, read_store, start_store
from kontext_async.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["SharedRun", "run_checks", "run_shared"]

SLOWER = 1.15
"""The longest time of a run with kills, as a multiple of the time without."""
TASK_SECONDS = 2.0


@define
class SharedRun:
    """What several processes over one run did.

    Attributes:
        prompts: The number of prompts.
        seconds: Seconds until the last process ended.
        cpu: Seconds of CPU that the processes took. Where it differs between two runs without kills, the speed of the
            machine changed.
        kills: When processes were killed, in Unix seconds.
        exit_codes: The exit codes of those that ended by themselves.
        ledger: The ledger of the gateway.
        store: What the store knows at the end.
        errors: What the processes wrote last.
    """

    prompts: int
    seconds: float = 0.0
    cpu: float = 0.0
    kills: list[float] = field(factory=list)
    exit_codes: list[int] = field(factory=list)
    ledger: Mapping[str, Any] = field(factory=dict)
    store: StoreState = field(factory=lambda: StoreState((), ()))
    errors: str = ""


def run_shared(kind: str, *, processes: int, prompts: int, in_flight: int, kill_until: float | None) -> SharedRun:
    """Run the prompts in several processes. Kill one every two seconds until that many seconds after the start."""
    result = SharedRun(prompts)
    with (
        tempfile.TemporaryDirectory() as name,
        start_emulator("--service-time", f"constant:{TASK_SECONDS}", "--pixels", "256") as gateway,
        start_store(kind, Path(name)) as store,
    ):
        commands = BulkProcesses(gateway, store, Path(name), prompts, in_flight)
        began, cpu = time.perf_counter(), children_cpu()
        running = [commands.start(number) for number in range(processes)]
        if kill_until is not None:
            kill_in_turn(commands, running, result, began + kill_until)
        result.exit_codes = [process.wait(900) for process in running]
        result.seconds, result.cpu = time.perf_counter() - began, children_cpu() - cpu
        result.ledger = gateway.ledger()
        result.store = read_store(store.url)
        result.errors = "\n".join(commands.last_errors(number) for number in range(processes))
    return result


def children_cpu() -> float:
    """Return the seconds of CPU of the child processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kill_in_turn(
    commands: BulkProcesses, running: list[subprocess.Popen[bytes]], result: SharedRun, until: float
) -> None:
    """Kill one process every two seconds, and replace it."""
    while time.perf_counter() + TASK_SECONDS < until:
        time.sleep(TASK_SECONDS)
        number = len(result.kills) % len(running)
        if running[number].poll() is None:
            result.kills.append(time.time())
            running[number].kill()
            running[number].wait()
            running[number] = commands.start(number)


def run_checks(result: SharedRun, processes: int, undisturbed: Sequence[SharedRun] = ()) -> dict[str, bool]:
    """Return the checks of a run; `undisturbed` are those without kills to compare it with."""
    audit = Audit.of(result.ledger, result.store, result.kills)
    states = result.store.states
    uncertain = len(result.store.uncertain)
    expected = {ExitCode.UNCERTAIN} if uncertain else {ExitCode.DONE}
    if set(result.exit_codes) != expected:
        print(result.errors)
    checks = {
        f"all {processes} processes ended by themselves with {set(expected)}: {result.exit_codes}": set(
            result.exit_codes
        )
        == expected,
        f"every prompt is saved or uncertain: {dict(states)}": states["saved"] + uncertain
        == len(result.store.rows)
        == result.prompts,
        **audit.checks(),
    }
    if undisturbed:
        ratio = result.seconds / mean(run.seconds for run in undisturbed)
        checks[f"it took {ratio:.2f} times as long as without kills (at most {SLOWER})"] = ratio <= SLOWER
    return checks


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.shared_run", description="Kill the processes of a shared run, and check it."
    )
    add_store_option(parser)
    parser.add_argument("--prompts", type=int, help="prompts of the run (default: 3000; with --quick 600)")
    parser.add_argument("--processes", type=int, default=4, help="processes (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=24, help="unfinished tasks of each (default: %(default)s)")
    parser.add_argument("--quiet-end", type=float, default=10.0, help="seconds between the last kill and the end")
    options = parser.parse_args()
    prompts = options.prompts or (600 if options.quick else 3000)
    sizes = {"processes": options.processes, "prompts": prompts, "in_flight": options.in_flight}
    passed = True
    for kind in options.store or options.stores:
        run = partial(run_shared, kind, **sizes)
        before = run(kill_until=None)
        killed = run(kill_until=max(3 * TASK_SECONDS, before.seconds - options.quiet_end))
        after = run(kill_until=None)
        for each in (before, after):
            print(f"{kind}: {each.seconds:.1f} s without kills, {each.cpu:.0f} s of CPU")
            passed &= print_checks(run_checks(each, options.processes))
        print(f"{kind}: {killed.seconds:.1f} s with {len(killed.kills)} kills, {killed.cpu:.0f} s of CPU")
        passed &= print_checks(run_checks(killed, options.processes, (before, after)))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

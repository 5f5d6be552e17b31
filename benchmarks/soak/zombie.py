"""A process that is stopped at every step, for three leases, and then continues: is anything billed twice?

``python -m benchmarks.soak.zombie [--store sqlite|postgres|pgbouncer] [--step STEP] [--quick]``

For each step, one process stops itself there with SIGSTOP, and a second one requests the same key. After three leases
the first one gets SIGCONT. Each step runs twice: the second process requests the image with ``resend_uncertain`` or
without. A stop inside a transaction keeps the other processes waiting, so it runs alone, and not with ``--quick``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from attrs import define, field

from benchmarks.soak.zombie_worker import LEASE, STEPS
from benchmarks.support.checks import print_checks
from benchmarks.support.server_process import ROOT, start_emulator
from benchmarks.support.stores import Audit, add_store_option, read_store, start_store

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from benchmarks.support.server_process import EmulatorClient
    from benchmarks.support.stores import StoreServer

__all__ = ["Zombie", "run_checks"]

STOPPED_SECONDS = 3 * LEASE
AT_ONCE = 4
"""Steps that run at once: two processes each."""
END_SECONDS = 60.0
START_SECONDS = 30.0
IN_TRANSACTION = "in the transaction of the intent"


@define
class Zombie:
    """One step: a process that stops there, and another one that requests the same key.

    Attributes:
        step: The step.
        resend: True if the other process requests it with ``resend_uncertain``.
        has_stopped: True if the first process reached the step.
        outputs: What the processes printed: a task ID, or the name of an error.
    """

    step: str
    resend: bool
    has_stopped: bool = False
    outputs: list[str] = field(factory=list)

    @property
    def key(self) -> str:
        """The key, which is the prompt too."""
        return f"{self.step}, {'resent' if self.resend else 'not resent'}"

    @property
    def blocks(self) -> bool:
        """Whether the stopped process keeps the others waiting."""
        return self.step == IN_TRANSACTION

    def run(self, gateway: EmulatorClient, store: StoreServer) -> None:
        """Stop the first process, run the second one meanwhile, and continue the first one."""
        second = self.start(gateway, store, "--wait", *(("--resend-uncertain",) if self.resend else ()))
        assert second.stdout
        assert second.stdin
        second.stdout.readline()
        first = self.start(gateway, store, "--stop-at", self.step)
        self.has_stopped = self.wait_until_stopped(first)
        second.stdin.write("\n")
        second.stdin.flush()
        time.sleep(STOPPED_SECONDS)
        first.send_signal(signal.SIGCONT)
        for process in (first, second):
            self.outputs.append(self.end(process))

    def start(self, gateway: EmulatorClient, store: StoreServer, *options: str) -> subprocess.Popen[str]:
        """Start one process."""
        with (store.folder / "worker.txt").open("a") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.soak.zombie_worker", self.key, *options],
                cwd=ROOT,
                env={**os.environ, **gateway.environment(), **store.environment()},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def wait_until_stopped(self, process: subprocess.Popen[str]) -> bool:
        """Wait until a process has stopped itself; return False if it ends before."""
        deadline = time.monotonic() + START_SECONDS
        with suppress(psutil.NoSuchProcess):
            while process.poll() is None and time.monotonic() < deadline:
                if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
                    return True
                time.sleep(0.02)
        return False

    def end(self, process: subprocess.Popen[str]) -> str:
        """Wait until a process ends, and return what it printed."""
        try:
            output, _ = process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return "did not end"
        return output.strip() or f"ended with {process.returncode}"


def run_checks(gateway: EmulatorClient, store: StoreServer, steps: Sequence[str]) -> dict[str, bool]:
    """Run all steps, and compare with the ledger."""
    zombies = [Zombie(step, resend) for step in steps for resend in (False, True)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda zombie: zombie.run(gateway, store), [each for each in zombies if not each.blocks]))
    for zombie in zombies:
        if zombie.blocks:
            zombie.run(gateway, store)
    audit = Audit.of(gateway.ledger(), read_store(store.url))
    bills: Counter[str] = audit.bills
    for zombie in zombies:
        first, second = ("image" if output.isalnum() and output.islower() else output for output in zombie.outputs)
        print(f"{zombie.key}: billed {bills[zombie.key]}; first {first}, second {second}")
    silent = [zombie.key for zombie in zombies if not zombie.has_stopped]
    endless = [zombie.key for zombie in zombies if "did not end" in zombie.outputs]
    failed = [zombie.key for zombie in zombies if any(output.startswith("ended with") for output in zombie.outputs)]
    plain = [bills[zombie.key] for zombie in zombies if not zombie.resend]
    resent = [bills[zombie.key] for zombie in zombies if zombie.resend]
    return {
        f"every process was stopped at its step: all but {silent}": not silent,
        f"every process ended: all but {endless}": not endless,
        f"no process crashed: all but {failed}": not failed,
        f"none was billed twice by default: at most {max(plain)}": max(plain) <= 1,
        f"at most one more for each ask to resend: at most {max(resent)}": max(resent) <= 2,
        f"no ID of a billed task is lost: {len(audit.lost_ids)} are": not audit.lost_ids,
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.zombie", description="Stop processes at every step, and check the bills."
    )
    add_store_option(parser)
    parser.add_argument("--step", choices=STEPS, action="append", help="the step; all of them by default")
    options = parser.parse_args()
    steps = options.step or [step for step in STEPS if not (options.quick and step == IN_TRANSACTION)]
    passed = True
    for kind in options.store or options.stores:
        with (
            tempfile.TemporaryDirectory() as folder,
            start_emulator("--service-time", "constant:1", "--pixels", "256") as gateway,
            start_store(kind, Path(folder)) as store,
        ):
            began = time.perf_counter()
            checks = run_checks(gateway, store, steps)
            print(f"{kind}: {len(steps)} steps in {time.perf_counter() - began:.0f} s")
            passed &= print_checks(checks)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

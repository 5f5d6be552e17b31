"""A durable run whose database crashes and loses all connections: does it end by itself, and is anything lost?

``python -m benchmarks.soak.database_restart [--store postgres|pgbouncer] [--prompts 2000] [--quick]``

While ``kontext-async bulk`` runs, PostgreSQL is restarted with ``-m immediate`` three times, and all connections to the
database are terminated ten times, evenly spread over the create requests.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.support.bulk_processes import BulkProcesses
from benchmarks.support.checks import print_checks
from benchmarks.support.server_process import start_emulator
from benchmarks.support.stores import PGBOUNCER, POSTGRES, Audit, add_store_option, read_store, start_store

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from benchmarks.support.server_process import EmulatorClient
    from benchmarks.support.stores import StoreServer

__all__ = ["disturb", "run_checks"]

RESTARTS = 3
TERMINATIONS = 10


def disturb(
    process: subprocess.Popen[bytes],
    gateway: EmulatorClient,
    prompts: int,
    disturbances: Sequence[Callable[[], object]],
) -> int:
    """Call the disturbances while the run submits, evenly spread; return how many were called."""
    for number, call in enumerate(disturbances):
        threshold = (number + 1) * prompts // (len(disturbances) + 1)
        while gateway.accepted() < threshold:
            if process.poll() is not None:
                return number
            time.sleep(0.05)
        call()
    return len(disturbances)


def plan_disturbances(store: StoreServer) -> list[Callable[[], object]]:
    """Return the disturbances in their order: the restarts stand among the terminations."""
    assert store.database
    server = store.database.server
    each_restart: list[list[Callable[[], object]]] = [[server.restart] for _ in range(RESTARTS)]
    share = -(-TERMINATIONS // RESTARTS)
    terminations: list[Callable[[], object]] = [store.database.terminate_connections] * TERMINATIONS
    groups = [terminations[start : start + share] for start in range(0, TERMINATIONS, share)]
    return list(chain.from_iterable(chain.from_iterable(zip_longest(groups, each_restart, fillvalue=[]))))


def run_checks(kind: str, prompts: int, in_flight: int) -> dict[str, bool]:
    """Run the prompts while the database is disturbed, and compare the store with the ledger."""
    with (
        tempfile.TemporaryDirectory() as name,
        start_emulator("--service-time", "lognormal:1.0,0.5", "--pixels", "256") as gateway,
        start_store(kind, Path(name)) as store,
    ):
        commands = BulkProcesses(gateway, store, Path(name), prompts, in_flight)
        began = time.perf_counter()
        process = commands.start()
        disturbances = plan_disturbances(store)
        called = disturb(process, gateway, prompts, disturbances)
        code = process.wait(900)
        print(f"{kind}: {called} disturbances, exit code {code}, {time.perf_counter() - began:.0f} s")
        if code:
            print(commands.last_errors())
        audit = Audit.of(gateway.ledger(), read_store(store.url))
        images = len(list(commands.out(0).glob("*.jpg")))
    states = audit.store.states
    return {
        f"the database was disturbed {called} times": called == len(disturbances),
        f"the run ended by itself with {code}": code == 0,
        f"all {prompts} are saved: {dict(states)}, {images} images": states["saved"] == images == prompts,
        **audit.checks(),
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.database_restart", description="Crash the database of a run, and check it."
    )
    add_store_option(parser, (POSTGRES, PGBOUNCER))
    parser.add_argument("--prompts", type=int, help="prompts of the run (default: 2000; with --quick 500)")
    parser.add_argument("--in-flight", type=int, default=48, help="unfinished tasks at once (default: %(default)s)")
    options = parser.parse_args()
    prompts = options.prompts or (500 if options.quick else 2000)
    passed = True
    for kind in options.store or options.stores:
        passed &= print_checks(run_checks(kind, prompts, options.in_flight))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

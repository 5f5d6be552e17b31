"""Memory of a durable run of 100,000 prompts. The store's share of its CPU is `benchmarks.suite.store_cpu`.

``python -m benchmarks.soak.bulk_memory [--prompts 100000] [--in-flight 1000]``

The emulator runs in its own process, with images of 256 pixels. Memory is that of the whole process: the anonymous part
of the resident set, without what the C library has got back and keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.suite.store_worker import build_settings
from benchmarks.support.checks import print_checks
from benchmarks.support.heap import read_used_memory
from benchmarks.support.server_process import start_emulator
from kontext_async import KontextSession
from kontext_async.bulk import BulkRun

if TYPE_CHECKING:
    from benchmarks.support.server_process import EmulatorClient

MOST_GROWTH = 8.0
"""MiB by which the memory may grow after the first sample."""


async def execute(
    gateway: EmulatorClient, folder: Path, prompts: int, in_flight: int, sample_every: int
) -> dict[int, float]:
    """Execute a run; return the MiB in use by the number of completed tasks."""
    memory: dict[int, float] = {}
    count = 0
    async with KontextSession(gateway.key, base_url=gateway.address, settings=build_settings(in_flight)) as session:
        run = BulkRun(session, folder)
        began = time.perf_counter()
        async with aclosing(run.outcomes(f"a fox, number {number}" for number in range(prompts))) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok, outcome
                count += 1
                if count % sample_every == 0:
                    memory[count] = read_used_memory()
                    rate = count / (time.perf_counter() - began)
                    print(f"{count:7} done, {memory[count]:6.1f} MiB in use, {rate:.0f}/s", flush=True)
    return memory


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.bulk_memory", description="Measure the memory of a long durable run."
    )
    parser.add_argument("--prompts", type=int, default=100_000, help="prompts of the run (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=1000, help="unfinished tasks at once (default: %(default)s)")
    options = parser.parse_args()
    sample_every = max(1, options.prompts // 20)
    with (
        tempfile.TemporaryDirectory() as name,
        start_emulator("--service-time", "lognormal:2.0,0.5", "--pixels", "256") as gateway,
    ):
        samples = asyncio.run(execute(gateway, Path(name) / "long", options.prompts, options.in_flight, sample_every))
    first, *later = samples.values()
    growth = max(later) - first
    text = f"memory after {sample_every}: {first:.1f} MiB, at most {growth:+.1f} MiB later (limit {MOST_GROWTH:g})"
    return 0 if print_checks({text: growth <= MOST_GROWTH}) else 1


if __name__ == "__main__":
    sys.exit(main())

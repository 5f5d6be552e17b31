"""Memory of a durable run of 100,000 prompts, and the journal's share of its CPU.

``python -m benchmarks.soak.bulk_memory [--prompts 100000] [--in-flight 1000] [--share-of 10000]``

The emulator runs in its own process, with images of 256 pixels. Memory is that of the whole process: the anonymous part
of the resident set, without what the C library has got back and keeps. For the journal's share, runs with and without a
journal take turns; the CPU time of the process per task is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define, field

from benchmarks.support.server_process import start_emulator
from kontext_async import KontextSession, Limits, Polling, Settings
from kontext_async.bulk import BulkRun
from kontext_async.bulk.entries import JournalRow
from kontext_async.bulk.standing import Standing, summarize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AsyncExitStack

    from benchmarks.support.server_process import EmulatorClient
    from kontext_async.bulk.entries import InputRequest

MIB = 1024 * 1024


class Mallinfo(ctypes.Structure):
    """The result of glibc's `mallinfo2`: the state of its heap."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()  # noqa: SIM905
    ]


def read_free_heap() -> float:
    """Return the memory that the C library has got back and keeps for later, in MiB."""
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = Mallinfo
    return float(library.mallinfo2().fordblks / MIB)


def read_anonymous_memory() -> float:
    """Collect garbage, and return the anonymous memory of this process in MiB."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


class NoJournal:
    """A journal that records nothing."""

    generation = 1
    completions = 0

    def __init__(self) -> None:
        self._next = 0

    async def take(self, entries: Sequence[InputRequest]) -> list[JournalRow]:
        self._next += len(entries)
        return [JournalRow.new(self._next + number, entry, 0) for number, entry in enumerate(entries)]

    async def commit(self, row: int, **changes: Any) -> None:
        pass

    def note(self, row: int, **changes: Any) -> None:
        pass

    def next_completion(self) -> int:
        return 1

    async def standing(self) -> Standing:
        return summarize([])

    async def uncertain(self) -> list[JournalRow]:
        return []

    async def rows(self) -> AsyncIterator[JournalRow]:
        for row in list[JournalRow]():
            yield row

    orphans = rows


class NoResults:
    """Results that are not written."""

    def add(self, row: JournalRow, *, again: bool) -> None:
        pass

    async def finish(self, journal: object) -> None:
        pass


class RunWithoutJournal(BulkRun):
    """The same run without its journal and the files that are written from it."""

    async def _open(self, stack: AsyncExitStack) -> Any:  # noqa: ARG002 # the original's signature
        self._directory.mkdir(parents=True, exist_ok=True)  # once
        return NoJournal(), NoResults()


@define
class RunSample:
    """The cost of one run.

    Attributes:
        tasks: Tasks in all.
        seconds: Wall time.
        cpu: Seconds of CPU of the process.
        memory: MiB in use, by the number of completed tasks.
    """

    tasks: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    memory: dict[int, float] = field(factory=dict)

    @property
    def cpu_per_task(self) -> float:
        """Microseconds of CPU per task."""
        return self.cpu / self.tasks * 1e6


def build_settings(in_flight: int) -> Settings:
    return Settings(
        limits=Limits(max_in_flight=in_flight, max_connections=300, max_polls_in_flight=100, polls_per_second=2000.0),
        polling=Polling(initial_delay=1.0, interval=1.0),
    )


async def execute(
    gateway: EmulatorClient, folder: Path, tasks: int, in_flight: int, *, journal: bool, sample_every: int = 0
) -> RunSample:
    """Execute a run, with or without a journal; sample its memory every so many tasks."""
    sample = RunSample(tasks)
    async with KontextSession(gateway.key, base_url=gateway.address, settings=build_settings(in_flight)) as session:
        run = (BulkRun if journal else RunWithoutJournal)(session, folder)
        began, cpu_began = time.perf_counter(), time.process_time()
        async with aclosing(run.outcomes(f"a fox, number {number}" for number in range(tasks))) as outcomes:
            count = 0
            async for outcome in outcomes:
                assert outcome.ok, outcome
                count += 1
                if sample_every and count % sample_every == 0:
                    anonymous = read_anonymous_memory()
                    sample.memory[count] = anonymous - read_free_heap()
                    rate = count / (time.perf_counter() - began)
                    print(
                        f"{count:7} done, {sample.memory[count]:6.1f} of {anonymous:.1f} MiB in use, {rate:.0f}/s",
                        flush=True,
                    )
                if count == tasks:  # the contact sheet is not a part of the journal
                    sample.seconds = time.perf_counter() - began
                    sample.cpu = time.process_time() - cpu_began
    return sample


def measure_journal_share(gateway: EmulatorClient, folder: Path, tasks: int, in_flight: int, rounds: int = 3) -> float:
    """Return by how much the journal increases the CPU time per task, as a ratio."""
    ratios = []
    for turn in range(rounds):
        recorded = asyncio.run(execute(gateway, folder / f"with{turn}", tasks, in_flight, journal=True))
        plain = asyncio.run(execute(gateway, folder / f"without{turn}", tasks, in_flight, journal=False))
        ratios.append(recorded.cpu_per_task / plain.cpu_per_task - 1)
        print(
            f"with the journal {recorded.cpu_per_task:.0f} us a task ({tasks / recorded.seconds:.0f}/s), "
            f"without {plain.cpu_per_task:.0f} us ({tasks / plain.seconds:.0f}/s): {ratios[-1]:+.1%}",
            flush=True,
        )
    return statistics.median(ratios)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.bulk_memory", description="Measure memory and CPU of a long durable run."
    )
    parser.add_argument("--prompts", type=int, default=100_000, help="prompts of the long run; 0 for none")
    parser.add_argument("--in-flight", type=int, default=1000, help="unfinished tasks at once (default: %(default)s)")
    parser.add_argument(
        "--share-of", type=int, default=10_000, help="prompts of the runs that are compared; 0 for none"
    )
    options = parser.parse_args()
    checks = {}
    with (
        tempfile.TemporaryDirectory() as name,
        start_emulator("--service-time", "lognormal:2.0,0.5", "--pixels", "256") as gateway,
    ):
        folder = Path(name)
        if options.share_of:
            share = measure_journal_share(gateway, folder, options.share_of, options.in_flight)
            checks[f"the journal adds {share:.1%} to the CPU of a task (at most 15 %)"] = share <= 0.15
        if options.prompts:
            work = execute(
                gateway, folder / "long", options.prompts, options.in_flight, journal=True, sample_every=5000
            )
            memory = list(asyncio.run(work).memory.values())
            growth = max(memory) - memory[0]
            checks[f"memory after 5,000: {memory[0]:.1f} MiB, at most {growth:+.1f} MiB later"] = growth <= 8
    for text, passed in checks.items():
        print("ok  " if passed else "FAIL", text)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What a long durable run takes: memory over 100,000 prompts, and the journal's share of the CPU.

``python -m benchmarks.bulk_memory [--prompts 100000] [--in-flight 1000] [--share-of 10000]``

The emulator is a process of its own, with pictures of 256 pixels. Memory is that of the whole process: the resident set
without what files lend it, and without what the C library has got back and keeps. For the journal's share, runs with
and without a journal take turns; what is compared is the CPU time of the process for one task.
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
from collections import Counter
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define, field

from benchmarks.bulk_process import emulator_process
from kontext_async import KontextSession, Limits, Polling, Settings
from kontext_async.bulk import BulkRun
from kontext_async.bulk.entries import Row
from kontext_async.bulk.standing import Standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AsyncExitStack

    from benchmarks.bulk_process import Gateway
    from kontext_async.bulk.entries import Entry

MIB = 1024 * 1024


class Mallinfo(ctypes.Structure):
    """What glibc's `mallinfo2` says of its heap."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()  # noqa: SIM905
    ]


def kept_free() -> float:
    """What the C library has got back and keeps for later, in MiB."""
    library = ctypes.CDLL("libc.so.6")
    library.mallinfo2.restype = Mallinfo
    return float(library.mallinfo2().fordblks / MIB)


def resident() -> float:
    """Anonymous memory of this process, in MiB."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


class NoJournal:
    """Forgets everything at once."""

    generation = 1
    completions = 0

    def __init__(self) -> None:
        self._next = 0

    async def take(self, entries: Sequence[Entry]) -> list[Row]:
        self._next += len(entries)
        return [Row.new(self._next + place, entry, 0) for place, entry in enumerate(entries)]

    async def commit(self, row: int, **changes: Any) -> None:
        pass

    def note(self, row: int, **changes: Any) -> None:
        pass

    def next_completion(self) -> int:
        return 1

    async def standing(self) -> Standing:
        return Standing(states=Counter(), costs=Counter(), sunk=Decimal(0), owed=Counter())

    async def uncertain(self) -> list[Row]:
        return []

    async def rows(self) -> AsyncIterator[Row]:
        for row in list[Row]():
            yield row

    orphans = rows


class NoResults:
    """Writes nothing."""

    def add(self, row: Row, *, again: bool) -> None:
        pass

    async def finish(self, journal: object) -> None:
        pass


class WithoutJournal(BulkRun):
    """The same run, without its journal and without what is made from it."""

    async def _open(self, stack: AsyncExitStack) -> Any:  # noqa: ARG002 # as the original has it
        self._directory.mkdir(parents=True, exist_ok=True)  # once
        return NoJournal(), NoResults()


@define
class Sample:
    """What one run took."""

    tasks: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    memory: dict[int, float] = field(factory=dict)

    @property
    def cpu_per_task(self) -> float:
        return self.cpu / self.tasks * 1e6


def settings(in_flight: int) -> Settings:
    return Settings(
        limits=Limits(max_in_flight=in_flight, max_connections=300, max_polls_in_flight=100, polls_per_second=2000.0),
        polling=Polling(initial_delay=1.0, interval=1.0),
    )


async def run(gateway: Gateway, folder: Path, tasks: int, in_flight: int, *, journal: bool, every: int = 0) -> Sample:
    sample = Sample(tasks)
    async with KontextSession(gateway.key, base_url=gateway.address, settings=settings(in_flight)) as session:
        made = (BulkRun if journal else WithoutJournal)(session, folder)
        began, cpu_began = time.perf_counter(), time.process_time()
        async with aclosing(made.outcomes(f"a fox, number {number}" for number in range(tasks))) as outcomes:
            count = 0
            async for outcome in outcomes:
                assert outcome.ok, outcome
                count += 1
                if every and count % every == 0:
                    held = resident()
                    sample.memory[count] = held - kept_free()
                    rate = count / (time.perf_counter() - began)
                    print(
                        f"{count:7} done, {sample.memory[count]:6.1f} of {held:.1f} MiB in use, {rate:.0f}/s",
                        flush=True,
                    )
                if count == tasks:  # the sheet is not a part of the journal
                    sample.seconds = time.perf_counter() - began
                    sample.cpu = time.process_time() - cpu_began
    return sample


def share(gateway: Gateway, folder: Path, tasks: int, in_flight: int, rounds: int = 3) -> float:
    """By how much the journal adds to the CPU time of a task."""
    ratios = []
    for turn in range(rounds):
        with_it = asyncio.run(run(gateway, folder / f"with{turn}", tasks, in_flight, journal=True))
        without = asyncio.run(run(gateway, folder / f"without{turn}", tasks, in_flight, journal=False))
        ratios.append(with_it.cpu_per_task / without.cpu_per_task - 1)
        print(
            f"with the journal {with_it.cpu_per_task:.0f} us a task ({tasks / with_it.seconds:.0f}/s), "
            f"without {without.cpu_per_task:.0f} us ({tasks / without.seconds:.0f}/s): {ratios[-1]:+.1%}",
            flush=True,
        )
    return statistics.median(ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description="What a long durable run takes.")
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--share-of", type=int, default=10_000)
    options = parser.parse_args()
    checks = {}
    with (
        tempfile.TemporaryDirectory() as name,
        emulator_process("--service-time", "lognormal:2.0,0.5", "--pixels", "256") as gateway,
    ):
        folder = Path(name)
        if options.share_of:
            added = share(gateway, folder, options.share_of, options.in_flight)
            checks[f"the journal adds {added:.1%} to the CPU of a task (at most 15 %)"] = added <= 0.15
        if options.prompts:
            work = run(gateway, folder / "long", options.prompts, options.in_flight, journal=True, every=5000)
            long = asyncio.run(work)
            memory = list(long.memory.values())
            growth = max(memory) - memory[0]
            checks[f"memory after 5,000: {memory[0]:.1f} MiB, at most {growth:+.1f} MiB later"] = growth <= 8
    for text, held in checks.items():
        print("ok  " if held else "FAIL", text)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

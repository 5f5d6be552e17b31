"""Large runs: lines beside a million finished rows, the dry run of a million lines, and the resume of a finished run.

``python -m benchmarks.suite.store_size [--full]``

``kontext-async bulk`` runs as a process, and the kernel says what it took. The store is filled beforehand with finished
rows of the same run, and a run of further lines is measured on each size; then dry runs of growing files, and a run
that is complete already. SQLite and PostgreSQL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from benchmarks.support.filled_store import fill_store
from benchmarks.support.server_process import ROOT, EmulatorClient, start_emulator
from benchmarks.support.stores import POSTGRES, SQLITE, start_store
from benchmarks.support.thresholds import check_threshold

if TYPE_CHECKING:
    from benchmarks.support.stores import StoreServer

__all__ = ["Sizes", "describe", "measure"]

RUN = "size"
SLOWER = 1.15
"""The longest time of a line beside many rows, as a multiple of that in an empty store."""
CURVED = 1.15
"""The longest time of a line in the largest dry run, as a multiple of that in the smallest."""
MEMORY_GROWTH = 16.0
"""MiB by which the peak may be larger beside many rows."""
DRY_SECONDS = 480.0 / 1_000_000
RESUME_SECONDS = 30.0 / 100_000
"""The longest time of a line: of a dry run, and of a resume."""
START_SECONDS = 3.0
"""What a process takes to start, and may take beside its lines."""


@frozen
class Sizes:
    """How much to measure.

    Attributes:
        filled: The finished rows in the store.
        lines: The further lines on each.
        dry: The lines of the dry runs.
        resumed: The lines of the run that is resumed.
        in_flight: The most unfinished tasks.
        service_time: The duration of the tasks.
        stores: The databases.
    """

    filled: tuple[int, ...]
    lines: int
    dry: tuple[int, ...]
    resumed: int
    in_flight: int = 500
    service_time: str = "constant:1"
    stores: tuple[str, ...] = (SQLITE, POSTGRES)


QUICK = Sizes(filled=(0, 50_000, 98_000), lines=2_000, dry=(10_000, 20_000, 40_000), resumed=2_000)
FULL = Sizes(
    filled=(0, 500_000, 980_000), lines=20_000, dry=(250_000, 500_000, 1_000_000), resumed=100_000, in_flight=1000
)


@frozen
class Taken:
    """What a process took.

    Attributes:
        seconds: Wall time.
        cpu: Seconds of CPU.
        peak: The peak of the resident memory, in MiB.
    """

    seconds: float
    cpu: float
    peak: float


@frozen
class Bench:
    """Runs the command in one folder.

    Attributes:
        gateway: The emulator.
        store: The store.
        folder: The folder of the prompts and of the images.
        in_flight: The most unfinished tasks.
    """

    gateway: EmulatorClient
    store: StoreServer
    folder: Path
    in_flight: int

    def run(self, name: str, lines: int, *options: str) -> Taken:
        """Run the command over a file of so many lines, and return what it took."""
        file = self.folder / f"{name}.txt"
        with file.open("w") as opened:
            opened.writelines(f"{name}, number {number}\n" for number in range(lines))
        arguments = [
            *("bulk", str(file), "--out", str(self.folder / name), "--run", RUN, "--quiet"),
            *("--max-in-flight", str(self.in_flight), "--polls-per-second", "1000", *options),
        ]
        environment = {**os.environ, **self.gateway.environment(), **self.store.environment()}
        return run_measured([sys.executable, "-m", "kontext_async.cli", *arguments], environment)


def run_measured(command: list[str], environment: dict[str, str]) -> Taken:
    """Run a process, and return what it took. It must succeed, and its output is discarded."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[3:5]} ended with {process.returncode}")
    return Taken(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure the time and the memory of each size, on both databases."""
    sizes = sizes or (QUICK if quick else FULL)
    figures: dict[str, Any] = {"settings": {"lines": sizes.lines, "in_flight": sizes.in_flight}, "stores": {}}
    thresholds: list[dict[str, object]] = []
    for kind in sizes.stores:
        beside = {filled: measure_beside(kind, filled, sizes) for filled in sizes.filled}
        dry = measure_dry_runs(kind, sizes)
        resumed = measure_resume(kind, sizes)
        figures["stores"][kind] = {
            "beside": {filled: show(taken, sizes.lines) for filled, taken in beside.items()},
            "dry": {lines: show(taken, lines) for lines, taken in dry.items()},
            "resumed": show(resumed, sizes.resumed),
        }
        thresholds += judge(kind, sizes, beside, dry, resumed)
    return figures | {"thresholds": thresholds}


def judge(
    kind: str, sizes: Sizes, beside: dict[int, Taken], dry: dict[int, Taken], resumed: Taken
) -> list[dict[str, object]]:
    """Compare what the sizes took on one database."""
    empty, largest = beside[sizes.filled[0]], max(sizes.filled)
    slowest = max(taken.seconds for taken in beside.values()) / empty.seconds
    growth = max(taken.peak for taken in beside.values()) - empty.peak
    small, large = min(sizes.dry), max(sizes.dry)
    curve = dry[large].seconds / large / (dry[small].seconds / small)
    dry_limit, resume_limit = large * DRY_SECONDS + START_SECONDS, sizes.resumed * RESUME_SECONDS + START_SECONDS
    return [
        check_threshold(f"{kind}: time of a line beside {largest} rows, against none", round(slowest, 3), SLOWER),
        check_threshold(f"{kind}: growth of the peak of memory beside them", round(growth, 1), MEMORY_GROWTH, "MiB"),
        check_threshold(f"{kind}: dry run of {large} lines", round(dry[large].seconds, 1), round(dry_limit, 1), "s"),
        check_threshold(f"{kind}: time of a line in it, against {small} lines", round(curve, 3), CURVED),
        check_threshold(
            f"{kind}: resume of {sizes.resumed} lines", round(resumed.seconds, 1), round(resume_limit, 1), "s"
        ),
    ]


def measure_beside(kind: str, filled: int, sizes: Sizes) -> Taken:
    """Fill a store, and run further lines in it."""
    with ExitStack() as stack:
        bench = start_bench(stack, kind, sizes)
        fill_store(bench.store, RUN, filled)
        return bench.run("further", sizes.lines)


def measure_dry_runs(kind: str, sizes: Sizes) -> dict[int, Taken]:
    """Run the command with ``--dry-run`` over growing files."""
    with ExitStack() as stack:
        bench = start_bench(stack, kind, sizes)
        return {lines: bench.run("dry", lines, "--dry-run") for lines in sizes.dry}


def measure_resume(kind: str, sizes: Sizes) -> Taken:
    """Run some lines, and run them again when they are complete."""
    with ExitStack() as stack:
        bench = start_bench(stack, kind, sizes)
        bench.run("resumed", sizes.resumed)
        return bench.run("resumed", sizes.resumed)


def start_bench(stack: ExitStack, kind: str, sizes: Sizes) -> Bench:
    """Start the gateway and the database of a measurement."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    gateway = stack.enter_context(start_emulator("--service-time", sizes.service_time, "--pixels", "256"))
    store = stack.enter_context(start_store(kind, folder))
    return Bench(gateway, store, folder, sizes.in_flight)


def show(taken: Taken, lines: int) -> dict[str, float]:
    """Return figures for people."""
    return {
        "seconds": round(taken.seconds, 1),
        "ms_per_line": round(taken.seconds / lines * 1000, 3),
        "cpu_ms_per_line": round(taken.cpu / lines * 1000, 3),
        "peak_mib": round(taken.peak, 1),
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return one line for each measurement."""
    lines: list[str] = []
    for kind, found in figures["stores"].items():
        lines += [f"{kind}, beside {filled} rows: {taken}" for filled, taken in found["beside"].items()]
        lines += [f"{kind}, dry run of {count} lines: {taken}" for count, taken in found["dry"].items()]
        lines.append(f"{kind}, resumed: {found['resumed']}")
    return lines


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("store_size")

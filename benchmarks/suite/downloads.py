"""Memory and stalls of 64 downloads of 20 MB at once, and of 2,000 of 200 kB.

``python -m benchmarks.suite.downloads [--full]``

`KontextSession.save` is compared with the obvious code: `read()` and a write in a thread. The server is a process of
its own, and so is each run. Memory is the peak that the kernel counts, above the memory of an open session.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import asdict, frozen

from benchmarks.support.measure import CpuLoopWatch
from benchmarks.support.peak_memory import PeakMemory
from benchmarks.support.server_process import ROOT, start_raw_sink
from benchmarks.support.thresholds import check_threshold
from kontext_async import GeneratedImage, KontextSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Sizes", "measure"]


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        large: Bytes of a large image.
        large_at_once: Large images at once.
        small: Bytes of a small image.
        small_at_once: Small images at once.
        rounds: Runs of each way.
    """

    large: int = 20_000_000
    large_at_once: int = 64
    small: int = 200_000
    small_at_once: int = 2000
    rounds: int = 3


QUICK = Sizes(large=8_000_000, rounds=1)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure memory, CPU and the longest turn of the loop of both ways."""
    sizes = sizes or (QUICK if quick else Sizes())
    figures: dict[str, Any] = {}
    for size, at_once in ((sizes.large, sizes.large_at_once), (sizes.small, sizes.small_at_once)):
        with start_raw_sink(size) as address:
            for way in WAYS:
                runs = [_run_worker(way, address, at_once) for _ in range(sizes.rounds)]
                figures[f"{way}, {at_once} of {size:,} bytes"] = {
                    what: round(statistics.median(run[what] for run in runs), 2) for what in runs[0]
                }
    saved, plain = list(figures.values())[:2]
    memory = f"memory of {sizes.large_at_once} downloads of {sizes.large // 1_000_000} MB at once"
    ratio = round(saved["memory_mb"] / plain["memory_mb"], 3)
    return {
        "settings": asdict(sizes),
        "runs": figures,
        "thresholds": [
            check_threshold(memory, saved["memory_mb"], 32, "MB"),
            check_threshold("the same against read() and write", ratio, 0.05),
        ],
    }


async def save_with_session(address: str, at_once: int, directory: Path, watch: CpuLoopWatch) -> dict[str, float]:
    """Measure `KontextSession.save`."""
    async with KontextSession("benchmark", base_url=address) as session:
        image = GeneratedImage(url=f"{address}/x.jpg", task_id="t")
        await session.save(image, directory / "first")
        return await _measure(lambda number: session.save(image, directory / f"{number}"), at_once, watch)


async def save_by_hand(address: str, at_once: int, directory: Path, watch: CpuLoopWatch) -> dict[str, float]:
    """Measure reading all of an image into memory, and then writing it to a file."""
    async with aiohttp.ClientSession() as http:

        async def save(number: int) -> None:
            async with http.get(f"{address}/x.jpg") as response:
                data = await response.read()
            await asyncio.to_thread((directory / f"{number}.jpg").write_bytes, data)

        await save(0)
        return await _measure(save, at_once, watch)


async def _measure(save: Callable[[int], Awaitable[object]], at_once: int, watch: CpuLoopWatch) -> dict[str, float]:
    with PeakMemory() as peak:
        await asyncio.sleep(0.01)
        watch.reset()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(save(number) for number in range(at_once)))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "memory_mb": peak.megabytes,
        "cpu_ms": cpu * 1e3 / at_once,
        "stall_ms": watch.longest * 1e3,
        "stall_cpu_ms": watch.longest_cpu * 1e3,
        "seconds": seconds,
    }


WAYS = {"save": save_with_session, "read() and write": save_by_hand}


def _run_worker(way: str, address: str, at_once: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.suite.downloads", "worker", way, address, str(at_once)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _run_way(way: str, address: str, at_once: int) -> dict[str, float]:
    watch = CpuLoopWatch()
    with (
        tempfile.TemporaryDirectory() as directory,
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)) as runner,
    ):
        return runner.run(WAYS[way](address, at_once, Path(directory), watch))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        print(json.dumps(_run_way(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        from benchmarks.runner import run_alone

        run_alone("downloads")

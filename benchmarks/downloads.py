"""64 downloads of 20 MB at once, and 2,000 of 200 kB: what memory they take, and how long the loop is held.

``python -m benchmarks.downloads [--full]``

Beside `KontextSession.save`: what one writes first, `read()` and a write in a thread. The server is a process of its
own; each run is one, too. Memory is the peak that the kernel counts, above what it was with an open session.
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

from benchmarks.goals import goal
from benchmarks.pouring import pouring_process
from benchmarks.resident import Peak
from benchmarks.sending import TurnWatch
from benchmarks.serving import ROOT
from kontext_async import GeneratedImage, KontextSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Sizes", "measure"]


@frozen(kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        large: Bytes of a large picture.
        large_at_once: Large pictures at once.
        small: Bytes of a small picture.
        small_at_once: Small pictures at once.
        rounds: Runs of each.
    """

    large: int = 20_000_000
    large_at_once: int = 64
    small: int = 200_000
    small_at_once: int = 2000
    rounds: int = 3


QUICK = Sizes(large=8_000_000, rounds=1)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Memory, CPU and the longest turn of the loop of both ways."""
    sizes = sizes or (QUICK if quick else Sizes())
    figures: dict[str, Any] = {}
    for size, at_once in ((sizes.large, sizes.large_at_once), (sizes.small, sizes.small_at_once)):
        with pouring_process(size) as address:
            for way in WAYS:
                runs = [_run(way, address, at_once) for _ in range(sizes.rounds)]
                figures[f"{way}, {at_once} of {size:,} bytes"] = {
                    what: round(statistics.median(run[what] for run in runs), 2) for what in runs[0]
                }
    saved, plain = list(figures.values())[:2]
    name = f"{sizes.large_at_once} downloads of {sizes.large // 1_000_000} MB at once"
    return {
        "settings": asdict(sizes),
        "runs": figures,
        "goals": [
            goal(f"memory of {name}", saved["memory_mb"], 32, "MB"),
            goal("the same against read() and write", round(saved["memory_mb"] / plain["memory_mb"], 3), 0.05),
        ],
    }


async def ours(address: str, at_once: int, directory: Path, watch: TurnWatch) -> dict[str, float]:
    """`KontextSession.save`."""
    async with KontextSession("benchmark", base_url=address) as session:
        picture = GeneratedImage(url=f"{address}/x.jpg", task_id="t")
        await session.save(picture, directory / "first")
        return await _measured(lambda place: session.save(picture, directory / f"{place}"), at_once, watch)


async def plainly(address: str, at_once: int, directory: Path, watch: TurnWatch) -> dict[str, float]:
    """All of it into memory, and then into a file."""
    async with aiohttp.ClientSession() as http:

        async def save(place: int) -> None:
            async with http.get(f"{address}/x.jpg") as answer:
                data = await answer.read()
            await asyncio.to_thread((directory / f"{place}.jpg").write_bytes, data)

        await save(0)
        return await _measured(save, at_once, watch)


async def _measured(save: Callable[[int], Awaitable[object]], at_once: int, watch: TurnWatch) -> dict[str, float]:
    with Peak() as peak:
        await asyncio.sleep(0.01)
        watch.restart()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(save(place) for place in range(at_once)))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "memory_mb": peak.megabytes,
        "cpu_ms": cpu * 1e3 / at_once,
        "stall_ms": watch.longest * 1e3,
        "stall_cpu_ms": watch.longest_cpu * 1e3,
        "seconds": seconds,
    }


WAYS = {"save": ours, "read() and write": plainly}


def _run(way: str, address: str, at_once: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.downloads", "alone", way, address, str(at_once)]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _alone(way: str, address: str, at_once: int) -> dict[str, float]:
    watch = TurnWatch()
    with (
        tempfile.TemporaryDirectory() as directory,
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)) as runner,
    ):
        return runner.run(WAYS[way](address, at_once, Path(directory), watch))


if __name__ == "__main__":
    if sys.argv[1:2] == ["alone"]:
        print(json.dumps(_alone(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        from benchmarks.runner import alone

        alone("downloads")

"""CPU of one status request at 100 at once, loop, schedule and decoding included.

``python -m benchmarks.suite.status_cpu [--full]``

Ours is the session's own poll loop over 100 tasks that never end, with limits so high that it polls all the time. The
reference is plain aiohttp: 100 coroutines that `get` and `json()` the same URLs as fast as they can. They take turns in
one process, against one server in another.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import evolve, frozen

from benchmarks.servers.schedule import Workload
from benchmarks.support.measure import (
    compute_median,
    compute_median_ratio,
    measure_cpu_per_request,
    measure_run,
    run_interleaved,
)
from benchmarks.support.sampling import Sampler
from benchmarks.support.server_process import start_mock_gateway
from benchmarks.support.thresholds import check_threshold
from kontext_async import KontextSession, Limits, Polling, Settings

if TYPE_CHECKING:
    from benchmarks.support.measure import LoopWatch, Stopwatch

__all__ = ["Sizes", "describe", "measure"]

WORKLOAD = Workload(median=None, progress=0.42)
LIMITS: dict[str, Any] = {"max_connections": 400, "polls_per_second": 1e6}
POLLING = {"initial_delay": 0.0, "interval": 1e-4, "min_interval": 1e-4, "max_interval": 1e-4}

PROFILE_FACTOR = 10
"""The profile runs so many times longer than a run."""


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        at_once: Requests at once.
        seconds: Seconds of each run.
        rounds: Runs of each candidate.
        warm_up: Seconds before each run.
    """

    at_once: int = 100
    seconds: float = 0.25
    rounds: int = 13
    warm_up: float = 0.1


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure microseconds of CPU per request, and the ratio of runs side by side."""
    sizes = sizes or Sizes(rounds=9 if quick else 51)
    with start_mock_gateway() as server:
        server.reset(WORKLOAD)
        candidates = {"kontext_async": poll_with_session, "aiohttp get + json": poll_by_hand}
        runs = run_interleaved(
            {name: partial(measure_cpu_per_request, work, server.address, sizes) for name, work in candidates.items()},
            sizes.rounds,
        )
        ours, theirs = runs.values()
        served = server.counts()
        profile = profile_session(server.address, sizes, compute_median(ours))
    what = f"CPU of a status request at {sizes.at_once} at once, against aiohttp get + json"
    return {
        "settings": {"limits": LIMITS, "polling": POLLING, "at_once": sizes.at_once, "runs": sizes.rounds},
        "cpu_us_per_request": {name: compute_median(some) for name, some in runs.items()},
        "all_runs": runs,
        "server_us_per_request": round(served.cpu * 1e6 / served.requests, 1),
        "our_us_by_place": profile,
        "thresholds": [check_threshold(what, compute_median_ratio(ours, theirs), 0.95)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the medians, and our CPU by package."""
    places = figures["our_us_by_place"]["packages"]
    medians = [f"{name}: {micro:g} us a request" for name, micro in figures["cpu_us_per_request"].items()]
    medians.append(f"the server: {figures['server_us_per_request']:g} us a request")
    return [*medians, "of ours, us: " + ", ".join(f"{name} {micro:.0f}" for name, micro in list(places.items())[:8])]


async def poll_with_session(stopwatch: Stopwatch, address: str, sizes: Sizes) -> int:
    """Let the session's poll loop run, and return how many requests it sent."""
    limits = Limits(max_in_flight=sizes.at_once, max_polls_in_flight=sizes.at_once, **LIMITS)
    settings = Settings(limits=limits, polling=Polling(**POLLING))
    async with KontextSession("benchmark", base_url=address, settings=settings) as session:
        await asyncio.gather(*(session.submit("a red fox in snow") for _ in range(sizes.at_once)))
        await asyncio.sleep(sizes.warm_up)
        before = session.statistics().polls
        stopwatch.start()
        await asyncio.sleep(sizes.seconds)
        stopwatch.stop()
        return session.statistics().polls - before


async def poll_by_hand(stopwatch: Stopwatch, address: str, sizes: Sizes) -> int:
    """Poll with plain aiohttp, and return how many requests were sent."""
    polls = 0
    url = f"{address}/model/v1/generation"
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer benchmark"}) as http:

        async def poll_one_task() -> None:
            nonlocal polls
            async with http.post(url, json={}) as response:
                task = await response.json()
            while True:
                async with http.get(f"{url}/task/{task['id']}") as response:
                    await response.json()
                polls += 1

        workers = [asyncio.create_task(poll_one_task()) for _ in range(sizes.at_once)]
        await asyncio.sleep(sizes.warm_up)
        before = polls
        stopwatch.start()
        await asyncio.sleep(sizes.seconds)
        stopwatch.stop()
        sent = polls - before
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return sent


def profile_session(address: str, sizes: Sizes, total: float) -> dict[str, dict[str, float]]:
    """Divide `total`, the microseconds of one of our requests, by package and by function."""
    sampler = Sampler()

    async def poll_while_sampling(stopwatch: Stopwatch, _: LoopWatch) -> int:
        with sampler:
            return await poll_with_session(stopwatch, address, evolve(sizes, seconds=PROFILE_FACTOR * sizes.seconds))

    measure_run(poll_while_sampling)
    return sampler.divide(total)


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("status_cpu")

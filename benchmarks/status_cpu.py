"""The CPU of one status request at 100 at once: loop, schedule, decode and all.

``python -m benchmarks.status_cpu [--full]``

Ours is the session's own poll loop over 100 tasks that never end, with caps so high that it asks all the time. The
other is plain aiohttp: 100 coroutines that `get` and `json()` the same URLs as fast as they can. They take turns in
one process, against one server in another.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import evolve, frozen

from benchmarks.goals import goal
from benchmarks.measuring import interleaved, median_of, median_ratio, run_measured
from benchmarks.sampling import Sampler
from benchmarks.schedule import Plan
from benchmarks.serving import server_process
from kontext_async import KontextSession, Limits, Polling, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measuring import LoopWatch, Stopwatch

__all__ = ["Sizes", "describe", "measure", "ours"]

PLAN = Plan(median=None, progress=0.42)
LIMITS: dict[str, Any] = {"max_connections": 400, "polls_per_second": 1e6}
POLLING = {"initial_delay": 0.0, "interval": 1e-4, "min_interval": 1e-4, "max_interval": 1e-4}

PROFILE_FOR = 10
"""How much longer than a run the profile is taken."""


@frozen(kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        at_once: Requests at once.
        seconds: Of each run.
        rounds: Runs of each contender.
        warm_up: Seconds before each run.
    """

    at_once: int = 100
    seconds: float = 0.25
    rounds: int = 13
    warm_up: float = 0.1


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Microseconds of CPU per request, and the ratio of runs side by side."""
    sizes = sizes or Sizes(rounds=9 if quick else 51)
    with server_process() as server:
        server.reset(PLAN)
        contenders = {"kontext_async": ours, "aiohttp get + json": by_hand}
        runs = interleaved(
            {name: partial(_one_run, work, server.address, sizes) for name, work in contenders.items()}, sizes.rounds
        )
        mine, theirs = runs.values()
        served = server.counts()
        where = profile(server.address, sizes, median_of(mine))
    ratio = median_ratio(mine, theirs)
    return {
        "settings": {"limits": LIMITS, "polling": POLLING, "at_once": sizes.at_once, "runs": sizes.rounds},
        "cpu_us_per_request": {name: median_of(some) for name, some in runs.items()},
        "all_runs": runs,
        "server_us_per_request": round(served.cpu * 1e6 / served.requests, 1),
        "our_us_by_place": where,
        "goals": [goal(f"CPU of a status request at {sizes.at_once} at once, against aiohttp get + json", ratio, 1.0)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """The medians, and what ours consists of."""
    places = figures["our_us_by_place"]["packages"]
    medians = [f"{name}: {micro:g} us a request" for name, micro in figures["cpu_us_per_request"].items()]
    medians.append(f"the server: {figures['server_us_per_request']:g} us a request")
    return [*medians, "of ours, us: " + ", ".join(f"{name} {micro:.0f}" for name, micro in list(places.items())[:8])]


def _one_run(work: Callable[..., Any], address: str, sizes: Sizes) -> float:
    def with_stopwatch(stopwatch: Stopwatch, _: LoopWatch) -> Any:
        return work(stopwatch, address, sizes)

    measured = run_measured(with_stopwatch)
    return measured.cpu * 1e6 / max(1, int(measured.value))


async def ours(stopwatch: Stopwatch, address: str, sizes: Sizes) -> int:
    """Let the poll loop run; how many requests it made."""
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


async def by_hand(stopwatch: Stopwatch, address: str, sizes: Sizes) -> int:
    """Ask by hand; how many requests it made."""
    asked = 0
    url = f"{address}/model/v1/generation"
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer benchmark"}) as http:

        async def ask_for_ever() -> None:
            nonlocal asked
            async with http.post(url, json={}) as answer:
                task = await answer.json()
            while True:
                async with http.get(f"{url}/task/{task['id']}") as answer:
                    await answer.json()
                asked += 1

        workers = [asyncio.create_task(ask_for_ever()) for _ in range(sizes.at_once)]
        await asyncio.sleep(sizes.warm_up)
        before = asked
        stopwatch.start()
        await asyncio.sleep(sizes.seconds)
        stopwatch.stop()
        made = asked - before
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return made


def profile(address: str, sizes: Sizes, whole: float) -> dict[str, dict[str, float]]:
    """Microseconds of one of our requests by package and by function."""
    sampler = Sampler()

    async def sampled(stopwatch: Stopwatch, _: LoopWatch) -> int:
        with sampler:
            return await ours(stopwatch, address, evolve(sizes, seconds=PROFILE_FOR * sizes.seconds))

    run_measured(sampled)
    return sampler.shares(whole)


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("status_cpu")

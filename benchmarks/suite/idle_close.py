"""Create requests through a proxy that closes idle connections: how many become uncertain, and what certainty costs.

``python -m benchmarks.suite.idle_close [--full]``

A request that goes out while the closing is on its way has an unknown outcome. The proxy is 200 ms away and closes
connections that were idle for 1 s or 2 s. Requests are sent in bursts, and the time between a burst's responses and the
next burst is in the middle of the window in which that happens. *ours* is the session as it is. *always kept* keeps
connections for a minute, through a proxy that closes none: no connection is opened after the first burst. *kept for
2 s* shows what the window does to a client that trusts its connections. All in one process, without TLS.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from benchmarks.support.measure import compute_median, measure_run
from benchmarks.support.server_process import start_raw_sink, start_slow_proxy
from benchmarks.support.thresholds import check_threshold
from kontext_async import KontextSession, Outages, SubmissionUncertain
from kontext_async.engine import pools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.support.measure import LoopWatch, Stopwatch

__all__ = ["Sizes", "describe", "measure"]


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        bursts: Bursts of requests.
        burst: Requests of a burst, all at once.
        round_trip: Seconds to the server and back.
        idle: The idle times after which the proxy closes connections, in seconds.
        rounds: Runs of each way.
    """

    bursts: int = 10
    burst: int = 20
    round_trip: float = 0.2
    idle: tuple[float, ...] = (1.0, 2.0)
    rounds: int = 1


@frozen(kw_only=True)
class Way:
    """One way to keep connections.

    Attributes:
        name: Its name.
        gap: Seconds between the responses of a burst and the next burst.
        idle: The idle time after which the proxy closes connections, in seconds.
        keep_alive: Seconds for which a connection may idle; None is the session's own rule.
    """

    name: str
    gap: float
    idle: float = math.inf
    keep_alive: float | None = None


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure uncertain requests and CPU."""
    sizes = sizes or Sizes(rounds=1 if quick else 3)
    figures: dict[str, Any] = {"settings": asdict(sizes), "ways": {}}
    thresholds = []
    with start_raw_sink() as server:
        for idle in sizes.idle:
            gap = idle - sizes.round_trip / 2
            ours = _run(server, Way(name=f"ours, {idle:g} s", gap=gap, idle=idle), sizes, figures)
            kept = _run(server, Way(name=f"always kept, {idle:g} s", gap=gap, keep_alive=60.0), sizes, figures)
            ratio = round(ours["cpu_ms"] / kept["cpu_ms"], 2)
            thresholds += [
                check_threshold(f"uncertain, connections closed after {idle:g} s", ours["uncertain"], 0),
                check_threshold(f"CPU of a create request against kept connections, {idle:g} s", ratio, 2.0),
            ]
        trusting = Way(name="kept for 2 s, 2 s", gap=2.0 - sizes.round_trip / 2, idle=2.0, keep_alive=2.0)
        if trusting.idle in sizes.idle:
            _run(server, trusting, sizes, figures)
    return {**figures, "thresholds": thresholds}


def describe(figures: dict[str, Any]) -> list[str]:
    """Return one line about each way."""
    return [
        f"{name}: {way['uncertain']} of {way['requests']} uncertain, {way['cpu_ms']:g} ms of CPU each"
        for name, way in figures["ways"].items()
    ]


def _run(server: str, way: Way, sizes: Sizes, figures: dict[str, Any]) -> dict[str, Any]:
    cpu: list[float] = []
    uncertain = 0
    requests = sizes.bursts * sizes.burst
    for _ in range(sizes.rounds):
        with start_slow_proxy(server, sizes.round_trip, way.idle) as address, _keep_alive(way.keep_alive):
            run = measure_run(partial(_send_bursts, address, way, sizes))
        cpu.append(1000 * run.cpu / requests)
        uncertain += run.value
    figures["ways"][way.name] = {
        "uncertain": uncertain,
        "requests": requests * sizes.rounds,
        "cpu_ms": compute_median(cpu),
    }
    result: dict[str, Any] = figures["ways"][way.name]
    return result


async def _send_bursts(address: str, way: Way, sizes: Sizes, stopwatch: Stopwatch, _: LoopWatch) -> int:
    """Send the bursts; return how many requests are uncertain. The first burst, which opens connections, is free."""
    outages = Outages(uncertain_limit=1_000_000)
    uncertain = 0
    async with KontextSession("key", base_url=address, outages=outages) as session:
        for burst in range(sizes.bursts + 1):
            if burst == 1:
                stopwatch.start()
            work = (session.submit("a red fox in snow") for _ in range(sizes.burst))
            results = await asyncio.gather(*work, return_exceptions=True)
            uncertain += sum(isinstance(result, SubmissionUncertain) for result in results)
            await asyncio.sleep(way.gap)
        stopwatch.stop()
    return uncertain


@contextmanager
def _keep_alive(seconds: float | None) -> Iterator[None]:
    """Let the sessions that are opened in this context keep the connections of create requests for so long."""
    own = pools.CREATE_KEEP_ALIVE
    pools.CREATE_KEEP_ALIVE = own if seconds is None else seconds
    try:
        yield
    finally:
        pools.CREATE_KEEP_ALIVE = own


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("idle_close")

"""CPU of one create request at 100 at once, from the call of `submit` to the handle of the task.

``python -m benchmarks.suite.create_cpu [--full]``

Ours is `KontextSession.submit`: the request is checked, takes a slot, is sent, and its task is polled from then on. The
reference is plain aiohttp: `post(json=…)` and `json()`. Both send waves of 100 over connections that are open, against
one server in another process, and take turns in one process. The tasks never end, so the first waves also let the
session find how many tasks the account sustains; before that, requests wait for a slot.

Two more candidates show whose the difference is: the session's transport alone, and the session with a transport that
sends nothing and takes no time.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import frozen

from benchmarks.comparison.clients.by_hand import BODY, HEADERS
from benchmarks.comparison.clients.job import PROMPT
from benchmarks.servers.schedule import Workload
from benchmarks.support.measure import compute_median, compute_median_ratio, measure_cpu_per_request, run_interleaved
from benchmarks.support.server_process import start_mock_gateway
from benchmarks.support.thresholds import check_threshold
from kontext_async import KontextSession, Limits, Settings
from kontext_async.engine.transport import Response
from kontext_async.engine.uploads import UploadLimiter
from kontext_async.models import KontextRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from benchmarks.support.measure import Stopwatch
    from kontext_async.engine.uploads import Upload
    from kontext_async.gateways import GatewayRequest

__all__ = ["Sizes", "describe", "measure"]

ENDLESS = Workload(median=None, progress=0.42)
LIMITS: dict[str, Any] = {"max_in_flight": 1_000_000, "max_connections": 400, "polls_per_second": 0.1}
OURS, BY_HAND, TRANSPORT, ENGINE = "kontext_async", "aiohttp post + json", "our transport alone", "ours without HTTP"


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        at_once: Requests at once.
        warm_up: Waves of requests that open the connections and find the limit.
        waves: Waves of requests that are measured.
        rounds: Runs of each candidate.
    """

    at_once: int = 100
    warm_up: int = 11
    waves: int = 10
    rounds: int = 13


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure microseconds of CPU per request, and the ratio of runs side by side."""
    sizes = sizes or Sizes(rounds=13 if quick else 51)
    with start_mock_gateway() as server:
        server.reset(ENDLESS)
        work = {OURS: submit, BY_HAND: post_by_hand, TRANSPORT: send_by_transport, ENGINE: submit_without_http}
        runs = run_interleaved(
            {name: partial(measure_cpu_per_request, each, server.address, sizes) for name, each in work.items()},
            sizes.rounds,
        )
    what = f"CPU of a create request at {sizes.at_once} at once, against aiohttp post + json"
    return {
        "settings": {"limits": LIMITS, "at_once": sizes.at_once, "waves": sizes.waves, "runs": sizes.rounds},
        "cpu_us_per_request": {name: compute_median(some) for name, some in runs.items()},
        "ratios": {name: compute_median_ratio(some, runs[BY_HAND]) for name, some in runs.items()},
        "all_runs": runs,
        "thresholds": [check_threshold(what, compute_median_ratio(runs[OURS], runs[BY_HAND]), 1.3)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the medians."""
    ratios = figures["ratios"]
    return [f"{name}: {micro:g} us, {ratios[name]:g}" for name, micro in figures["cpu_us_per_request"].items()]


async def _send_waves(stopwatch: Stopwatch, sizes: Sizes, send: Callable[[], Awaitable[object]]) -> int:
    """Send the waves, and return the number of requests that were measured."""
    for _ in range(sizes.warm_up):
        await asyncio.gather(*(send() for _ in range(sizes.at_once)))
    stopwatch.start()
    for _ in range(sizes.waves):
        await asyncio.gather(*(send() for _ in range(sizes.at_once)))
    stopwatch.stop()
    return sizes.waves * sizes.at_once


async def submit(stopwatch: Stopwatch, address: str, sizes: Sizes) -> int:
    """Submit with a session."""
    async with _create_session(address) as session:
        return await _send_waves(stopwatch, sizes, lambda: session.submit(PROMPT))


async def post_by_hand(stopwatch: Stopwatch, address: str, sizes: Sizes) -> int:
    """Post with plain aiohttp."""
    url = f"{address}/model/v1/generation"
    async with aiohttp.ClientSession(headers=HEADERS) as http:

        async def post() -> None:
            async with http.post(url, json=BODY) as response:
                await response.json()

        return await _send_waves(stopwatch, sizes, post)


async def send_by_transport(stopwatch: Stopwatch, address: str, sizes: Sizes) -> int:
    """Send bodies that are encoded beforehand with the transport of a session, and discard the responses."""
    async with _create_session(address) as session:
        engine = session._engine  # noqa: SLF001 # a part of it is measured alone
        outgoing = engine.gateway.create(KontextRequest(PROMPT), ())
        uploads = UploadLimiter(Limits())

        def send() -> Coroutine[Any, Any, Response]:
            return engine.transport.create(outgoing, uploads.upload(outgoing.body))

        return await _send_waves(stopwatch, sizes, send)


async def submit_without_http(stopwatch: Stopwatch, address: str, sizes: Sizes) -> int:
    """Submit with a session whose transport responds in the next turn of the loop."""
    numbers = count()

    async def respond(_: GatewayRequest, upload: Upload, *, before: Callable[[], Awaitable[None] | None]) -> Response:
        before()
        upload.hand_over()
        await asyncio.sleep(0)
        return Response(200, b'{"id":"%010d","status":"in_progress","progress":0.42}' % next(numbers))

    async with _create_session(address) as session:
        session._engine.transport.create = respond  # type: ignore[assignment,method-assign] # noqa: SLF001 # as above
        return await _send_waves(stopwatch, sizes, lambda: session.submit(PROMPT))


def _create_session(address: str) -> KontextSession:
    return KontextSession("benchmark", base_url=address, settings=Settings(limits=Limits(**LIMITS)))


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("create_cpu")

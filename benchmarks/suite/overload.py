"""Overload: how fast a session refuses, and whether those who come back at their own time find room.

``python -m benchmarks.suite.overload [--full]``

1,000 users come at once to a session of 24 slots and 48 places in its queue, with tasks of 1 s, over real HTTP. The
session has learned how long tasks take. Each user who is refused comes back once, after the `Overloaded.retry_after`
of its own.

The error of a time compares it with the moment at which there was room for this user: when as many requests had left
the queue as users were refused up to it.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

from attrs import define, field, frozen

from benchmarks.servers.schedule import Workload
from benchmarks.support.server_process import start_mock_gateway
from benchmarks.support.thresholds import check_threshold
from kontext_async import Limits, Overloaded
from kontext_async.events import Submitting
from kontext_async.session import KontextSession

__all__ = ["Sizes", "describe", "measure"]

PROMPT = "a red fox in snow"


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        users: The users that come at once.
        slots: The slots.
        queued: The places in the queue.
        learned: The tasks from which the session has learned.
        seconds: The median duration of a task.
        sigma: The spread of durations, of which there is one run each.
    """

    users: int = 1000
    slots: int = 24
    queued: int = 48
    learned: int = 72
    seconds: float = 1.0
    sigma: tuple[float, ...] = (0.0,)


@define
class Crowd:
    """What became of the users.

    Attributes:
        refusals: Seconds from the call to `Overloaded`, of those who were refused.
        promised: The time of each refusal, and its `retry_after`, in their order.
        admitted: Users who came back and were admitted.
        refused_again: Users who came back and were refused.
        started: The times at which requests were sent.
    """

    refusals: list[float] = field(factory=list)
    promised: list[tuple[float, float]] = field(factory=list)
    admitted: int = 0
    refused_again: int = 0
    started: list[float] = field(factory=list)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure the refusals and the returns."""
    sizes = sizes or Sizes(sigma=(0.0,) if quick else (0.0, 0.5))
    rows: dict[str, dict[str, float]] = {}
    with start_mock_gateway() as server:
        for sigma in sizes.sigma:
            server.reset(Workload(median=sizes.seconds, sigma=sigma))
            rows[f"sigma {sigma:g}"] = _summarize(asyncio.run(_run(server.address, sizes)), sizes)
    return {
        "settings": {"users": sizes.users, "slots": sizes.slots, "queued": sizes.queued},
        "runs": rows,
        "thresholds": [line for name, row in rows.items() for line in _check(name, row)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return every figure of every run."""
    return [
        f"{name}: {', '.join(f'{key} {value:g}' for key, value in row.items())}"
        for name, row in figures["runs"].items()
    ]


def _check(name: str, row: dict[str, float]) -> list[dict[str, object]]:
    return [
        check_threshold(f"slowest refusal, {name}", row["slowest refusal"], 0.05, "s"),
        check_threshold(f"refused again at their own time, {name}", row["refused again"], 0.1),
        check_threshold(f"error of retry_after, median, {name}", row["median error"], 0.3),
    ]


def _summarize(crowd: Crowd, sizes: Sizes) -> dict[str, float]:
    errors = []
    for started, (refused_at, seconds) in zip(crowd.started[sizes.slots :], crowd.promised, strict=False):
        actual = started - refused_at
        errors.append(abs(seconds - actual) / actual)
    return {
        "refused": len(crowd.refusals),
        "slowest refusal": round(max(crowd.refusals), 4),
        "refused again": round(crowd.refused_again / len(crowd.refusals), 4),
        "median error": round(median(errors), 4),
        "longest retry_after": round(max(seconds for _, seconds in crowd.promised), 2),
        "last start": round(crowd.started[-1] - crowd.promised[0][0], 2),
    }


async def _run(address: str, sizes: Sizes) -> Crowd:
    limits = Limits(max_in_flight=sizes.slots, max_queued=sizes.queued)
    async with KontextSession("benchmark", base_url=address, limits=limits) as session:
        await session.generate_all([PROMPT] * sizes.learned)
        crowd = Crowd()
        session.subscribe(lambda _: crowd.started.append(time.perf_counter()), Submitting)
        await asyncio.gather(*(_come(session, number, crowd) for number in range(sizes.users)))
    return crowd


async def _come(session: KontextSession, number: int, crowd: Crowd) -> None:
    """Be a user who comes back once."""
    share = session.share(f"user {number}")
    began = time.perf_counter()
    try:
        await share.generate(PROMPT)
    except Overloaded as error:
        now = time.perf_counter()
        crowd.refusals.append(now - began)
        crowd.promised.append((now, error.retry_after))
        await asyncio.sleep(error.retry_after)
    else:
        return
    try:
        await share.generate(PROMPT)
    except Overloaded:
        crowd.refused_again += 1
    else:
        crowd.admitted += 1


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("overload")

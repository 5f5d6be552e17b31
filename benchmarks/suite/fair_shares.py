"""Fair shares: how long 20 users wait behind one with 500 requests, and the memory of a million names.

``python -m benchmarks.suite.fair_shares [--full]``

One session has 24 slots and tasks of 1 s, over real HTTP, and has learned how long these take. Seconds after the
requests of the greedy user have taken all slots, the others come with one request each. The reference puts all requests
into one share, where the order is first in, first out. Both take turns; ``--full`` runs five pairs.

A third run shows the worst moment: the session has learned nothing, and the others come as all 24 slots have just been
taken at once, so that each of them waits for a whole task and then for its own: twice the time that one takes alone.

The memory is that of a session in which each of a million names has one request, after a tenth of them.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from benchmarks.servers.schedule import Workload
from benchmarks.support.peak_memory import PeakMemory
from benchmarks.support.server_process import start_mock_gateway
from benchmarks.support.thresholds import check_threshold
from kontext_async import Limits, Polling
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kontext_async import Share

__all__ = ["Sizes", "describe", "measure"]

PROMPT = "a red fox in snow"
P95 = 0.95


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        pairs: Pairs of runs.
        slots: The slots.
        greedy: The requests of the greedy user.
        others: The other users, with one request each.
        learned: The tasks from which the session has learned.
        head_start: The seconds from the moment at which the greedy user has all slots to the others.
        seconds: The duration of a task.
        names: The names of shares of which the memory is measured.
        polling: The session's `Polling`, where it is not the default.
    """

    pairs: int = 1
    slots: int = 24
    greedy: int = 500
    others: int = 20
    learned: int = 72
    head_start: float = 5.0
    seconds: float = 1.0
    names: int = 1_000_000
    polling: dict[str, Any] = field(factory=dict)


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure the waits and the totals with and without shares, and the memory."""
    sizes = sizes or Sizes(pairs=1 if quick else 5)
    rows: dict[str, list[dict[str, float]]] = {"shares": [], "first in, first out": []}
    with start_mock_gateway() as server:
        for pair in range(sizes.pairs):
            for name in rows if pair % 2 == 0 else reversed(rows):
                server.reset(Workload(median=sizes.seconds, sigma=0.0))
                rows[name].append(asyncio.run(_run(server.address, sizes, is_fair=name == "shares")))
        totals = [fair["total"] / plain["total"] for fair, plain in zip(*rows.values(), strict=True)]
        server.reset(Workload(median=sizes.seconds, sigma=0.0))
        at_once = asyncio.run(_run(server.address, evolve(sizes, learned=0, head_start=0.0), is_fair=True))
    growth = asyncio.run(_measure_memory(sizes.names))
    return {
        "settings": {"slots": sizes.slots, "greedy": sizes.greedy, "others": sizes.others, "pairs": sizes.pairs},
        "runs": {**rows, "shares, at the worst moment": [at_once]},
        "thresholds": [
            check_threshold(
                "p95 of the others behind a greedy user", median(row["p95"] for row in rows["shares"]), 2.5, "s"
            ),
            check_threshold("total against first in, first out", round(median(totals), 4), 1.02),
            check_threshold(f"memory of {sizes.names} names beyond a tenth of them", round(growth, 1), 4.0, "MiB"),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return every run."""
    return [
        f"{name}: others' p95 {row['p95']:.2f} s, median {row['median']:.2f} s, total {row['total']:.2f} s"
        for name, rows in figures["runs"].items()
        for row in rows
    ]


async def _run(address: str, sizes: Sizes, *, is_fair: bool) -> dict[str, float]:
    limits = Limits(max_in_flight=sizes.slots)
    async with KontextSession(
        "benchmark", base_url=address, limits=limits, polling=Polling(**sizes.polling)
    ) as session:

        def share(name: str) -> Share:
            return session.share(name) if is_fair else session

        await session.generate_all([PROMPT] * sizes.learned)
        accepted = session.statistics().accepted + min(sizes.slots, sizes.greedy)
        began = time.perf_counter()
        greedy = [asyncio.create_task(share("greedy").generate(PROMPT)) for _ in range(sizes.greedy)]
        while session.statistics().accepted < accepted:  # noqa: ASYNC110 # no event has this number
            await asyncio.sleep(0.01)
        await asyncio.sleep(sizes.head_start)
        waits = await asyncio.gather(*(_time(share(f"user {number}")) for number in range(sizes.others)))
        await asyncio.gather(*greedy)
        total = time.perf_counter() - began
    return {
        "p95": round(_quantile(waits, P95), 3),
        "median": round(median(waits), 3),
        "total": round(total, 3),
    }


async def _time(share: Share) -> float:
    began = time.perf_counter()
    await share.generate(PROMPT)
    return time.perf_counter() - began


def _quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


async def _measure_memory(names: int) -> float:
    """Return the MiB by which the memory grows from a tenth of the names to all of them."""
    async with KontextSession("benchmark", base_url="http://127.0.0.1:9") as session:
        await _use_names(session, 0, names // 10)
        with PeakMemory() as peak:
            await _use_names(session, names // 10, names)
    return peak.megabytes


async def _use_names(session: KontextSession, first: int, last: int) -> None:
    """Let each name take a slot, and release it."""
    slots = session._engine.slots.of("flux_kontext_pro")  # noqa: SLF001 # no request is sent
    for number in range(first, last):
        share = session.share(f"user {number}")
        slot = await slots.acquire(share._queueing)  # noqa: SLF001 # as above
        slot.release()


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("fair_shares")

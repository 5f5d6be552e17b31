"""Connections that are opened in the steady state, while tasks keep coming: there should be none.

``python -m benchmarks.connections [--full]``

The server counts. The steady state begins when each of the tasks that were in flight first has had one successor, and
ends with the last create. A connection may still be opened there when more requests meet than ever before; one that
replaces a closed one would be waste, and is counted by itself.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from benchmarks.contest import Entry, run_job
from benchmarks.goals import goal
from benchmarks.schedule import Plan
from benchmarks.serving import server_process

if TYPE_CHECKING:
    from benchmarks.serving import Counts, Server

__all__ = ["Sizes", "describe", "measure"]

ONE_SECOND = Plan(median=1.0)


@frozen(kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        tasks: Pictures in all.
        in_flight: Tasks unfinished at once.
        limits: The session's limits, but for `max_in_flight`.
        polling: The session's polling, where it is not the default.
        every: Seconds between two looks at the counts.
    """

    tasks: int = 1000
    in_flight: int = 100
    plan: Plan = ONE_SECOND
    limits: dict[str, Any] = field(factory=lambda: {"polls_per_second": 400.0})
    polling: dict[str, Any] = field(factory=dict)
    every: float = 0.25


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """How many connections were opened, and when."""
    sizes = sizes or Sizes(tasks=350 if quick else 5000)
    with server_process() as server:
        server.reset(sizes.plan)
        entry = Entry(contender="ours", options={"limits": sizes.limits, "polling": sizes.polling})
        looks = _watched(server, entry, sizes)
    steady = [look for look in looks if 2 * sizes.in_flight <= look.creates < sizes.tasks] or looks[-1:]
    return {
        "settings": {"tasks": sizes.tasks, "in_flight": sizes.in_flight, "limits": sizes.limits},
        "opened": looks[-1].connections,
        "opened_before_the_steady_state": steady[0].connections,
        "replacing_closed_ones_in_the_steady_state": _closed(steady[-1]) - _closed(steady[0]),
        "requests_in_the_steady_state": steady[-1].requests - steady[0].requests,
        "looks": [(look.creates, look.requests, look.connections, look.open) for look in looks],
        "goals": [goal("connections opened in the steady state", steady[-1].connections - steady[0].connections, 0)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """How many there were in all, and why."""
    replaced = figures["replacing_closed_ones_in_the_steady_state"]
    requests = figures["requests_in_the_steady_state"]
    return [f"{figures['opened']} in all; in the steady state {replaced} replaced closed ones, in {requests} requests"]


def _closed(look: Counts) -> int:
    return look.connections - look.open


def _watched(server: Server, entry: Entry, sizes: Sizes) -> list[Counts]:
    worker = threading.Thread(target=run_job, args=(entry, server, sizes.tasks, sizes.in_flight))
    looks = [server.counts()]
    worker.start()
    while worker.is_alive():
        worker.join(sizes.every)
        looks.append(server.counts())
    return looks


if __name__ == "__main__":
    from benchmarks.runner import alone

    alone("connections")

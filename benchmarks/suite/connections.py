"""Connections that are opened in the steady state, while new tasks keep coming: there should be none.

``python -m benchmarks.suite.connections [--full]``

The server counts. The steady state begins when each of the first tasks in flight has had one successor, and ends with
the last create request. A connection may still be opened there when more requests overlap than ever before; one that
replaces a closed connection is waste, and is counted separately.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from benchmarks.comparison.comparison import ClientConfig, run_client_process
from benchmarks.servers.schedule import Workload
from benchmarks.support.server_process import start_mock_gateway
from benchmarks.support.thresholds import check_threshold

if TYPE_CHECKING:
    from benchmarks.support.server_process import MockGatewayClient, RequestCounts

__all__ = ["Sizes", "describe", "measure"]

ONE_SECOND = Workload(median=1.0)


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        tasks: Images in all.
        in_flight: Unfinished tasks at once.
        workload: The service times.
        limits: The session's limits, but for `max_in_flight`.
        polling: The session's polling, where it is not the default.
        sample_interval: Seconds between two samples of the server's counts.
    """

    tasks: int = 1000
    in_flight: int = 100
    workload: Workload = ONE_SECOND
    limits: dict[str, Any] = field(factory=lambda: {"polls_per_second": 400.0})
    polling: dict[str, Any] = field(factory=dict)
    sample_interval: float = 0.25


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure how many connections were opened, and when."""
    sizes = sizes or Sizes(tasks=350 if quick else 5000)
    with start_mock_gateway() as server:
        server.reset(sizes.workload)
        config = ClientConfig(client="ours", options={"limits": sizes.limits, "polling": sizes.polling})
        samples = _run_and_sample(server, config, sizes)
    steady = [each for each in samples if 2 * sizes.in_flight <= each.creates < sizes.tasks] or samples[-1:]
    opened = steady[-1].connections - steady[0].connections
    return {
        "settings": {"tasks": sizes.tasks, "in_flight": sizes.in_flight, "limits": sizes.limits},
        "opened": samples[-1].connections,
        "opened_before_the_steady_state": steady[0].connections,
        "replacing_closed_ones_in_the_steady_state": _count_closed(steady[-1]) - _count_closed(steady[0]),
        "requests_in_the_steady_state": steady[-1].requests - steady[0].requests,
        "samples": [(each.creates, each.requests, each.connections, each.open) for each in samples],
        "thresholds": [check_threshold("connections opened in the steady state", opened, 0)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return how many connections were opened in all, and why."""
    replaced = figures["replacing_closed_ones_in_the_steady_state"]
    requests = figures["requests_in_the_steady_state"]
    return [f"{figures['opened']} in all; in the steady state {replaced} replaced closed ones, in {requests} requests"]


def _count_closed(sample: RequestCounts) -> int:
    return sample.connections - sample.open


def _run_and_sample(server: MockGatewayClient, config: ClientConfig, sizes: Sizes) -> list[RequestCounts]:
    worker = threading.Thread(target=run_client_process, args=(config, server, sizes.tasks, sizes.in_flight))
    samples = [server.counts()]
    worker.start()
    while worker.is_alive():
        worker.join(sizes.sample_interval)
        samples.append(server.counts())
    return samples


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("connections")

"""Clients do their job against the mock gateway, and are compared with each other."""

from __future__ import annotations

import pytest
from benchmark_support import FAST_POLLING, FAST_WORKLOAD

from benchmarks.comparison import peers
from benchmarks.comparison.clients import Job
from benchmarks.comparison.clients.__main__ import run_client
from benchmarks.support.server_process import start_mock_gateway


@pytest.mark.parametrize("name", ["ours", "by_hand"])
def test_client_does_its_job(name: str) -> None:
    with start_mock_gateway() as server:
        server.reset(FAST_WORKLOAD)
        options = {"interval": 0.01, "polling": FAST_POLLING, "limits": {"polls_per_second": 500.0}}
        report = run_client(name, Job(address=server.address, tasks=5, in_flight=3, options=options))
        counts = server.counts()
    assert not report.failures
    assert counts.creates == 5
    assert counts.statuses >= 5
    assert not counts.unknown


def test_peers_are_compared_with_this_package() -> None:
    peer = "aiohttp by hand, 0.5 s"
    sizes = peers.Sizes(tasks=3, in_flight=(3,), workload=FAST_WORKLOAD, peers=(peer,), polling=FAST_POLLING)
    figures = peers.measure(sizes=sizes)
    assert set(figures["cases"]["3 in flight"]) == {"kontext_async", peer}
    assert peers.describe(figures)

"""Runs are interleaved, and a sampler divides the CPU of a run."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.support.measure import compute_median_ratio, run_interleaved
from benchmarks.support.sampling import Sampler


def test_interleaved_runs_alternate() -> None:
    order: list[str] = []

    def run_candidate(name: str) -> float:
        order.append(name)
        return 1.0

    runs = run_interleaved({name: partial(run_candidate, name) for name in "ab"}, 2)
    assert order == ["a", "b", "b", "a"]
    assert compute_median_ratio(runs["a"], runs["b"]) == 1.0


def test_sampler_divides_the_total() -> None:
    with Sampler() as sampler:
        while not sampler.samples:
            sum(range(1000))
    assert sum(sampler.divide(10.0)["packages"].values()) == pytest.approx(10.0)

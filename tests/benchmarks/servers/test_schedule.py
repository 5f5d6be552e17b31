"""Service times are reproducible, and a run is compared with the ideal one."""

from __future__ import annotations

from itertools import islice

from benchmarks.servers.schedule import (
    Workload,
    build_timeline,
    compute_delays,
    compute_ideal_makespan,
    compute_makespan,
)


def test_service_times_are_the_same_for_every_client() -> None:
    times = list(islice(Workload(seed=3).service_times(), 50))
    assert times == list(islice(Workload(seed=3).service_times(), 50))
    assert times != list(islice(Workload(seed=4).service_times(), 50))


def test_ideal_makespan_starts_the_next_task_when_one_ends() -> None:
    assert compute_ideal_makespan([3.0, 1.0, 1.0, 2.0], 2) == 4.0
    assert compute_ideal_makespan([3.0, 1.0, 1.0, 2.0], 4) == 3.0


def test_makespan_delays_and_timeline_follow_from_the_task_times() -> None:
    tasks = [(10.0, 12.0, 12.5), (10.0, 11.0, 11.25)]
    assert compute_makespan(tasks) == 2.5
    assert compute_delays(tasks) == [0.25, 0.5]
    assert build_timeline(tasks, steps=2) == [(0.0, 2, 2), (1.25, 1, 1), (2.5, 0, 0)]

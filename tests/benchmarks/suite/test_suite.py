"""Every benchmark runs at its smallest size and returns figures that the runner can print. No figure is judged."""

from __future__ import annotations

import pytest
from benchmark_support import FAST_POLLING, FAST_WORKLOAD, assert_valid_figures
from servers_support import skipping

from benchmarks.servers.schedule import Workload
from benchmarks.suite import (
    at_once,
    batch_end,
    connections,
    create_cpu,
    fair_shares,
    idle_close,
    imports,
    log_cpu,
    makespan,
    memory,
    overload,
    pacing,
    poll_curve,
    status_cpu,
    store_contention,
    store_cpu,
    store_size,
    validation,
    watched,
)
from kontext_async.engine.poll_workers import PollWorkers


def test_makespan_returns_figures() -> None:
    case = makespan.Case(tasks=6, in_flight=3, workload=FAST_WORKLOAD, polling=FAST_POLLING, interval=0.01)
    figures = makespan.measure(cases={"few": case})
    assert_valid_figures(figures)
    assert figures["cases"]["few"]["kontext_async"]["failures"] == {}
    assert makespan.describe(figures)


def test_at_once_returns_figures_of_every_pair() -> None:
    figures = at_once.measure(
        sizes=at_once.Sizes(pairs=2, tasks=5, workload=FAST_WORKLOAD, polling=FAST_POLLING, interval=0.01)
    )
    assert_valid_figures(figures)
    assert {clock: len(ratios) for clock, ratios in figures["ends"].items()} == {"client": 2, "server": 2}
    assert at_once.describe(figures)


def test_poll_curve_returns_figures_and_the_bound_of_each_point() -> None:
    few = poll_curve.Point(poll_cost=0.01, makespan=1.0, polls=1.0, cpu=1.0)
    figures = poll_curve.measure(
        sizes=poll_curve.Sizes(
            tasks=6, in_flight=3, workload=FAST_WORKLOAD, points={"few": few}, polling=FAST_POLLING, interval=0.01
        )
    )
    assert_valid_figures(figures)
    assert 1 <= figures["points"]["few"]["bound"] <= figures["points"]["few"]["makespan"]
    assert poll_curve.describe(figures)


def test_batch_end_returns_figures_of_every_rule() -> None:
    figures = batch_end.measure(
        sizes=batch_end.Sizes(seeds=1, batches={"few": batch_end.Batch(tasks=40, in_flight=20)})
    )
    assert_valid_figures(figures)
    assert set(figures["cases"]["few"]) == {*batch_end.RULES, "bound"}
    assert batch_end.describe(figures)


def test_fair_shares_returns_figures() -> None:
    figures = fair_shares.measure(
        sizes=fair_shares.Sizes(
            slots=2, greedy=6, others=2, learned=2, seconds=0.05, head_start=0.01, names=100, polling=FAST_POLLING
        )
    )
    assert_valid_figures(figures)
    assert len(fair_shares.describe(figures)) == 3


def test_overload_returns_figures() -> None:
    figures = overload.measure(sizes=overload.Sizes(users=12, slots=2, queued=2, learned=4, seconds=0.05))
    assert_valid_figures(figures)
    assert figures["runs"]["sigma 0"]["refused"] == 8
    assert overload.describe(figures)


def test_watched_returns_figures() -> None:
    figures = watched.measure(
        sizes=watched.Sizes(
            learned=10, tasks=4, every=0.02, workload=Workload(median=0.2, sigma=0.1, linear=True), polling=FAST_POLLING
        )
    )
    assert_valid_figures(figures)
    assert figures["capped"]["lost"] == 0
    assert watched.describe(figures)


def test_pacing_returns_figures_of_both_rules() -> None:
    few = {"few": pacing.Batch(sessions=2, tasks=4, seconds=0.1, ideal=0.1, old_tasks=24)}
    figures = pacing.measure(sizes=pacing.Sizes(seeds=2, batches=few, sessions=(1,), durations=(1.0,), lengths=4))
    assert_valid_figures(figures)
    assert set(figures["rules"]) == {"now", "before"}
    assert pacing.describe(figures)


def test_pacing_runs_batches_over_http() -> None:
    few = {"few": pacing.Batch(sessions=2, tasks=4, seconds=0.1, ideal=0.1, old_tasks=2)}
    figures = pacing.measure_http(runs=1, batches=few)
    assert_valid_figures(figures)
    assert figures["batches"]["few"][0]["seconds"] > 0


def test_create_cpu_returns_figures() -> None:
    figures = create_cpu.measure(sizes=create_cpu.Sizes(at_once=3, warm_up=1, waves=2, rounds=1))
    assert_valid_figures(figures)
    assert create_cpu.describe(figures)


def test_status_cpu_returns_figures() -> None:
    figures = status_cpu.measure(sizes=status_cpu.Sizes(at_once=3, seconds=0.05, rounds=1, warm_up=0.02))
    assert_valid_figures(figures)
    assert status_cpu.describe(figures)


def test_log_cpu_returns_figures_and_leaves_the_logger_alone() -> None:
    work = PollWorkers._work
    figures = log_cpu.measure(sizes=status_cpu.Sizes(at_once=3, seconds=0.05, rounds=1, warm_up=0.02))
    assert_valid_figures(figures)
    assert log_cpu.describe(figures)
    assert PollWorkers._work is work
    assert log_cpu.LOGGER.handlers == []


def test_memory_returns_figures() -> None:
    figures = memory.measure(sizes=memory.Sizes(pending=120, steps=2, watched=0.05))
    assert_valid_figures(figures)
    assert len(figures["memory"]["curve"]) == 3
    assert memory.describe(figures)


def test_imports_returns_figures() -> None:
    figures = imports.measure(sizes=imports.Sizes(rounds=1, statements=("import json", "import abc", "import enum")))
    assert_valid_figures(figures)
    assert imports.describe(figures)


def test_connections_returns_figures() -> None:
    sizes = connections.Sizes(tasks=12, in_flight=3, workload=FAST_WORKLOAD, polling=FAST_POLLING, sample_interval=0.02)
    figures = connections.measure(sizes=sizes)
    assert_valid_figures(figures)
    assert connections.describe(figures)


def test_idle_close_returns_figures() -> None:
    sizes = idle_close.Sizes(bursts=2, burst=3, round_trip=0.02, idle=(0.05,))
    figures = idle_close.measure(sizes=sizes)
    assert_valid_figures(figures)
    assert set(figures["ways"]) == {"ours, 0.05 s", "always kept, 0.05 s"}
    assert idle_close.describe(figures)


def test_validation_returns_figures() -> None:
    figures = validation.measure(sizes=validation.Sizes(lines=(100, 1_000)))
    assert_valid_figures(figures)
    assert len(figures["cases"]) == 6
    assert validation.describe(figures)


@pytest.mark.timeout(180)  # it starts many processes
def test_store_cpu_returns_figures() -> None:
    with skipping():
        figures = store_cpu.measure(sizes=store_cpu.Sizes(tasks=10, in_flight=5, turns=2, service_time="constant:0.01"))
    assert_valid_figures(figures)
    assert set(figures["cpu_us_per_task"]) == {"no store", "sqlite", "postgres"}
    assert store_cpu.describe(figures)


@pytest.mark.timeout(180)  # as above
def test_store_size_returns_figures() -> None:
    sizes = store_size.Sizes(
        filled=(0, 20), lines=5, dry=(5,), resumed=5, service_time="constant:0.01", stores=("sqlite",)
    )
    figures = store_size.measure(sizes=sizes)
    assert_valid_figures(figures)
    assert set(figures["stores"]["sqlite"]["beside"]) == {0, 20}
    assert store_size.describe(figures)


def test_store_contention_returns_figures() -> None:
    with skipping():
        figures = store_contention.measure(sizes=store_contention.Sizes(workers=2, rows=40, rounds=1))
    assert_valid_figures(figures)
    assert store_contention.describe(figures)

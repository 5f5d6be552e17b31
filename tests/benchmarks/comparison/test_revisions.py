"""Two checkouts are measured in turn, and the ratios of the pairs are judged by their interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
from benchmark_support import FAST_WORKLOAD

from benchmarks.comparison import revisions
from benchmarks.comparison.revisions import JOBS, Comparison, compare_revisions, compute_interval, format_table
from benchmarks.support.server_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.comparison.revisions import RevisionJob

SMALL_JOBS = [attrs.evolve(JOBS[0], turns=2, processes=2, tasks=5, warm_up=0.05)] + [
    attrs.evolve(
        job,
        turns=min(job.turns, 1),
        processes=1,
        tasks=5,
        workload=FAST_WORKLOAD,
        polling={"interval": 0.05, "min_interval": 0.05},
    )
    for job in JOBS[1:]
]


def test_every_job_runs_with_both_checkouts() -> None:
    comparisons = compare_revisions(ROOT, ROOT, 1, SMALL_JOBS)
    assert [each.title for each in comparisons] == [title for job in JOBS for title in job.figures]
    assert all(len(each.old) == len(each.new) == 1 for each in comparisons)


def test_order_of_old_and_new_alternates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def record(sides: Sequence[Any], job: object) -> dict[str, dict[str, float]]:
        order.extend(side.checkout.name for side in sides)
        return {side.name: {"cpu": 1e-6, "seconds": 1.0, "operations": 1} for side in sides}

    monkeypatch.setattr(revisions, "_measure_processes", record)
    jobs = [attrs.evolve(JOBS[0], processes=2), JOBS[1]]
    compare_revisions(tmp_path / "old", tmp_path / "new", 2, jobs)
    forth, back = ["old", "new"], ["new", "old"]
    assert order == [*forth, *back, *forth, *back, *forth, *back]


def test_figures_of_the_processes_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = iter([1e-3, 2e-3, 4e-3, 3e-3])

    def measure(sides: Sequence[Any], job: object) -> dict[str, dict[str, float]]:
        return {side.name: {"cpu": next(cpu), "seconds": 1.0, "operations": 10} for side in sides}

    monkeypatch.setattr(revisions, "_measure_processes", measure)
    [compared] = compare_revisions(tmp_path / "old", tmp_path / "new", 1, [attrs.evolve(JOBS[0], processes=2)])
    assert compared.old == pytest.approx([200.0])
    assert compared.new == pytest.approx([300.0])


def test_interval_encloses_the_median_and_ignores_one_outlier() -> None:
    ratios = [0.98, 0.99, 0.99, 1.0, 1.0, 1.0, 1.01, 1.01, 1.02, 3.0]
    low, high = compute_interval(ratios)
    assert 0.98 < low <= 1.0 <= high < 1.05


def test_table_names_the_figure_that_became_slower() -> None:
    equal = Comparison("equal", [1.0] * 10, [1.0] * 10)
    slower = Comparison("slower", [1.0] * 10, [1.1] * 10)
    _, first, second = format_table([equal, slower])
    assert first.endswith("ok")
    assert "SLOWER" in second


@pytest.mark.parametrize(("new", "code"), [([1.0] * 10, 0), ([1.1] * 10, 1)])
def test_exit_code_says_if_the_new_checkout_is_slower(
    new: list[float], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(
        old: Path, new_checkout: Path, pairs: int, jobs: Sequence[RevisionJob], *, verbose: bool
    ) -> Sequence[Comparison]:
        assert jobs == list(JOBS)
        return [Comparison("a thing", [1.0] * 10, new)]

    monkeypatch.setattr(revisions, "compare_revisions", compare)
    assert revisions.main(["--old", str(ROOT)]) == code
    assert "a thing" in capsys.readouterr().out


def test_folder_without_the_package_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        revisions.main(["--old", str(tmp_path)])
    assert "does not contain the package" in capsys.readouterr().err

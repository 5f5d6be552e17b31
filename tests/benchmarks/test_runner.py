"""The runner prints, saves and draws the figures of benchmarks."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from benchmarks import runner
from benchmarks.comparison import peers
from benchmarks.suite import imports, makespan, memory
from benchmarks.support.measure import describe_machine

if TYPE_CHECKING:
    from pathlib import Path


def test_runner_saves_and_prints_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"what": "a thing", "value": 2.0, "limit": 1.0, "unit": "ms", "met": False}
    module = ModuleType("stub")
    module.measure = lambda quick: {"settings": {"quick": quick}, "thresholds": [line]}  # type: ignore[attr-defined]
    results = runner.run({"stub": module}, quick=True, out=tmp_path)
    saved = json.loads((tmp_path / "stub.json").read_text())
    assert saved == results["stub"]
    assert set(saved) == {"command", "seconds", "machine", "figures"}
    assert set(saved["machine"]) == set(describe_machine())
    assert "a thing" in capsys.readouterr().out
    assert "| a thing | 2 ms | <= 1 ms |" in (tmp_path / "table.md").read_text()


def test_command_runs_one_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "measure", lambda quick: {"thresholds": [], "cpu_ms": {}, "self_ms_by_package": {}})
    monkeypatch.setattr(imports, "describe", lambda figures: ["nothing"])
    assert runner.main(["--only", "imports", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "imports.json").exists()


@pytest.mark.parametrize("name", runner.BENCHMARKS)
def test_every_short_name_belongs_to_a_module(name: str) -> None:
    module = runner.BENCHMARKS[name]
    assert module.endswith(f".{name}")
    assert find_spec(module) is not None


def test_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    row = {"makespan_ratio": 1.0, "ideal": 1.0, "timeline": [(0.0, 1, 1), (1.0, 0, 0)]}
    makespan.draw({"cases": {"few": {"kontext_async": row, "by hand": row}}}, tmp_path / "makespan.png")
    memory.draw({"memory": {"curve": [(0, 0), (10, 4500)], "bytes_without_handles": 400.0}}, tmp_path / "memory.png")
    bars = {"cpu_ms_per_task": 1.0, "makespan_ratio": 1.0, "requests_per_task": 3.0, "delay_p95": 0.1}
    peers.draw({"cases": {"few": {"kontext_async": bars, "other": bars}}}, tmp_path / "peers.png")
    assert len(list(tmp_path.glob("*.png"))) == 3

"""The command killed with SIGKILL at random moments, and started again: `benchmarks.bulk_kill`, small."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench() -> Any:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import bulk_kill
    finally:
        sys.path.remove(str(ROOT))
    return bulk_kill


def test_killed_again_and_again(bench: Any, tmp_path: Path) -> None:
    from benchmarks.bulk_process import emulator_process

    with emulator_process("--service-time", "0.3", "--pixels", "256", "--fault", "cut-after-accept=0.05") as gateway:
        harness = bench.Harness(gateway, tmp_path, 60, 4, random.Random(3))
        kills = sum(harness.kill_at_random(1.0, 2.2) for _ in range(4))
        assert kills >= 2
        code = harness.finish(40)
        checks = bench.checks_of(harness, kills)
        assert checks == dict.fromkeys(checks, True)
        assert code in (0, 4), (tmp_path / "stderr.txt").read_text()
        assert "Traceback" not in (tmp_path / "stderr.txt").read_text()

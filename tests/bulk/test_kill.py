"""The command is killed with SIGKILL at random moments and started again: `benchmarks.soak.bulk_kill`, small."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from cli_support import ServedEmulator
from gateway_sessions import new_emulator

from benchmarks.soak.bulk_kill import Harness, run_checks
from benchmarks.support.server_process import EmulatorClient, start_emulator
from kontext_async.emulator import FaultKind, Faults

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_that_is_killed_repeatedly_loses_nothing_and_pays_once(tmp_path: Path) -> None:
    with start_emulator("--service-time", "0.3", "--pixels", "256", "--fault", "cut-after-accept=0.05") as gateway:
        harness = Harness(gateway, tmp_path, 60, 4, random.Random(3))
        kills = sum(harness.kill_at_random(0.7) for _ in range(4))
        assert kills >= 2
        code = harness.finish(40)
        checks = run_checks(harness)
        assert checks == dict.fromkeys(checks, True)
        assert code in (0, 4), (tmp_path / "stderr.txt").read_text()
        assert "Traceback" not in (tmp_path / "stderr.txt").read_text()


@pytest.mark.parametrize("name", ["vtrix-queue", "bfl"])
def test_a_run_on_another_gateway_that_is_killed_loses_nothing_and_pays_once(name: str, tmp_path: Path) -> None:
    faults = Faults({FaultKind.CUT_AFTER_ACCEPT: 0.05})
    served = ServedEmulator(new_emulator(service_time=0.3, faults=faults))
    try:
        hosts = [part for host in served.emulator.region_hosts for part in ("--trusted-host", host)]
        base_url = served.emulator.base_url_of(name)
        options = ["--gateway", name, "--base-url", base_url, *(hosts if name == "bfl" else [])]
        gateway = EmulatorClient(served.emulator.base_url)
        harness = Harness(gateway, tmp_path, 40, 4, random.Random(3), options)
        kills = sum(harness.kill_at_random(0.7) for _ in range(3))
        code = harness.finish(40)
        checks = run_checks(harness)
    finally:
        served.close()
    assert kills >= 2
    assert checks == dict.fromkeys(checks, True)
    assert code in (0, 4), (tmp_path / "stderr.txt").read_text()

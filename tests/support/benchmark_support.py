"""Small workloads for the tests of the benchmarks, and a check of the figures that a benchmark returns."""

from __future__ import annotations

import json
import math
from typing import Any

from benchmarks.servers.schedule import Workload

__all__ = ["FAST_POLLING", "FAST_WORKLOAD", "assert_valid_figures"]

FAST_WORKLOAD = Workload(median=0.02, sigma=0.1)
FAST_POLLING = {"initial_delay": 0.01, "interval": 0.01, "min_interval": 0.01}


def assert_valid_figures(figures: dict[str, Any]) -> None:
    """Assert that the runner can print and save the figures."""
    assert isinstance(figures["settings"], dict)
    assert figures["thresholds"]
    for line in figures["thresholds"]:
        assert set(line) == {"what", "value", "limit", "unit", "met"}
        assert not math.isnan(line["value"])
    json.dumps(figures)

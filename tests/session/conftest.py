"""Fixtures of the session's tests."""

from __future__ import annotations

import pytest
from emulator_support import ManualTime


@pytest.fixture
def gateway_time() -> ManualTime:
    """The clock by which the gateway's tasks end, for tests that give it to their emulator."""
    return ManualTime()

"""Helpers for the tests of your own code.

``clock``
    `ManualClock`, a clock that your test advances by hand.
``settings``
    `FAST`, settings that poll every few milliseconds.
``plugin``
    Pytest fixtures that start the emulator: ``pytest_plugins = ["kontext_async.testing.plugin"]``.
"""

from kontext_async.testing.clock import ManualClock
from kontext_async.testing.settings import FAST

__all__ = ["FAST", "ManualClock"]

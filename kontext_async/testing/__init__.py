"""For users' own tests: a clock that is turned by hand, settings that poll fast, and pytest fixtures.

The fixtures are in `kontext_async.testing.plugin`: ``pytest_plugins = ["kontext_async.testing.plugin"]``.
"""

from kontext_async.testing.clock import ManualClock
from kontext_async.testing.settings import FAST

__all__ = ["FAST", "ManualClock"]

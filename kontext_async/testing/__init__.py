"""Helpers for the tests of your own code.

``clock``
    `ManualClock`, a clock that your test advances by hand.
``settings``
    `FAST`, settings that poll every few milliseconds.
``MemoryStore``
    A store of paid work in memory, of `kontext_async.store`. `share` returns another one over the same rows, as a
    second process has it.
``plugin``
    Pytest fixtures: the emulator, settings, and a store: ``pytest_plugins = ["kontext_async.testing.plugin"]``.
"""

from kontext_async.store.memory import MemoryStore
from kontext_async.testing.clock import ManualClock
from kontext_async.testing.settings import FAST

__all__ = ["FAST", "ManualClock", "MemoryStore"]

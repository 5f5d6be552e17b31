"""What the applications of the server tests have in common.

They are the same application in aiohttp, Starlette, FastAPI and Litestar, each in a module of its own, so that a server
process imports one framework: ``POST /images`` returns an image, ``POST /tasks`` the ID of a task, and
``GET /tasks/ID/events`` its events.
"""

from __future__ import annotations

import os

import attrs

from kontext_async import KontextSession, Limits
from kontext_async.testing import FAST

__all__ = ["GRACE", "TASK_ID", "make_session"]

GRACE = float(os.environ.get("GRACE", "3"))
TASK_ID = "X-Task-ID"


def make_session() -> KontextSession:
    """Return a session with a few slots, so that requests wait for one."""
    limits = attrs.evolve(FAST.limits, max_in_flight=int(os.environ.get("MAX_IN_FLIGHT", "8")))
    assert isinstance(limits, Limits)
    return KontextSession(settings=FAST, limits=limits)

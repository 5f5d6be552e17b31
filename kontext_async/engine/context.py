"""The surroundings of the engine's parts, in one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from kontext_async.engine.clock import Clock
    from kontext_async.engine.event_hub import EventHub
    from kontext_async.settings import Settings

__all__ = ["Context"]


@frozen(kw_only=True, eq=False)
class Context:
    """The surroundings of the engine's parts.

    Attributes:
        settings: The user's settings.
        clock: The source of `now`.
        random: The source of random numbers.
        hub: Delivers events.
        start_soon: Runs a coroutine function with its arguments as a child of the owner task.
        crash: Ends the session with an error, as if a child of the owner task had raised it. Callbacks may call it.
    """

    settings: Settings
    clock: Clock
    random: Random
    hub: EventHub
    start_soon: Callable[..., None]
    crash: Callable[[Exception], None]

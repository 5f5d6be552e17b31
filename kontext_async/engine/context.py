"""What every part of the engine needs, in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from kontext_async.engine.clock import Clock
    from kontext_async.engine.hub import EventHub
    from kontext_async.settings import Settings

__all__ = ["Context"]


@frozen(kw_only=True, eq=False)
class Context:
    """The surroundings of the engine's parts.

    Attributes:
        settings: The user's settings.
        clock: Where `now` comes from.
        random: Where random numbers come from.
        hub: Where events go.
        start_soon: Runs a coroutine function with its arguments as a task of the owner's.
    """

    settings: Settings
    clock: Clock
    random: Random
    hub: EventHub
    start_soon: Callable[..., None]

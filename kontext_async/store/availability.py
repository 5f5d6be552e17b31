"""The availability of the store, by what its methods raised, and the log records about it."""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.errors import StoreError

__all__ = ["Availability", "Part", "log"]

LOGGER = logging.getLogger("kontext_async")


class Part(enum.Enum):
    """A part of a worker that uses the store."""

    STEPS = enum.auto()
    BEAT = enum.auto()


class Availability:
    """The failures of the parts of a worker. Each begin and end is logged, and reported to callbacks.

    Args:
        name: The name of the store, without a password.

    Attributes:
        on_failure: Called with the first error when the store can no longer be used.
        on_recovery: Called when it can be used again.
    """

    def __init__(self, name: str) -> None:
        self.on_failure: set[Callable[[StoreError], object]] = set()
        self.on_recovery: set[Callable[[], object]] = set()
        self._name = name
        self._errors: dict[Part, StoreError] = {}

    @property
    def failure(self) -> StoreError | None:
        """Why the store cannot be used; None if it can."""
        return next(iter(self._errors.values()), None)

    def failed(self, part: Part, error: StoreError) -> None:
        """Record that a part could not use the store."""
        was_available = not self._errors
        self._errors[part] = error
        if was_available:
            log(logging.WARNING, f"the store {self._name} cannot be used, so that nothing is submitted: {error}")
            for callback in tuple(self.on_failure):
                callback(error)

    def recovered(self, part: Part) -> None:
        """Record that a part could use the store."""
        if self._errors.pop(part, None) and not self._errors:
            log(logging.INFO, f"the store {self._name} can be used again")
            for callback in tuple(self.on_recovery):
                callback()


def log(level: int, text: str) -> None:
    """Log a text, if there is a handler: Python would print warnings on stderr."""
    if LOGGER.hasHandlers():
        LOGGER.log(level, "%s", text)

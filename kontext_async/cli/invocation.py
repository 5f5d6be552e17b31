"""What the command was called with, for commands that say how they are called again."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["invocation", "invoked_with"]

_given: ContextVar[tuple[str, ...]] = ContextVar("_given", default=())


def invoked_with(arguments: Sequence[str]) -> None:
    """Take down the arguments of the process, or of the call."""
    _given.set(tuple(arguments))


def invocation() -> tuple[str, ...]:
    """The arguments, the command's name first."""
    return _given.get()

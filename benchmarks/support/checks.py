"""Prints the checks of a soak, one line each, and returns its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["print_checks"]


def print_checks(checks: Mapping[str, bool]) -> bool:
    """Print each check and whether it passed, and return True if all did. No checks at all is a failure."""
    for text, passed in checks.items():
        print("ok    " if passed else "NOT ok", text, flush=True)
    return bool(checks) and all(checks.values())

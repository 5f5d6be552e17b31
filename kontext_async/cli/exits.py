"""What a command exits with."""

from __future__ import annotations

import sys
from enum import IntEnum

from cyclopts import CycloptsError

from kontext_async.errors import (
    AuthenticationFailed,
    ConfigurationError,
    InvalidRequest,
    PermissionDenied,
    SubmissionUncertain,
)

__all__ = ["ExitCode", "NoUsableKey", "cause_of", "exit_code_of"]


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    FAILED = 1
    MISUSED = 2
    KEY_OR_BALANCE = 3
    UNCERTAIN = 4
    INTERRUPTED = 130
    TERMINATED = 143


class NoUsableKey(ConfigurationError):
    """There is no key, or none that can be sent."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code for an error that ended a command."""
    if isinstance(error, NoUsableKey | AuthenticationFailed | PermissionDenied):
        return ExitCode.KEY_OR_BALANCE
    if isinstance(error, CycloptsError | InvalidRequest | ConfigurationError) or is_refused(error):
        return ExitCode.MISUSED
    return ExitCode.UNCERTAIN if isinstance(error, SubmissionUncertain) else ExitCode.FAILED


def is_refused(error: BaseException) -> bool:
    """Whether a durable run could not begin. What is not imported cannot have raised."""
    errors = sys.modules.get("kontext_async.bulk.errors")
    return errors is not None and isinstance(error, errors.RunRefused)


def cause_of(error: BaseException) -> BaseException:
    """What is inside a task group's exception group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

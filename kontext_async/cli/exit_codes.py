"""The exit codes of all commands, and which error leads to which."""

from __future__ import annotations

from enum import IntEnum

from cyclopts import CycloptsError

from kontext_async.errors import (
    AuthenticationFailed,
    ConfigurationError,
    PermissionDenied,
    StoreUnusable,
    SubmissionUncertain,
    UsageError,
)

__all__ = ["ExitCode", "MissingApiKey", "exit_code_for"]


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    FAILED = 1
    USAGE_ERROR = 2
    KEY_OR_BALANCE = 3
    UNCERTAIN = 4
    INTERRUPTED = 130
    TERMINATED = 143


class MissingApiKey(ConfigurationError):
    """There is no API key, or the one there is cannot be read or sent."""


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the exit code for an error that ended a command."""
    if isinstance(error, MissingApiKey | AuthenticationFailed | PermissionDenied):
        return ExitCode.KEY_OR_BALANCE
    if isinstance(error, CycloptsError | UsageError | StoreUnusable):
        return ExitCode.USAGE_ERROR
    return ExitCode.UNCERTAIN if isinstance(error, SubmissionUncertain) else ExitCode.FAILED

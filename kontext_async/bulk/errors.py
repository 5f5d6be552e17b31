"""The errors of durable runs, beside the package's own tree.

Two branches, as in `kontext_async.errors`::

    UsageError
    └── RunRefused                   the run cannot start; nothing was submitted
        └── RunLocked                another run is using the directory: pid
    KontextError
    ├── RunStopped                   the run stopped before this request was submitted; it is not billed
    └── ReportUnwritable             a report cannot be written; the images and the store are saved

A store that cannot be used is `StoreUnusable` or `StoreUnavailable` of `kontext_async.errors`.
"""

from __future__ import annotations

from kontext_async.errors import KontextError, UsageError

__all__ = ["ReportUnwritable", "RunLocked", "RunRefused", "RunStopped"]


class RunRefused(UsageError):
    """The run cannot start. Nothing was submitted, and nothing is billed."""


class RunLocked(RunRefused):
    """Another run is using the directory. Nothing was submitted.

    Attributes:
        pid: The process ID of the other run; None if it is unknown.
    """

    def __init__(self, where: str, pid: int | None) -> None:
        self.pid = pid
        by = f" (process {pid})" if pid is not None else ""
        super().__init__(f"another run is using {where}{by}: wait until it ends, or stop it")


class RunStopped(KontextError):
    """The run stopped before this request was submitted. It is not billed, and the next run submits it."""

    retryable = True


class ReportUnwritable(KontextError):
    """``results.jsonl`` or the contact sheet cannot be written. All images are saved, and the store has all results.

    `kontext-async report` writes them again.
    """

"""The errors of durable runs, beside the package's own tree.

Two branches, as in `kontext_async.errors`::

    UsageError
    └── RunRefused                   the run cannot start; nothing was submitted
        ├── RunLocked                another run is using the directory: pid
        └── JournalUnusable          the journal is missing, newer, damaged or not writable
    KontextError
    ├── JournalFailed                a step could not be written; no further requests are submitted
    ├── RunStopped                   the run stopped before this request was submitted; it is not billed
    └── CostUnknown                  there is a cost limit, and the gateway does not report what images cost
"""

from __future__ import annotations

from kontext_async.errors import KontextError, UsageError

__all__ = ["CostUnknown", "JournalFailed", "JournalUnusable", "RunLocked", "RunRefused", "RunStopped"]


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


class JournalUnusable(RunRefused):
    """The journal is missing, damaged, not writable, or was written by a newer version of this library.

    Without the journal, a run would not know which requests are already paid for; therefore nothing was submitted.
    """


class JournalFailed(KontextError):
    """The journal could not be read, or a step could not be written. No further requests are submitted.

    Tasks that the gateway has already accepted are still awaited, and their images are saved.

    Attributes:
        rows: The IDs of the rows whose steps were not written; None for all rows of the transaction.
    """

    rows: frozenset[int] | None = None


class RunStopped(KontextError):
    """The run stopped before this request was submitted. It is not billed, and the next run submits it."""

    retryable = True


class CostUnknown(KontextError):
    """The run has a cost limit, and the gateway reports the cost neither before nor after a task, or not in USD.

    No further requests are submitted, because the limit cannot be enforced.
    """

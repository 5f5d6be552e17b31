"""What durable runs raise beside the package's own tree.

Two branches, as there::

UsageError
└── RunRefused                   the run cannot begin; nothing was sent
    ├── RunLocked                another run has the directory: pid
    └── JournalUnusable          missing, newer, damaged, or not to be written
KontextError
├── JournalFailed                a step could not be written; nothing more is submitted
├── RunStopped                   the run was asked to stop before this request was sent
└── CostUnknown                  nobody says what pictures cost, and there is a limit to keep
"""

from __future__ import annotations

from kontext_async.errors import KontextError, UsageError

__all__ = ["CostUnknown", "JournalFailed", "JournalUnusable", "RunLocked", "RunRefused", "RunStopped"]


class RunRefused(UsageError):
    """The run cannot begin. Nothing was sent."""


class RunLocked(RunRefused):
    """Another run is at work in the directory.

    Attributes:
        pid: The process that it belongs to, None where that is not known.
    """

    def __init__(self, where: str, pid: int | None) -> None:
        self.pid = pid
        by = f" (process {pid})" if pid is not None else ""
        super().__init__(f"another run is at work in {where}{by}: wait for it to end, or stop it")


class JournalUnusable(RunRefused):
    """The journal is missing, was written by a newer version, is damaged, or cannot be opened for writing."""


class JournalFailed(KontextError):
    """A step could not be written into the journal. Nothing more is submitted.

    Attributes:
        rows: The ids of the rows whose steps were not written, None for all of a group.
    """

    rows: frozenset[int] | None = None


class RunStopped(KontextError):
    """The run was asked to stop before this request was sent; it is new work for the next run."""

    retryable = True


class CostUnknown(KontextError):
    """The gateway says neither before nor after what a picture costs, so that no limit can be kept."""

"""What a durable run says of its requests, one by one and summed up: plain frozen data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping  # noqa: TC003 # attrs resolves it
from decimal import Decimal
from pathlib import Path  # noqa: TC003 # as above

from attrs import define, field, frozen

from kontext_async.errors import KontextError, SubmissionUncertain  # as above
from kontext_async.models import KontextRequest  # noqa: TC001 # as above

__all__ = ["BulkOutcome", "BulkProgress", "BulkReport", "Tally", "Uncertain"]


@frozen(kw_only=True)
class BulkOutcome:
    """What became of one request of a durable run.

    Attributes:
        index: Its place in the input, from 0.
        request: The request, None where none could be made from what was passed in.
        fingerprint: The request's fingerprint, None where there is none.
        task_id: The task's id, None where the gateway did not accept one.
        files: Where its pictures are.
        cost: USD, None where the gateway did not say.
        seconds: From accepted to seen finished, None where that is not known.
        error: Why there is no picture, None where there is one.
        earlier: Whether an earlier run paid for it.
        skipped: Whether nothing was to be done: its pictures were there, or an earlier run has failed with it.
    """

    index: int
    request: KontextRequest | None
    fingerprint: str | None = None
    task_id: str | None = None
    files: tuple[Path, ...] = ()
    cost: Decimal | None = None
    seconds: float | None = None
    error: KontextError | None = field(default=None, eq=False)
    earlier: bool = False
    skipped: bool = False

    @property
    def ok(self) -> bool:
        """Whether its pictures are in their place."""
        return self.error is None


@frozen(kw_only=True)
class Uncertain:
    """A request of which nobody knows whether the gateway accepted it.

    Attributes:
        index: Its place in the latest input that had it, from 0.
        fingerprint: The request's fingerprint.
        prompt: The prompt.
    """

    index: int
    fingerprint: str
    prompt: str


@frozen(kw_only=True)
class BulkProgress:
    """The figures of a run at one moment.

    Attributes:
        read: Requests that were read from the input.
        done: Requests whose pictures are in their place, those of earlier runs included.
        skipped: Those of them that an earlier run had finished.
        in_flight: Requests that are submitted and not finished.
        failed: Requests that failed, and those that are uncertain.
        spent: USD that this run has spent, as far as the gateway said.
    """

    read: int = 0
    done: int = 0
    skipped: int = 0
    in_flight: int = 0
    failed: int = 0
    spent: Decimal = Decimal(0)


@frozen(kw_only=True)
class BulkReport:
    """What became of a run. Each request that was read is in one of the first six figures.

    Attributes:
        finished: Requests that were paid for and saved.
        fetched: Requests that earlier runs had paid for, and whose pictures were saved now.
        skipped: Requests that earlier runs had finished, and whose pictures were there.
        failed: By cause, requests that failed, be it in an earlier run.
        doubted: Requests of the input that are uncertain.
        left: Requests that are not finished: not submitted, or accepted and not waited for. The next run goes on.
        total: Requests that were read from the input.
        uncertain: Requests of which nobody knows whether they were accepted, those of earlier inputs included.
        orphans: Paid requests that this input has no more, and whose pictures were saved now.
        unwritten: The ids of tasks that are paid for and that the journal could not take down, when it failed.
        spent: USD that this run has spent, as far as the gateway said.
        saved: USD that earlier runs had paid for what did not have to be paid for again.
        spent_in_all: USD that all runs in the directory have spent.
        seconds: How long it took.
        stopped: Why nothing more was submitted before the end of the input, None where that was reached.
    """

    finished: int
    fetched: int
    skipped: int
    failed: Mapping[str, int]
    doubted: int
    left: int
    total: int
    uncertain: tuple[Uncertain, ...]
    orphans: int
    unwritten: tuple[str, ...] = ()
    spent: Decimal
    saved: Decimal
    spent_in_all: Decimal
    seconds: float
    stopped: KontextError | None = field(default=None, eq=False)

    @property
    def complete(self) -> bool:
        """Whether every request of the input has its pictures in their place."""
        return self.finished + self.fetched + self.skipped == self.total and self.stopped is None


@define
class Tally:
    """Counts outcomes while a run goes on."""

    read: int = 0
    finished: int = 0
    fetched: int = 0
    skipped: int = 0
    doubted: int = 0
    orphans: int = 0
    failed: Counter[str] = field(factory=Counter)
    spent: Decimal = Decimal(0)
    saved: Decimal = Decimal(0)

    def add(self, outcome: BulkOutcome) -> None:
        """Count one."""
        if isinstance(outcome.error, SubmissionUncertain):
            self.doubted += 1
        elif outcome.error:
            self.failed[type(outcome.error).__name__] += 1
        elif outcome.skipped:
            self.skipped += 1
        elif outcome.earlier:
            self.fetched += 1
        else:
            self.finished += 1
        if outcome.earlier and outcome.ok:
            self.saved += outcome.cost or 0

    @property
    def done(self) -> int:
        """Requests whose pictures are in their place."""
        return self.finished + self.fetched + self.skipped

    @property
    def ended(self) -> int:
        """Requests that have come to an end."""
        return self.done + self.doubted + self.failed.total()

"""The results of a durable run, per request and in total, and the prediction of one: plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping  # noqa: TC003 # attrs resolves it
from decimal import Decimal
from pathlib import Path  # noqa: TC003 # as above

from attrs import define, field, frozen

from kontext_async.decisions.budget import PriceKind  # noqa: TC001 # as above
from kontext_async.errors import KontextError, SubmissionUncertain  # as above
from kontext_async.models import KontextRequest  # noqa: TC001 # as above

__all__ = ["BulkOutcome", "BulkProgress", "BulkReport", "RunCounts", "RunPlan", "UncertainRequest"]


@frozen(kw_only=True)
class BulkOutcome:
    """The outcome of one request of a durable run.

    Attributes:
        index: The position of the request in the input, from 0.
        request: The request; None if the input item was not a valid request.
        fingerprint: The fingerprint of the request; None if the input item was not a valid request.
        task_id: The task ID; None if the gateway did not accept the request.
        files: The paths of the saved images in the directory of this run; none if another worker of a shared run saved
            them in its own.
        cost: USD; None if the gateway did not report the cost.
        seconds: Seconds from acceptance until the run detected completion; None if unknown.
        error: The reason why there is no image; None if the images are saved.
        from_earlier_run: True if an earlier run, or another worker of a shared run, submitted the request and paid for
            it.
        skipped: True if this run did nothing for the request: its images were already saved, or it was left failed or
            uncertain elsewhere.
    """

    index: int
    request: KontextRequest | None
    fingerprint: str | None = None
    task_id: str | None = None
    files: tuple[Path, ...] = ()
    cost: Decimal | None = None
    seconds: float | None = None
    error: KontextError | None = field(default=None, eq=False)
    from_earlier_run: bool = False
    skipped: bool = False

    @property
    def ok(self) -> bool:
        """True if all images of the request are saved."""
        return self.error is None


@frozen(kw_only=True)
class UncertainRequest:
    """A request that was sent, without a response that shows whether the gateway accepted it. It may be billed.

    Attributes:
        index: The position of the request in the latest input that contained it, from 0.
        fingerprint: The fingerprint of the request.
        prompt: The prompt.
    """

    index: int
    fingerprint: str
    prompt: str


@frozen(kw_only=True)
class BulkProgress:
    """The current figures of a run.

    Attributes:
        read: Requests read from the input so far.
        done: Requests whose images are saved, including those of earlier runs.
        skipped: Those of `done` that an earlier run had already completed.
        in_flight: Requests that are submitted and not yet completed.
        failed: Failed and uncertain requests.
        spent: USD spent by this run, as far as the gateway reported costs.
    """

    read: int = 0
    done: int = 0
    skipped: int = 0
    in_flight: int = 0
    failed: int = 0
    spent: Decimal = Decimal(0)


@frozen(kw_only=True)
class BulkReport:
    """The final figures of a run.

    Every request read from the input is counted in exactly one of `completed`, `recovered`, `skipped`, `failed`,
    `uncertain_in_input` and `remaining`.

    Attributes:
        completed: Requests that this run paid for and saved.
        recovered: Requests that earlier runs had paid for, and whose images this run saved.
        skipped: Requests that earlier runs had completed, and whose images were intact, or that other workers of a
            shared run completed.
        failed: Failed requests by the class name of the error, including those that failed in an earlier run.
        uncertain_in_input: Uncertain requests of this input.
        remaining: Requests that are not completed yet: not submitted, or accepted and still running. The next run
            resumes them.
        total: Requests read from the input.
        uncertain: All uncertain requests of the run, including those of earlier inputs.
        orphans: Paid requests missing from this input whose images were recovered.
        unjournaled_task_ids: IDs of paid tasks that neither the store nor the spool beside it could record; references
            where an ID is not enough. Note them: the next run does not know them.
        spent: USD spent by this run, as far as the gateway reported costs.
        cost_avoided: USD paid by earlier runs for images that this run did not have to pay for again.
        total_spent: USD spent by all executions and workers of the run.
        seconds: Duration of the run.
        stopped: The reason why requests remain: submitting stopped, or they met an error that was not theirs. None if
            the run reached the end of the input with an outcome for each request.
    """

    completed: int
    recovered: int
    skipped: int
    failed: Mapping[str, int]
    uncertain_in_input: int
    remaining: int
    total: int
    uncertain: tuple[UncertainRequest, ...]
    orphans: int
    unjournaled_task_ids: tuple[str, ...] = ()
    spent: Decimal
    cost_avoided: Decimal
    total_spent: Decimal
    seconds: float
    stopped: KontextError | None = field(default=None, eq=False)

    @property
    def complete(self) -> bool:
        """True if the images of every request of the input are saved."""
        return self.completed + self.recovered + self.skipped == self.total and self.stopped is None


@define
class RunCounts:
    """The figures of a run, updated with each outcome."""

    read: int = 0
    completed: int = 0
    recovered: int = 0
    skipped: int = 0
    uncertain: int = 0
    orphans: int = 0
    failed: Counter[str] = field(factory=Counter)
    spent: Decimal = Decimal(0)
    cost_avoided: Decimal = Decimal(0)

    def add(self, outcome: BulkOutcome) -> None:
        """Count one outcome."""
        if isinstance(outcome.error, SubmissionUncertain):
            self.uncertain += 1
        elif outcome.error:
            self.failed[type(outcome.error).__name__] += 1
        elif outcome.skipped:
            self.skipped += 1
        elif outcome.from_earlier_run:
            self.recovered += 1
        else:
            self.completed += 1
        if outcome.from_earlier_run and outcome.ok:
            self.cost_avoided += outcome.cost or 0

    @property
    def done(self) -> int:
        """Requests whose images are saved."""
        return self.completed + self.recovered + self.skipped

    @property
    def ended(self) -> int:
        """Requests that need no more work in this run."""
        return self.done + self.uncertain + self.failed.total()


@define
class RunPlan:
    """The prediction of a run: the requests that it would submit, recover and skip, and the cost.

    Attributes:
        total: Requests in the input.
        to_submit: Requests that the run would submit and pay for.
        to_recover: Paid requests whose images the run would download.
        to_skip: Requests whose images are already saved.
        elsewhere: Requests that other workers of a shared run are submitting or waiting for.
        uncertain: Uncertain requests that the run would not resubmit.
        failed: Failed and expired requests that the run would not resubmit.
        invalid: Items of the input that are not valid requests.
        kinds: The requests to submit, counted by the model and the number of input images, which set the price.
        prices: USD for one request of a kind, as far as it is known.
        spent: USD spent by earlier runs.
    """

    total: int = 0
    to_submit: int = 0
    to_recover: int = 0
    to_skip: int = 0
    elsewhere: int = 0
    uncertain: int = 0
    failed: int = 0
    invalid: int = 0
    kinds: Counter[PriceKind] = field(factory=Counter)
    prices: dict[PriceKind, Decimal] = field(factory=dict)
    spent: Decimal = Decimal(0)

    @property
    def cost(self) -> Decimal | None:
        """USD that the submissions would cost; None if a price is unknown."""
        if any(kind not in self.prices for kind in self.kinds):
            return None
        return sum((self.prices[kind] * count for kind, count in self.kinds.items()), Decimal(0))

    def lines(self) -> Iterator[str]:
        """Yield the plan as lines of text."""
        yield f"{self.total} request{'' if self.total == 1 else 's'}"
        cost = "cost unknown" if self.cost is None else f"about {self.cost} USD"
        yield f"{self.to_submit} to submit, {cost}"
        others = (
            (self.to_recover, "already paid for; images will be downloaded at no extra cost"),
            (self.to_skip, "already completed; skipped"),
            (self.elsewhere, "in progress with other workers"),
            (self.uncertain, "uncertain; not resubmitted without --resend-uncertain, which may be billed twice"),
            (self.failed, "failed or expired; not resubmitted without --retry-failed"),
            (self.invalid, "invalid; cannot be submitted"),
        )
        for count, text in others:
            if count:
                yield f"{count} {text}"
        if self.spent:
            yield f"{self.spent} USD spent by earlier runs"

"""Predicts the submissions and the cost of a run. Nothing is written, submitted or billed."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, field

from kontext_async.bulk.budget import price_kind
from kontext_async.bulk.entries import InputRequest
from kontext_async.bulk.intake import InputReader
from kontext_async.bulk.journal import Journal
from kontext_async.bulk.lock import DirectoryLock
from kontext_async.bulk.opening import has_run
from kontext_async.bulk.states import Action, Policy, State
from kontext_async.bulk.targets import is_present
from kontext_async.errors import KontextError
from kontext_async.images import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from kontext_async.bulk.budget import PriceKind
    from kontext_async.bulk.intake import Requests
    from kontext_async.models import KontextRequest
    from kontext_async.session import KontextSession

__all__ = ["RunPlan", "plan_run"]


@define
class RunPlan:
    """The prediction of a run: the requests that it would submit, recover and skip, and the cost.

    Attributes:
        total: Requests in the input.
        to_submit: Requests that the run would submit and pay for.
        to_recover: Paid requests whose images the run would download.
        to_skip: Requests whose images are already saved.
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
            (self.uncertain, "uncertain; not resubmitted without --resend-uncertain, which may be billed twice"),
            (self.failed, "failed or expired; not resubmitted without --retry-failed"),
            (self.invalid, "invalid; cannot be submitted"),
        )
        for count, text in others:
            if count:
                yield f"{count} {text}"
        if self.spent:
            yield f"{self.spent} USD spent by earlier runs"


async def plan_run(
    requests: Requests,
    directory: Path,
    *,
    session: KontextSession | None = None,
    url: str | None = None,
    resend_uncertain: bool = False,
    retry_failed: bool = False,
) -> RunPlan:
    """Predict a run. Nothing is submitted, written or billed.

    Args:
        requests: As for `BulkRun.outcomes`.
        directory: The run's directory; it is not created.
        session: The session that requests cost estimates; None uses only the prices of earlier runs.
        url: The URL of the journal's database; None is SQLite in the directory.
        resend_uncertain: As for `BulkRun`.
        retry_failed: As for `BulkRun`.

    Returns:
        The prediction.

    Raises:
        RunRefused: The run could not start.
        JournalFailed: The journal cannot be read.
    """
    directory = Path.cwd() / directory
    policy = Policy(resend_uncertain=resend_uncertain, retry_failed=retry_failed)
    plan = RunPlan()
    limit = session.settings.limits.max_image_bytes if session else MAX_IMAGE_BYTES
    intake = InputReader(requests, limit)
    async with _journal(directory, url) as journal:
        standing = await journal.standing()
        plan.spent = standing.spent
        for kind, cost in standing.costs:
            plan.prices[kind] = max(cost, plan.prices.get(kind, cost))
        estimated: set[PriceKind] = set()
        while chunk := await intake.next():
            entries = [each for each in chunk if isinstance(each, InputRequest)]
            plan.total += len(chunk)
            plan.invalid += len(chunk) - len(entries)
            rows = await journal.take(entries)
            present = await anyio.to_thread.run_sync(lambda: [is_present(directory, row) for row in rows])  # noqa: B023 # awaited
            for entry, row, there in zip(entries, rows, present, strict=True):
                _add(plan, policy.action(row.state, files_present=there), row.state, entry.request)
                if price_kind(entry.request) in plan.kinds.keys() - estimated and session:
                    estimated.add(price_kind(entry.request))
                    await _estimate_price(plan, session, entry.request)
    return plan


def _add(plan: RunPlan, action: Action, state: State, request: KontextRequest) -> None:
    match action:
        case Action.SUBMIT:
            plan.to_submit += 1
            plan.kinds[price_kind(request)] += 1
        case Action.FETCH:
            plan.to_recover += 1
        case Action.SKIP:
            plan.to_skip += 1
        case Action.REPORT if state is State.INTENT:
            plan.uncertain += 1
        case Action.REPORT:
            plan.failed += 1


async def _estimate_price(plan: RunPlan, session: KontextSession, request: KontextRequest) -> None:
    try:
        estimate = await session.estimate(request)
    except KontextError:
        return
    if estimate.cost is not None:
        plan.prices[price_kind(request)] = estimate.cost


@asynccontextmanager
async def _journal(directory: Path, url: str | None) -> AsyncGenerator[Journal, None]:
    """Open the run's journal without keeping changes; if there is none, open an empty temporary one."""
    begun = await anyio.to_thread.run_sync(has_run, directory)
    scratch = None if begun else await anyio.to_thread.run_sync(tempfile.TemporaryDirectory)
    place = Path(scratch.name) if scratch else directory
    lock = await anyio.to_thread.run_sync(lambda: DirectoryLock(place).acquire())
    try:
        journal = await Journal.open(place, url=url if begun else None, must_exist=begun, dry=True)
        try:
            yield journal
        finally:
            with anyio.CancelScope(shield=True):
                await journal.aclose()
    finally:
        lock.release()
        if scratch:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(scratch.cleanup)

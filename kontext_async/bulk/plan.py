"""What a run would do and cost, found out without writing, submitting or paying anything."""

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
from kontext_async.bulk.entries import Entry
from kontext_async.bulk.intake import Intake
from kontext_async.bulk.journal import Journal
from kontext_async.bulk.lock import DirectoryLock
from kontext_async.bulk.opening import was_begun
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

__all__ = ["Plan", "made_plan"]


@define
class Plan:
    """What a run would do.

    Attributes:
        total: Requests in the input.
        submit: Those that would be submitted.
        fetch: Those that are paid for, and whose pictures would be fetched.
        skip: Those whose pictures are there.
        uncertain: Those that would be left as they are, since nobody knows whether they were accepted.
        failed: Those that would be left as they are, since they have failed or expired.
        wrong: Those of which no request can be made.
        kinds: What would be submitted, by what prices depend on.
        prices: USD for one of a kind, as far as that is known.
        spent: USD that earlier runs have spent.
    """

    total: int = 0
    submit: int = 0
    fetch: int = 0
    skip: int = 0
    uncertain: int = 0
    failed: int = 0
    wrong: int = 0
    kinds: Counter[PriceKind] = field(factory=Counter)
    prices: dict[PriceKind, Decimal] = field(factory=dict)
    spent: Decimal = Decimal(0)

    @property
    def cost(self) -> Decimal | None:
        """USD that submitting would cost, None where a price is not known."""
        if any(kind not in self.prices for kind in self.kinds):
            return None
        return sum((self.prices[kind] * count for kind, count in self.kinds.items()), Decimal(0))

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        yield f"{self.total} requests"
        cost = "nobody knows what they cost" if self.cost is None else f"about {self.cost} USD"
        yield f"{self.submit} to submit, {cost}"
        left = (
            (self.fetch, "paid for, to be fetched"),
            (self.skip, "finished, to be skipped"),
            (self.uncertain, "uncertain, to be left; --resend-uncertain submits them"),
            (self.failed, "failed, to be left; --retry-failed submits them"),
            (self.wrong, "that cannot be made"),
        )
        for count, words in left:
            if count:
                yield f"{count} {words}"
        if self.spent:
            yield f"{self.spent} USD spent by earlier runs"


async def made_plan(
    requests: Requests,
    directory: Path,
    *,
    session: KontextSession | None = None,
    url: str | None = None,
    resend_uncertain: bool = False,
    retry_failed: bool = False,
) -> Plan:
    """Find out what a run would do.

    Args:
        requests: As for `BulkRun.outcomes`.
        directory: The run's directory; it is not made.
        session: What is asked for prices; None leaves it at those that were seen.
        url: The journal's database.
        resend_uncertain: As for `BulkRun`.
        retry_failed: As for `BulkRun`.

    Raises:
        RunRefused: The run could not begin.
        JournalFailed: The journal cannot be read.
    """
    policy = Policy(resend_uncertain=resend_uncertain, retry_failed=retry_failed)
    plan = Plan()
    limit = session.settings.limits.max_image_bytes if session else MAX_IMAGE_BYTES
    intake = Intake(requests, limit)
    async with _journal(directory, url) as journal:
        standing = await journal.standing()
        plan.spent = standing.spent
        for kind, cost in standing.costs:
            plan.prices[kind] = max(cost, plan.prices.get(kind, cost))
        asked: set[PriceKind] = set()
        while chunk := await intake.next():
            entries = [each for each in chunk if isinstance(each, Entry)]
            plan.total += len(chunk)
            plan.wrong += len(chunk) - len(entries)
            rows = await journal.take(entries)
            present = await anyio.to_thread.run_sync(lambda: [is_present(directory, row) for row in rows])  # noqa: B023 # awaited
            for entry, row, there in zip(entries, rows, present, strict=True):
                _add(plan, policy.action(row.state, files_present=there), row.state, entry.request)
                if price_kind(entry.request) in plan.kinds.keys() - asked and session:
                    asked.add(price_kind(entry.request))
                    await _ask_price(plan, session, entry.request)
    return plan


def _add(plan: Plan, action: Action, state: State, request: KontextRequest) -> None:
    match action:
        case Action.SUBMIT:
            plan.submit += 1
            plan.kinds[price_kind(request)] += 1
        case Action.FETCH:
            plan.fetch += 1
        case Action.SKIP:
            plan.skip += 1
        case Action.LIST if state is State.INTENT:
            plan.uncertain += 1
        case Action.LIST:
            plan.failed += 1


async def _ask_price(plan: Plan, session: KontextSession, request: KontextRequest) -> None:
    try:
        estimate = await session.estimate(request)
    except KontextError:
        return
    if estimate.cost is not None:
        plan.prices[price_kind(request)] = estimate.cost


@asynccontextmanager
async def _journal(directory: Path, url: str | None) -> AsyncGenerator[Journal, None]:
    """The run's journal, of which nothing is kept; that of an empty run, where there is none."""
    begun = await anyio.to_thread.run_sync(was_begun, directory)
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

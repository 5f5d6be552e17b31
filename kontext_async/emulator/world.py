"""The accounts, limits, tasks and bills of the gateway. Pure: no I/O, no clock, no await.

Every method gets `now` in unix seconds, and random numbers where it needs some. The rules:

- A task's end is decided when it is accepted; its phase at any time follows from `now`.
- A create request is billed when it is accepted, and only then. A task that will fail is not billed, unless
  `AccountLimits.bill_failed` says so; a cancelled task is, unless `AccountLimits.bill_cancelled` says otherwise.
- A moderated task is never billed.
- A task belongs to the key that created it; to every other key it is unknown. It lives in one region.
"""

from __future__ import annotations

import heapq
import math
from decimal import Decimal
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import define, evolve, field, frozen

from kontext_async.emulator.fault_kinds import FaultKind
from kontext_async.emulator.ledger import ZERO

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.validation import CreateRequest

ID_LETTERS = "0123456789abcdefghijklmnopqrstuv"
ID_LENGTH = 20
CANCELLED = "CANCELLED"
SEED_BITS = 32
UUID_BITS = 128


class TaskPhase(StrEnum):
    """The phase of a task at some time."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


@frozen(kw_only=True)
class Refusal:
    """An error response that refuses a request.

    Attributes:
        status: The HTTP status.
        code: The error's code.
        message: The error's message.
        retry_after: Seconds to wait; None for no Retry-After.
        field: The path of the field that breaks a rule; empty for none.
    """

    status: int
    code: str
    message: str
    retry_after: float | None = None
    field: str = ""


@frozen(kw_only=True)
class AccountLimits:
    """The limits and the prices of every account.

    Attributes:
        max_tasks: Unfinished tasks at once; None for no limit.
        max_tasks_by_model: Unfinished tasks at once of the models that have a limit of their own.
        requests_per_second: API requests per second, with bursts of as many (of one at least); None for no
            limit.
        balance: The amount that an account can spend, in USD; None for no limit.
        price: USD per task before the discount.
        discount: The factor on the price.
        bill_failed: Whether tasks that fail are billed too.
        bill_cancelled: Whether tasks that are cancelled stay billed.
    """

    max_tasks: int | None = None
    max_tasks_by_model: Mapping[str, int] = field(factory=dict)
    requests_per_second: float | None = None
    balance: Decimal | None = None
    price: Decimal = Decimal("0.04")
    discount: float = 1.0
    bill_failed: bool = False
    bill_cancelled: bool = True

    @property
    def cost(self) -> Decimal:
        """The cost of one task, in USD."""
        return (self.price * Decimal(str(self.discount))).normalize()


@frozen(kw_only=True)
class PlannedOutcome:
    """The outcome of a task, decided when it is accepted.

    Attributes:
        failure: Code and message, when the task fails.
        hangs: Whether the task never ends.
        failed_status: The status text of the failed task.
        at_once: Whether the task has ended as soon as it is accepted.
        known_after: Seconds from acceptance until the task is known.
        known_until: Seconds from acceptance until the task is forgotten.
        moderated: The stage at which the task is moderated, `request` or `content`; empty for none.
    """

    failure: tuple[str, str] | None = None
    failed_status: str = "failed"
    hangs: bool = False
    at_once: bool = False
    known_after: float = 0.0
    known_until: float = math.inf
    moderated: str = ""


ORDINARY = PlannedOutcome()
FAILURE = ("002014001", "generation failed")
"""The code and the message of a failed task, unless the fault sets others."""

MODERATION_REASON = "Protected Content"


def plan_outcome(fault: Fault | None) -> PlannedOutcome:
    """Return the outcome of the task of a create request with that fault."""
    if fault is None:
        return ORDINARY
    failure = (fault.code or FAILURE[0], fault.message or FAILURE[1])
    seconds = fault.seconds or 0.0
    outcomes = {
        FaultKind.TASK_FAILS: PlannedOutcome(failure=failure),
        FaultKind.TASK_ENDS_ODDLY: PlannedOutcome(failure=failure, failed_status=fault.variant or "failed"),
        FaultKind.FAILED_AT_ONCE: PlannedOutcome(failure=failure, at_once=True),
        FaultKind.COMPLETED_AT_ONCE: PlannedOutcome(at_once=True),
        FaultKind.TASK_HANGS: PlannedOutcome(hangs=True),
        FaultKind.TASK_MODERATED: PlannedOutcome(
            failure=(fault.code or "CONTENT_POLICY", fault.message or MODERATION_REASON),
            moderated=fault.variant or "content",
            at_once=fault.variant == "request",
        ),
        FaultKind.TASK_LATE: PlannedOutcome(known_after=seconds),
        FaultKind.TASK_VANISHES: PlannedOutcome(known_until=seconds),
    }
    return outcomes.get(fault.kind, ORDINARY)


@define(kw_only=True)
class Task:
    """One accepted create request.

    Attributes:
        id: Its ID.
        key: The key that created it.
        request: The create request.
        seed: The seed in use, chosen by the server when the request has none.
        width: The image's width in pixels.
        height: The image's height in pixels.
        created_at: The time of its acceptance, unix seconds.
        finish_at: The time of its end, unix seconds; infinite when it hangs.
        planned_seconds: Its planned duration in seconds.
        planned_outcome: Its planned outcome.
        cost: The amount billed for it, in USD.
        region: The number of the region that has it.
    """

    id: str
    key: str
    request: CreateRequest
    seed: int
    width: int
    height: int
    created_at: float
    finish_at: float
    planned_seconds: float
    planned_outcome: PlannedOutcome
    cost: Decimal
    region: int = 0

    def phase_at(self, now: float) -> TaskPhase:
        """Return the phase at `now`."""
        if now < self.finish_at:
            return TaskPhase.IN_PROGRESS
        return TaskPhase.COMPLETED if self.planned_outcome.failure is None else TaskPhase.FAILED

    def progress_at(self, now: float, noise: float = 0.0) -> float:
        """Return the progress at `now`, linear in time plus `noise`, between 0 and 0.99."""
        share = (now - self.created_at) / self.planned_seconds if self.planned_seconds else 0.0
        return round(min(max(share + noise, 0.0), 0.99), 4)

    def is_known(self, now: float) -> bool:
        """Return whether the gateway knows the task at `now`."""
        return self.planned_outcome.known_after <= now - self.created_at < self.planned_outcome.known_until


class UnfinishedTasks:
    """Counts unfinished tasks, with a heap of their finish times, so that a request costs O(log n)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._finish_at: dict[str, float] = {}

    def add(self, task: Task) -> None:
        """Count a task until it finishes; if it is counted already, until its new time."""
        heapq.heappush(self._heap, (task.finish_at, task.id))
        self._finish_at[task.id] = task.finish_at

    def count(self, now: float) -> int:
        """Return the number of unfinished tasks at `now`."""
        while self._heap and self._heap[0][0] <= now:
            finish_at, task_id = heapq.heappop(self._heap)
            if self._finish_at.get(task_id) == finish_at:
                del self._finish_at[task_id]
        return len(self._finish_at)


@define(kw_only=True)
class Account:
    """The gateway's record of one key."""

    key: str = field(repr=False)
    balance: Decimal | None
    tokens: float
    tokens_at: float
    _all: UnfinishedTasks = field(factory=UnfinishedTasks, init=False, repr=False)
    _by_model: dict[str, UnfinishedTasks] = field(factory=dict, init=False, repr=False)

    def add(self, task: Task) -> None:
        """Count a task until it finishes; if it is counted already, until its new time."""
        self._all.add(task)
        self._by_model.setdefault(task.request.model, UnfinishedTasks()).add(task)

    def count_unfinished(self, now: float, model: str | None = None) -> int:
        """Return the number of unfinished tasks at `now`, of all models or of one."""
        counted = self._all if model is None else self._by_model.get(model)
        return 0 if counted is None else counted.count(now)


class World:
    """All accounts and tasks of one emulator."""

    def __init__(self, limits: AccountLimits) -> None:
        self.limits = limits
        self.cost = limits.cost
        self._accounts: dict[str, Account] = {}
        self._tasks: dict[str, Task] = {}

    def get_account(self, key: str, now: float) -> Account:
        """Return the account of a key; create it when the key is new."""
        account = self._accounts.get(key)
        if account is None:
            account = Account(key=key, balance=self.limits.balance, tokens=self._burst, tokens_at=now)
            self._accounts[key] = account
        return account

    @property
    def _burst(self) -> float:
        return max(1.0, self.limits.requests_per_second or 0.0)

    def throttle(self, account: Account, now: float) -> Refusal | None:
        """Count one API request of the account; return a refusal when it exceeds the rate limit."""
        rate = self.limits.requests_per_second
        if rate is None:
            return None
        elapsed = max(0.0, now - account.tokens_at)
        account.tokens = min(self._burst, account.tokens + elapsed * rate)
        account.tokens_at = now
        if account.tokens < 1:
            wait = (1 - account.tokens) / rate
            message = f"more than {rate:g} requests per second"
            status = HTTPStatus.TOO_MANY_REQUESTS
            return Refusal(status=status, code="RATE_LIMIT_EXCEEDED", message=message, retry_after=wait)
        account.tokens -= 1
        return None

    def admit(self, account: Account, now: float, model: str = "") -> Refusal | None:
        """Check that the account can start a task of a model at `now`; return a refusal when it cannot."""
        for most, counted in ((self.limits.max_tasks, None), (self.limits.max_tasks_by_model.get(model), model)):
            if most is not None and account.count_unfinished(now, counted) >= most:
                message = f"too many unfinished tasks: at most {most} at once"
                return Refusal(status=HTTPStatus.TOO_MANY_REQUESTS, code="TASK_LIMIT_EXCEEDED", message=message)
        if account.balance is not None and account.balance < self.cost:
            message = f"balance too low: {account.balance} USD left, {self.cost} USD needed"
            return Refusal(status=HTTPStatus.FORBIDDEN, code="INSUFFICIENT_BALANCE", message=message)
        return None

    def accept(
        self,
        account: Account,
        request: CreateRequest,
        *,
        sides: tuple[int, int],
        seconds: float,
        outcome: PlannedOutcome,
        now: float,
        rng: random.Random,
        region: int = 0,
        has_uuid: bool = False,
    ) -> Task:
        """Create a task of `seconds` duration, and bill it. Call `admit` before."""
        planned_seconds = 0.0 if outcome.at_once else seconds
        is_free = outcome.moderated or (outcome.failure is not None and not self.limits.bill_failed)
        task = Task(
            id=self._generate_id(rng, has_uuid=has_uuid),
            key=account.key,
            request=request,
            seed=rng.getrandbits(SEED_BITS) if request.seed is None else request.seed,
            width=sides[0],
            height=sides[1],
            created_at=now,
            finish_at=math.inf if outcome.hangs else now + planned_seconds,
            planned_seconds=planned_seconds,
            planned_outcome=outcome,
            cost=ZERO if is_free else self.cost,
            region=region,
        )
        self._tasks[task.id] = task
        if task.finish_at > now:
            account.count_unfinished(now)  # which drops the finished tasks
            account.add(task)
        self._charge(account, task.cost)
        return task

    def bill(self, account: Account) -> Decimal:
        """Bill the account for one more task, and return the amount."""
        self._charge(account, self.cost)
        return self.cost

    @staticmethod
    def _charge(account: Account, cost: Decimal) -> None:
        if account.balance is not None:
            account.balance -= cost

    def _generate_id(self, rng: random.Random, *, has_uuid: bool) -> str:
        if has_uuid:
            task_id = str(UUID(int=rng.getrandbits(UUID_BITS), version=4))
        else:
            bits = rng.getrandbits(5 * ID_LENGTH)
            task_id = "".join([ID_LETTERS[bits >> shift & 31] for shift in range(0, 5 * ID_LENGTH, 5)])
        return task_id if task_id not in self._tasks else self._generate_id(rng, has_uuid=has_uuid)

    def find(self, task_id: str, key: str, now: float) -> Task | None:
        """Return the task of that ID, when it is known at `now` and belongs to `key`."""
        task = self._tasks.get(task_id)
        if task is None or task.key != key or not task.is_known(now):
            return None
        return task

    def find_latest(self, key: str, digest: str | None) -> Task | None:
        """Return the latest task of a key, of all its requests or of those with that `digest`."""
        candidates = (task for task in reversed(self._tasks.values()) if task.key == key)
        return next((task for task in candidates if digest in (None, task.request.digest)), None)

    def find_of_any_key(self, task_id: str) -> Task | None:
        """Return the task of that ID regardless of its key: the files origin requires no key."""
        return self._tasks.get(task_id)

    def cancel(self, task: Task, now: float, *, after: float = 0.0) -> bool:
        """End a task as failed; return False when it has already ended.

        Args:
            task: The task.
            now: The present time.
            after: Seconds until it ends. If it ends by itself before, it was not cancelled.
        """
        if task.phase_at(now) is not TaskPhase.IN_PROGRESS:
            return False
        if now + after < task.finish_at:
            task.finish_at = now + after
            task.planned_outcome = evolve(task.planned_outcome, failure=(CANCELLED, "the task was cancelled"))
            account = self._accounts[task.key]
            account.add(task)
            if not self.limits.bill_cancelled:
                self._charge(account, -task.cost)
                task.cost = ZERO
        return True

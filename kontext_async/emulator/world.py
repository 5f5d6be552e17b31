"""The gateway's side of things: accounts, limits, tasks and bills. Pure: no I/O, no clock, no await.

Every method takes `now` in unix seconds, and random numbers where it needs some. The rules:

- A task's end is decided when it is accepted; what it is at any time follows from `now`.
- A create is billed when it is accepted, and only then. A task that will fail is not billed, unless
  `Limits.bill_failed` says so; a cancelled one is.
- A task belongs to the key that made it; to every other key it is unknown.
"""

from __future__ import annotations

import heapq
import math
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

import attrs

from kontext_async.emulator.kinds import FaultKind
from kontext_async.emulator.ledger import NOTHING

if TYPE_CHECKING:
    import random

    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.validation import CreateRequest

_ID_LETTERS = "0123456789abcdefghijklmnopqrstuv"
_ID_LENGTH = 20
_SEED_BITS = 32


class State(StrEnum):
    """What a task is at a time."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class Refusal:
    """An answer that says no. `retry_after` is in seconds."""

    status: int
    code: str
    message: str
    retry_after: float | None = None


@attrs.frozen(kw_only=True)
class Limits:
    """What an account may do, and what it pays.

    Attributes:
        max_tasks: Unfinished tasks at once; None for no limit.
        requests_per_second: API requests per second, with bursts of as many (of one at least); None for no
            limit.
        balance: What an account has to spend, in USD; None for no limit.
        price: USD per task before the discount.
        discount: The factor on the price.
        bill_failed: Whether tasks that fail are billed too.
    """

    max_tasks: int | None = None
    requests_per_second: float | None = None
    balance: Decimal | None = None
    price: Decimal = Decimal("0.04")
    discount: float = 1.0
    bill_failed: bool = False

    @property
    def cost(self) -> Decimal:
        """What one task costs, in USD."""
        return (self.price * Decimal(str(self.discount))).normalize()


@attrs.frozen(kw_only=True)
class Fate:
    """What becomes of a task besides its time.

    Attributes:
        failure: Code and message, when it fails.
        hangs: Whether it never finishes.
        at_once: Whether it is finished as soon as it is accepted.
        known_after: Seconds from acceptance until it is known.
        known_until: Seconds from acceptance until it is forgotten.
    """

    failure: tuple[str, str] | None = None
    hangs: bool = False
    at_once: bool = False
    known_after: float = 0.0
    known_until: float = math.inf


ORDINARY = Fate()


def fate_of(fault: Fault | None) -> Fate:
    """The fate that a fault brings to the task of the create that met it."""
    if fault is None:
        return ORDINARY
    failure, seconds = (fault.code, fault.message), fault.seconds or 0.0
    fates = {
        FaultKind.TASK_FAILS: Fate(failure=failure),
        FaultKind.FAILED_AT_ONCE: Fate(failure=failure, at_once=True),
        FaultKind.COMPLETED_AT_ONCE: Fate(at_once=True),
        FaultKind.TASK_HANGS: Fate(hangs=True),
        FaultKind.TASK_LATE: Fate(known_after=seconds),
        FaultKind.TASK_VANISHES: Fate(known_until=seconds),
    }
    return fates.get(fault.kind, ORDINARY)


@attrs.define(kw_only=True)
class Task:
    """One accepted create.

    Attributes:
        id: Its id.
        key: The key that made it.
        request: What was asked.
        seed: The seed in use, the server's choice when none was asked for.
        width: The picture's width in pixels.
        height: The picture's height in pixels.
        created_at: When it was accepted, unix seconds.
        finish_at: When it ends, unix seconds; infinite when it hangs.
        planned: The seconds it was to take.
        fate: What becomes of it.
        cost: What was billed for it, in USD.
    """

    id: str
    key: str
    request: CreateRequest
    seed: int
    width: int
    height: int
    created_at: float
    finish_at: float
    planned: float
    fate: Fate
    cost: Decimal

    def state(self, now: float) -> State:
        """What it is at `now`."""
        if now < self.finish_at:
            return State.IN_PROGRESS
        return State.COMPLETED if self.fate.failure is None else State.FAILED

    def progress(self, now: float, noise: float = 0.0) -> float:
        """How far it is at `now`, linear in time plus `noise`, between 0 and 0.99."""
        share = (now - self.created_at) / self.planned if self.planned else 0.0
        return round(min(max(share + noise, 0.0), 0.99), 4)

    def is_known(self, now: float) -> bool:
        """Whether the gateway knows it at `now`."""
        return self.fate.known_after <= now - self.created_at < self.fate.known_until


@attrs.define(kw_only=True)
class Account:
    """What the gateway knows of one key.

    Unfinished tasks are counted with a heap of their finish times, so that a request costs O(log n).
    """

    key: str = attrs.field(repr=False)
    balance: Decimal | None
    tokens: float
    tokens_at: float
    _finishes: list[tuple[float, str]] = attrs.field(factory=list, init=False, repr=False)
    _cancelled: set[str] = attrs.field(factory=set, init=False, repr=False)

    def add(self, task: Task) -> None:
        """Count a task until it finishes."""
        heapq.heappush(self._finishes, (task.finish_at, task.id))

    def cancel(self, task_id: str) -> None:
        """Stop counting an unfinished task."""
        self._cancelled.add(task_id)

    def unfinished(self, now: float) -> int:
        """How many tasks are unfinished at `now`."""
        finishes = self._finishes
        while finishes and finishes[0][0] <= now:
            self._cancelled.discard(heapq.heappop(finishes)[1])
        return len(finishes) - len(self._cancelled)


class World:
    """All accounts and tasks of one emulator."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.cost = limits.cost
        self._accounts: dict[str, Account] = {}
        self._tasks: dict[str, Task] = {}

    def account(self, key: str, now: float) -> Account:
        """The account of a key; it is made when the key is seen first."""
        account = self._accounts.get(key)
        if account is None:
            account = Account(key=key, balance=self.limits.balance, tokens=self._burst, tokens_at=now)
            self._accounts[key] = account
        return account

    @property
    def _burst(self) -> float:
        return max(1.0, self.limits.requests_per_second or 0.0)

    def throttle(self, account: Account, now: float) -> Refusal | None:
        """Count one API request of the account; a refusal when it comes too fast."""
        rate = self.limits.requests_per_second
        if rate is None:
            return None
        elapsed = max(0.0, now - account.tokens_at)
        account.tokens = min(self._burst, account.tokens + elapsed * rate)
        account.tokens_at = now
        if account.tokens < 1:
            wait = (1 - account.tokens) / rate
            message = f"more than {rate:g} requests per second"
            return Refusal(status=429, code="RATE_LIMIT_EXCEEDED", message=message, retry_after=wait)
        account.tokens -= 1
        return None

    def admit(self, account: Account, now: float) -> Refusal | None:
        """Say whether the account may make a task at `now`; a refusal when it may not."""
        most = self.limits.max_tasks
        if most is not None and account.unfinished(now) >= most:
            message = f"too many unfinished tasks: at most {most} at once"
            return Refusal(status=429, code="TASK_LIMIT_EXCEEDED", message=message)
        if account.balance is not None and account.balance < self.cost:
            message = f"balance too low: {account.balance} USD left, {self.cost} USD needed"
            return Refusal(status=403, code="INSUFFICIENT_BALANCE", message=message)
        return None

    def accept(
        self,
        account: Account,
        request: CreateRequest,
        *,
        sides: tuple[int, int],
        seconds: float,
        fate: Fate,
        now: float,
        rng: random.Random,
    ) -> Task:
        """Make a task that takes `seconds`, and bill it. `admit` comes before this."""
        planned = 0.0 if fate.at_once else seconds
        task = Task(
            id=self._new_id(rng),
            key=account.key,
            request=request,
            seed=rng.getrandbits(_SEED_BITS) if request.seed is None else request.seed,
            width=sides[0],
            height=sides[1],
            created_at=now,
            finish_at=math.inf if fate.hangs else now + planned,
            planned=planned,
            fate=fate,
            cost=NOTHING if fate.failure is not None and not self.limits.bill_failed else self.cost,
        )
        self._tasks[task.id] = task
        if task.finish_at > now:
            account.unfinished(now)
            account.add(task)
        if account.balance is not None:
            account.balance -= task.cost
        return task

    def _new_id(self, rng: random.Random) -> str:
        bits = rng.getrandbits(5 * _ID_LENGTH)
        task_id = "".join([_ID_LETTERS[bits >> shift & 31] for shift in range(0, 5 * _ID_LENGTH, 5)])
        return task_id if task_id not in self._tasks else self._new_id(rng)

    def find(self, task_id: str, key: str, now: float) -> Task | None:
        """The task of that id, when it is known at `now` and belongs to `key`."""
        task = self._tasks.get(task_id)
        if task is None or task.key != key or not task.is_known(now):
            return None
        return task

    def of_any_key(self, task_id: str) -> Task | None:
        """The task of that id, whoever made it: the files origin asks for no key."""
        return self._tasks.get(task_id)

    def cancel(self, task: Task, now: float) -> bool:
        """End a task as failed; False when it was finished already. What was billed stays billed."""
        if task.state(now) is not State.IN_PROGRESS:
            return False
        self._accounts[task.key].cancel(task.id)
        task.finish_at = now
        task.fate = attrs.evolve(task.fate, failure=("CANCELLED", "the task was cancelled"))
        return True

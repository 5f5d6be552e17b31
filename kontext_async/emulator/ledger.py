"""The ledger: every create request, its outcome and its cost. Pure: no I/O, no clock."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ZERO = Decimal(0)


class CreateOutcome(StrEnum):
    """The outcome of a create request."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CUT = "cut"
    """The connection was lost before the request was accepted, and no response was sent."""


@frozen(kw_only=True)
class LedgerEntry:
    """One create request that arrived.

    Attributes:
        index: Its number in the ledger, from 0.
        at: The time of the decision, unix seconds.
        outcome: Its outcome.
        reason: The reason in one term: `accepted`, the code of the refusal, or the kind of the fault.
        task_id: The task's ID when it was accepted.
        prompt: The prompt, when the request was read.
        digest: Hex digest of model and params, when the request was read.
        moderation: The request's `moderation`, when it had one.
        metadata: The request's `metadata`, when it had one.
        cost: The billed amount in USD; 0 when nothing was billed.
        status: The HTTP status of the response; None when no response was sent, or not to its last byte.
    """

    index: int
    at: float
    outcome: CreateOutcome
    reason: str
    task_id: str | None = None
    prompt: str | None = None
    digest: str | None = None
    moderation: bool | None = None
    metadata: Mapping[str, str] = field(factory=dict)
    cost: Decimal = ZERO
    status: int | None = None

    @property
    def responded(self) -> bool:
        """Whether a response was sent to its last byte, even if its content was damaged on purpose."""
        return self.status is not None

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as JSON, with the cost as a decimal string."""
        return {**asdict(self), "cost": f"{self.cost:f}", "answered": self.responded}


class Ledger:
    """Everything that the emulator accepted, refused, cut and billed, in order of decision.

    A live view: it grows while the emulator runs. Tasks that fail are billed only if the emulator has `bill_failed`.
    """

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []
        self._outcomes: Counter[CreateOutcome] = Counter()
        self._reasons: Counter[str] = Counter()
        self._digests: Counter[str] = Counter()
        self._billed = 0
        self._spent = ZERO

    def __repr__(self) -> str:
        return (
            f"<Ledger accepted={self.accepted} refused={self.refused} cut={self.cut} "
            f"billed={self.billed} spent={self.spent}>"
        )

    def record(self, *, at: float, outcome: CreateOutcome, reason: str, **details: Any) -> int:
        """Add an entry, and return its index. `details` are further attributes of `LedgerEntry`."""
        entry = LedgerEntry(index=len(self._entries), at=at, outcome=outcome, reason=reason, **details)
        self._entries.append(entry)
        self._outcomes[outcome] += 1
        self._reasons[reason] += 1
        if entry.cost:
            self._billed += 1
            self._spent += entry.cost
            self._digests[entry.digest or ""] += 1
        return entry.index

    def refund(self, task_id: str) -> None:
        """Record that a task is not billed after all."""
        entry = next((each for each in reversed(self._entries) if each.task_id == task_id), None)
        if entry is not None and entry.cost:
            self._entries[entry.index] = evolve(entry, cost=ZERO)
            self._billed -= 1
            self._spent -= entry.cost
            self._digests[entry.digest or ""] -= 1

    def record_response(self, index: int, status: int) -> None:
        """Record that the response to entry `index` was sent with the HTTP status `status`."""
        self._entries[index] = evolve(self._entries[index], status=status)

    @property
    def entries(self) -> Sequence[LedgerEntry]:
        """All entries so far, in order."""
        return tuple(self._entries)

    @property
    def accepted(self) -> int:
        """The number of create requests that were accepted."""
        return self._outcomes[CreateOutcome.ACCEPTED]

    @property
    def refused(self) -> int:
        """The number of create requests that were refused with an error response."""
        return self._outcomes[CreateOutcome.REFUSED]

    @property
    def cut(self) -> int:
        """The number of create requests whose connection was lost before they were accepted."""
        return self._outcomes[CreateOutcome.CUT]

    @property
    def billed(self) -> int:
        """The number of create requests that were billed."""
        return self._billed

    @property
    def spent(self) -> Decimal:
        """The sum of all bills, in USD."""
        return self._spent

    @property
    def billed_twice(self) -> dict[str, int]:
        """The digests of model and params that were billed more than once, each with its number of bills."""
        return {digest: count for digest, count in self._digests.items() if count > 1}

    @property
    def task_ids(self) -> tuple[str, ...]:
        """The IDs of all accepted tasks, in order of acceptance."""
        return tuple(entry.task_id for entry in self._entries if entry.task_id is not None)

    def as_dict(self, *, entries: bool = True) -> dict[str, Any]:
        """Return the ledger as JSON: counts, counts by reason, money as decimal strings, and the entries."""
        summary: dict[str, Any] = {
            "accepted": self.accepted,
            "refused": self.refused,
            "cut": self.cut,
            "billed": self.billed,
            "spent": f"{self.spent:f}",
            "billed_twice": self.billed_twice,
            "reasons": dict(self._reasons),
        }
        if entries:
            summary["entries"] = [entry.as_dict() for entry in self._entries]
        return summary

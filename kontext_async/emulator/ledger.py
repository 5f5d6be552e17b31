"""What every create request came to, and what was billed. Pure: no I/O, no clock."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING = Decimal(0)


class CreateOutcome(StrEnum):
    """What a create request came to."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CUT = "cut"
    """The connection went before the request was accepted, and no answer was sent."""


@attrs.frozen(kw_only=True)
class LedgerEntry:
    """One create request that arrived.

    Attributes:
        index: Its number in the ledger, from 0.
        at: When it was decided, unix seconds.
        outcome: What it came to.
        reason: Why, in one word: `accepted`, or the code of the refusal, or the fault that struck.
        task_id: The task's id when it was accepted.
        prompt: The prompt, when the request was read.
        digest: Hex digest of model and params, when the request was read.
        cost: What was billed, in USD; 0 when nothing was.
        status: The HTTP status that was answered; None when no answer was sent, or not to its last byte.
    """

    index: int
    at: float
    outcome: CreateOutcome
    reason: str
    task_id: str | None = None
    prompt: str | None = None
    digest: str | None = None
    cost: Decimal = NOTHING
    status: int | None = None

    @property
    def answered(self) -> bool:
        """Whether an answer was sent to its last byte, be its content damaged on purpose."""
        return self.status is not None

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON has it, with the cost as a decimal string."""
        return {**attrs.asdict(self), "cost": f"{self.cost:f}", "answered": self.answered}


class Ledger:
    """Everything that the emulator accepted, refused, cut and billed, in order of decision.

    A live view: it grows while the emulator runs. Tasks that fail are not billed unless the emulator
    was told to bill them.
    """

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []
        self._outcomes: Counter[CreateOutcome] = Counter()
        self._reasons: Counter[str] = Counter()
        self._digests: Counter[str] = Counter()
        self._billed = 0
        self._spent = NOTHING

    def __repr__(self) -> str:
        return (
            f"<Ledger accepted={self.accepted} refused={self.refused} cut={self.cut} "
            f"billed={self.billed} spent={self.spent}>"
        )

    def record(self, *, at: float, outcome: CreateOutcome, reason: str, **known: Any) -> int:
        """Add an entry, with whatever else is `known` of it, and return its index."""
        entry = LedgerEntry(index=len(self._entries), at=at, outcome=outcome, reason=reason, **known)
        self._entries.append(entry)
        self._outcomes[outcome] += 1
        self._reasons[reason] += 1
        if entry.cost:
            self._billed += 1
            self._spent += entry.cost
            self._digests[entry.digest or ""] += 1
        return entry.index

    def note_answer(self, index: int, status: int) -> None:
        """Note that entry `index` was answered with the HTTP status `status`."""
        self._entries[index] = attrs.evolve(self._entries[index], status=status)

    @property
    def entries(self) -> Sequence[LedgerEntry]:
        """All entries so far, in order."""
        return tuple(self._entries)

    @property
    def accepted(self) -> int:
        """How many create requests were accepted."""
        return self._outcomes[CreateOutcome.ACCEPTED]

    @property
    def refused(self) -> int:
        """How many create requests were refused with an answer that says so."""
        return self._outcomes[CreateOutcome.REFUSED]

    @property
    def cut(self) -> int:
        """How many create requests lost their connection before they were accepted."""
        return self._outcomes[CreateOutcome.CUT]

    @property
    def billed(self) -> int:
        """How many create requests were billed."""
        return self._billed

    @property
    def spent(self) -> Decimal:
        """The sum of what was billed, in USD."""
        return self._spent

    @property
    def billed_twice(self) -> dict[str, int]:
        """Digest of model and params to how often it was billed, where that is more than once."""
        return {digest: count for digest, count in self._digests.items() if count > 1}

    @property
    def task_ids(self) -> tuple[str, ...]:
        """The ids of all accepted tasks, in order of acceptance."""
        return tuple(entry.task_id for entry in self._entries if entry.task_id is not None)

    def as_dict(self, *, entries: bool = True) -> dict[str, Any]:
        """The ledger as JSON: counts, counts by reason, money as decimal strings, and the entries."""
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

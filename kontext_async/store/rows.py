"""The values that a store keeps and returns: rows, accounts, runs and second tasks. Frozen; pure."""

from __future__ import annotations

from collections import Counter  # noqa: TC003 # attrs resolves it
from collections.abc import Mapping  # noqa: TC003 # as above
from decimal import Decimal  # as above
from operator import attrgetter
from typing import Any

from attrs import field, fields, frozen

from kontext_async.store.steps import Files, Intended, State, Step, Verdict  # as above

__all__ = [
    "Account",
    "NewRow",
    "Row",
    "RowStep",
    "Run",
    "RunSummary",
    "SecondTask",
    "Selection",
    "StepResult",
]


@frozen(kw_only=True)
class Account:
    """The payer of a task, and the gateway. A row is followed at its own gateway and account only.

    Attributes:
        gateway: The name of the gateway's dialect.
        base: The base URL, without a query.
        name: The name of the account: given, or a keyed hash of the API key.
    """

    gateway: str
    base: str
    name: str


@frozen(kw_only=True)
class NewRow:
    """A request to plan.

    Attributes:
        key: The key, unique within the run.
        digest: The digest of the request, 32 bytes, without signatures of image URLs: see `store.digest`.
        model: The model.
        images: The number of input images.
        prompt: The prompt.
        fields: The other fields of the request, for people and scripts.
        position: The position in the input of a bulk run, from 0; None elsewhere.
        intended: The first attempt of a new row, if it begins at once; None to plan the row only.
    """

    key: str
    digest: bytes
    model: str
    images: int
    prompt: str
    fields: Mapping[str, Any] = field(factory=dict)
    position: int | None = None
    intended: Intended | None = None

    def has_begun(self, row: Row, worker: int) -> bool:
        """Return True if a row is this one, and its first attempt is the one that begins here.

        Args:
            row: The row of the key.
            worker: The number of the worker, which begins no two attempts at one time.
        """
        begun = (State.INTENT, 1, worker, self.intended.at) if self.intended else None
        return (row.state, row.attempt, row.owner, row.intended_at) == begun


@frozen(kw_only=True)
class Row:
    """A request in the store, as it was when it was read.

    Attributes:
        id: The number of the row in the store.
        run: The number of its run.
        key: The key, unique within the run.
        state: The state.
        attempt: The number of the latest attempt; 0 before the first one.
        owner: The number of the worker that owns the row, or is the preferred one for a planned row; None if it is
            free.
        owner_alive: True if that worker is alive.
        account: The number of the account that pays; None before the first step, and in rows of version 1.
        digest: The digest of the request.
        model: The requested model.
        images: The number of input images.
        prompt: The prompt.
        fields: The other fields of the request.
        uncertain_attempts: The number of earlier attempts that may be billed at an unknown cost.
        reserved: USD that the row may still cost; None if nothing, or unknown.
        task_id: The task ID; None before acceptance.
        reference: The text that leads to the task again, where the ID alone does not.
        cost: USD; None if the gateway did not report it.
        seconds: Seconds from acceptance until completion was detected.
        result: The recorded generation.
        error: The recorded error.
        folder: The number of the folder of its files (bulk runs).
        files: The images in that folder: names and sizes; the size is 0 until an image is saved.
        position: The position in the input of the latest execution that contained it (bulk runs).
        execution: The number of that execution, or of an earlier one if it was saved by then; 0 outside bulk runs.
        completion: The number in the order of completion within the folder (bulk runs).
        intended_at: Unix seconds.
        accepted_at: Unix seconds.
        completed_at: Unix seconds.
        received_at: Unix seconds; None until a caller has received the result.
    """

    id: int
    run: int
    key: str
    state: State
    attempt: int = 0
    owner: int | None = None
    owner_alive: bool = False
    account: int | None = None
    digest: bytes
    model: str
    images: int
    prompt: str
    fields: Mapping[str, Any] = field(factory=dict)
    uncertain_attempts: int = 0
    reserved: Decimal | None = None
    task_id: str | None = None
    reference: str | None = None
    cost: Decimal | None = None
    seconds: float | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    folder: int | None = None
    files: Files = ()
    position: int | None = None
    execution: int = 0
    completion: int | None = None
    intended_at: float | None = None
    accepted_at: float | None = None
    completed_at: float | None = None
    received_at: float | None = None

    @property
    def kind(self) -> tuple[str, int]:
        """The price kind: the model and the number of input images."""
        return self.model, self.images

    @property
    def is_unbilled(self) -> bool:
        """True if no account was or may have been billed for it: any account may pay for the next attempt."""
        return self.state is State.PLANNED and not self.uncertain_attempts

    def with_changes(self, changes: Mapping[str, Any]) -> Row:
        """Return the row with other values: four times as fast as `attrs.evolve`, and a row has 29 columns.

        Args:
            changes: The values by the names of the attributes.
        """
        return Row(**{**dict(zip(_NAMES, _values_of(self), strict=True)), **changes})


_NAMES = tuple(each.name for each in fields(Row))
_values_of = attrgetter(*_NAMES)


@frozen(kw_only=True)
class RowStep:
    """A step of one row.

    Attributes:
        row: The number of the row.
        step: The step.
    """

    row: int
    step: Step


@frozen(kw_only=True)
class StepResult:
    """The result of a step.

    Attributes:
        verdict: What became of it.
        row: The row as it is now, if the verdict is `LOST`, `SECOND_TASK` or `OVER_LIMIT`; None if it is gone, or was
            not read.
        committed: USD that the run has spent or may owe, if the verdict is `OVER_LIMIT`.
        in_flight: The number of other rows of the run whose cost is open and will become known, if the verdict is
            `OVER_LIMIT`.
    """

    verdict: Verdict
    row: Row | None = None
    committed: Decimal | None = None
    in_flight: int | None = None


@frozen(kw_only=True)
class Run:
    """A run: rows with keys of their own, and what they cost.

    Attributes:
        id: The number of the run.
        name: The name.
        execution: The number of this execution (bulk runs), from 1; 0 elsewhere.
        spent: USD spent by all rows of the run, also those that were forgotten.
    """

    id: int
    name: str
    execution: int = 0
    spent: Decimal = Decimal(0)


@frozen(kw_only=True)
class SecondTask:
    """A second paid task of a row: an earlier attempt was accepted, too, or its task failed and the row was sent again.

    It outlives its row until somebody has received it.

    Attributes:
        row: The number of the row, which may be gone.
        run: The name of the run.
        key: The key of the row.
        attempt: The attempt.
        task_id: The task ID.
        reference: As in `Row`.
        account: The number of the account that pays.
        state: `ACCEPTED`, `COMPLETED`, `FAILED` or `EXPIRED`.
        cost: USD; None if the gateway did not report it.
        accepted_at: Unix seconds.
        received_at: Unix seconds; None until somebody has received it.
    """

    row: int
    run: str
    key: str
    attempt: int
    task_id: str
    reference: str | None = None
    account: int | None = None
    state: State
    cost: Decimal | None = None
    accepted_at: float
    received_at: float | None = None


@frozen(kw_only=True)
class Selection:
    """Which rows to read. Every condition that is given must hold.

    Attributes:
        run: The number of the run; None for all runs.
        states: The states; empty for all.
        account: The number of the account; rows without one count too.
        unreceived: Only rows that no caller has received.
        unowned: Only rows that no live worker owns.
        execution_below: Only rows whose latest execution has a lower number.
        folder: Only rows with files in this folder.
        by_completion: Order by the number of completion instead of the number of the row; rows without one are left
            out.
    """

    run: int | None = None
    states: frozenset[State] = frozenset()
    account: int | None = None
    unreceived: bool = False
    unowned: bool = False
    execution_below: int | None = None
    folder: int | None = None
    by_completion: bool = False


@frozen(kw_only=True)
class RunSummary:
    """The sums of a run, as the database has them.

    Attributes:
        spent: USD spent by all rows, also those that were forgotten, and by second tasks.
        reserved: USD that rows may still cost.
        states: The number of rows in each state.
        costs: The highest cost seen of each price kind.
        owed: The number of tasks that are or may be billed at an unknown cost, by price kind.
    """

    spent: Decimal
    reserved: Decimal
    states: Counter[State]
    costs: Mapping[tuple[str, int], Decimal]
    owed: Counter[tuple[str, int]]

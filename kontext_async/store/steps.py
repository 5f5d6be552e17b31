"""The steps of a row of the store, as frozen values. Each names the attempt that it concerns. Pure.

A step knows which columns of the row it changes (`changes`) and what must hold for it besides the state (`fence`). The
states from which it is legal are `kontext_async.store.states.TRANSITIONS`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping  # noqa: TC003 # attrs resolves it
from decimal import Decimal  # noqa: TC003 # as above
from typing import Any, ClassVar, TypeAlias

from attrs import frozen

__all__ = [
    "Accepted",
    "Adopted",
    "Completed",
    "Expired",
    "Failed",
    "Fence",
    "Files",
    "FilesLost",
    "Forgotten",
    "Intended",
    "Orphaned",
    "Received",
    "Resubmitted",
    "Saved",
    "State",
    "Step",
    "Uncertain",
    "Verdict",
    "Withdrawn",
]

Files: TypeAlias = "tuple[tuple[str, int], ...]"
"""The saved images of a row: names within the folder, and sizes in bytes."""


class State(enum.StrEnum):
    """The state of a row."""

    PLANNED = "planned"
    INTENT = "intent"
    UNCERTAIN = "uncertain"
    ACCEPTED = "accepted"
    COMPLETED = "finished"
    SAVED = "saved"
    FAILED = "failed"
    EXPIRED = "expired"


class Verdict(enum.Enum):
    """The result of a step."""

    APPLIED = enum.auto()
    REPEATED = enum.auto()
    """The row has this step already: the same worker wrote it, and did not learn that it was written."""
    SECOND_TASK = enum.auto()
    """The step concerns a second paid task of the row, and was recorded beside it."""
    LOST = enum.auto()
    """The row belongs to another worker or another attempt, or is gone. Nothing changed."""
    OVER_LIMIT = enum.auto()
    """The cost limit of the run does not admit the request. Nothing changed."""


class Fence(enum.Enum):
    """The condition of a step, besides the state of the row."""

    FREE = enum.auto()
    """The row's attempt is the one before the step's, and the row has no account or the step's. A planned row is free
    for everybody: its owner is a preference only."""
    ATTEMPT = enum.auto()
    """The row's attempt is the step's, with any owner of the row."""
    TASK = enum.auto()
    """The row's task is the step's, with any owner of the row. For a step without a task: the row has no task either,
    and its attempt is the step's."""
    NONE = enum.auto()
    """Nothing: the ID of a paid task is recorded, with any owner of the row."""
    OWNER_DEAD = enum.auto()
    """The row's attempt is the step's, its owner is dead or it has none, and it has no account or the step's, if the
    step names one."""


@frozen(kw_only=True)
class Step:
    """A step of a row.

    Attributes:
        attempt: The number of the attempt that the step concerns; 0 before the first one.
    """

    fence: ClassVar[Fence] = Fence.ATTEMPT
    attempt: int

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # the owner counts in a few steps only
        """Return the columns that change, besides the state, by their names in `Row`.

        Args:
            worker: The number of the worker that takes the step.
        """
        return {}


@frozen(kw_only=True)
class Intended(Step):
    """The worker is about to send a create request. From here on the row is the worker's.

    Attributes:
        attempt: The number of the new attempt: one more than the row's.
        account: The number of the account that pays.
        at: Unix seconds.
        reserved: USD that the row may cost, with its earlier uncertain attempts; None if the price is unknown.
        limit: USD that the run may spend in all; None for no limit.
    """

    fence = Fence.FREE
    account: int
    at: float
    reserved: Decimal | None = None
    limit: Decimal | None = None

    def changes(self, worker: int) -> dict[str, Any]:
        """Return the columns that change."""
        return {
            "attempt": self.attempt,
            "owner": worker,
            "owner_alive": True,
            "account": self.account,
            "intended_at": self.at,
            "reserved": self.reserved,
            "error": None,
        }


@frozen(kw_only=True)
class Withdrawn(Step):
    """The create request was certainly not accepted: nothing was sent, or the gateway refused it. The row is free.

    Attributes:
        reserved: USD that earlier uncertain attempts of the row may cost. None, where the row has some: what the row
            has reserved.
    """

    reserved: Decimal | None = None

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # as above
        """Return the columns that change."""
        return {"owner": None, "owner_alive": False, "reserved": self.reserved}


@frozen(kw_only=True)
class Uncertain(Step):
    """The gateway may have accepted the create request.

    Attributes:
        error: What its owner saw, as `error_to_dict` gives it.
    """

    error: Mapping[str, Any]

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # as above
        """Return the columns that change."""
        return {"error": self.error, "owner": None, "owner_alive": False}


@frozen(kw_only=True)
class Orphaned(Step):
    """The owner of an intent died: the gateway may have accepted the create request."""

    fence = Fence.OWNER_DEAD

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # as above
        """Return the columns that change."""
        return {"owner": None, "owner_alive": False}


@frozen(kw_only=True)
class Accepted(Step):
    """The gateway accepted the create request, and bills it. The ID is recorded for any owner of the row.

    Attributes:
        task_id: The task ID.
        reference: The text that leads to the task again, where the ID alone does not; None where it does.
        at: Unix seconds.
    """

    fence = Fence.NONE
    task_id: str
    reference: str | None = None
    at: float

    def changes(self, worker: int) -> dict[str, Any]:
        """Return the columns that change."""
        return {
            "task_id": self.task_id,
            "reference": self.reference,
            "accepted_at": self.at,
            "owner": worker,
            "owner_alive": True,
            "error": None,
        }


@frozen(kw_only=True)
class Adopted(Step):
    """The worker continues with the task of a row whose owner died: one worker polls it and saves its images.

    Attributes:
        account: The number of the worker's account. A row of version 1 gets it.
    """

    fence = Fence.OWNER_DEAD
    account: int

    def changes(self, worker: int) -> dict[str, Any]:
        """Return the columns that change."""
        return {"owner": worker, "owner_alive": True, "account": self.account}


@frozen(kw_only=True)
class Completed(Step):
    """The task completed.

    Attributes:
        task_id: The task ID, which distinguishes a second paid task from the row's own.
        result: The generation, as `generation_to_dict` gives it.
        cost: USD; None if the gateway did not report it.
        seconds: Seconds from acceptance until completion was detected; None if unknown.
        at: Unix seconds.
        reserved: USD that earlier uncertain attempts of the row may cost. None, where the row has some: the rest of
            what the row has reserved.
        folder: The number of the folder that its images go to (bulk runs); None elsewhere.
        files: The names that its images will have (bulk runs).
    """

    fence = Fence.TASK
    task_id: str
    result: Mapping[str, Any]
    cost: Decimal | None = None
    seconds: float | None = None
    at: float
    reserved: Decimal | None = None
    folder: int | None = None
    files: Files = ()

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # as above
        """Return the columns that change."""
        return {
            "result": self.result,
            "cost": self.cost,
            "seconds": self.seconds,
            "completed_at": self.at,
            "reserved": self.reserved,
            "folder": self.folder,
            "files": self.files,
            "error": None,
        }


@frozen(kw_only=True)
class Failed(Step):
    """The request was rejected for good, or its task ended without an image.

    Attributes:
        task_id: The task ID; None if the gateway did not accept the request.
        error: The error, as `error_to_dict` gives it.
        cost: USD; None if nothing was billed, the gateway did not report it, or the row has it already.
        at: Unix seconds.
        reserved: As in `Completed`.
        folder: The number of the folder of the bulk run that reports it; None elsewhere.
        completion: The number in the order of completion within that folder; None elsewhere.
    """

    fence = Fence.TASK
    task_id: str | None = None
    error: Mapping[str, Any]
    cost: Decimal | None = None
    at: float
    reserved: Decimal | None = None
    folder: int | None = None
    completion: int | None = None

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # as above
        """Return the columns that change."""
        return {
            "error": self.error,
            "cost": self.cost,
            "completed_at": self.at,
            "reserved": self.reserved,
            "owner": None,
            "owner_alive": False,
            "folder": self.folder,
            "completion": self.completion,
        }


@frozen(kw_only=True)
class Expired(Failed):
    """The gateway no longer knows the task, although it was paid for."""


@frozen(kw_only=True)
class Received(Step):
    """A caller has received the result.

    Attributes:
        at: Unix seconds.
    """

    at: float

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # as above
        """Return the columns that change."""
        return {"received_at": self.at}


@frozen(kw_only=True)
class Forgotten(Step):
    """The row is deleted: its caller has the result or gave up, and nobody else knows its key.

    What it cost stays spent, and its second tasks stay until somebody has received them.
    """


@frozen(kw_only=True)
class Resubmitted(Step):
    """A caller asked to send an uncertain, failed or expired request again. Several such steps of one attempt are one.

    The task of the row, if it had one, becomes a second task: its ID and its cost stay known.

    Attributes:
        uncertain_attempts: The number of attempts of the row, up to this one, that may be billed at an unknown cost.
        reserved: USD that they may cost; None if the price is unknown or there are none.
    """

    uncertain_attempts: int
    reserved: Decimal | None = None

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # as above
        """Return the columns that change."""
        return {
            "uncertain_attempts": self.uncertain_attempts,
            "reserved": self.reserved,
            "task_id": None,
            "reference": None,
            "cost": None,
            "seconds": None,
            "result": None,
            "files": (),
            "folder": None,
            "error": None,
            "owner": None,
            "owner_alive": False,
            "accepted_at": None,
            "completed_at": None,
            "received_at": None,
        }


@frozen(kw_only=True)
class Saved(Step):
    """The images are saved (bulk runs).

    Attributes:
        folder: The number of the folder.
        files: Their names within the folder, and their sizes in bytes.
        completion: The number in the order of completion within the folder.
        at: Unix seconds.
    """

    folder: int
    files: Files
    completion: int
    at: float

    def changes(self, worker: int) -> dict[str, Any]:  # noqa: ARG002 # as above
        """Return the columns that change."""
        return {
            "folder": self.folder,
            "files": self.files,
            "completion": self.completion,
            "completed_at": self.at,
            "error": None,
            "owner": None,
            "owner_alive": False,
        }


@frozen(kw_only=True)
class FilesLost(Step):
    """Saved images are missing or damaged (bulk runs): the worker downloads them again, and no other one does."""

    def changes(self, worker: int) -> dict[str, Any]:
        """Return the columns that change."""
        return {"owner": worker, "owner_alive": True}

"""Requests of the input as new rows, and rows as outcomes and as JSON for ``results.jsonl``. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import frozen

from kontext_async.bulk.filenames import files_of, occurrence_of
from kontext_async.bulk.models import BulkOutcome
from kontext_async.store import records
from kontext_async.store.records import error_from_row
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.errors import KontextError
    from kontext_async.models import KontextRequest
    from kontext_async.store.rows import NewRow, Row

__all__ = ["InputRequest", "failure_type", "new_row", "outcome_of", "row_to_dict"]


@frozen(kw_only=True)
class InputRequest:
    """A request that was read from the input.

    Attributes:
        position: The position in the input, from 0.
        request: The request.
        fingerprint: The digest of the request, 64 hexadecimal characters: see `kontext_async.store.digest`.
        sent_fingerprint: The fingerprint of the request as it is sent, which differs from the digest if the URL of an
            image is signed.
        key: The key of the request within its run.
        old_key: The key under which a run of version 1 recorded it; None if that is the same.
    """

    position: int
    request: KontextRequest
    fingerprint: str
    sent_fingerprint: str
    key: str
    old_key: str | None = None


def new_row(entry: InputRequest, *, key: str | None = None) -> NewRow:
    """Return the row to plan for a request.

    Args:
        entry: The request.
        key: The key of the row, if it is not that of the request.
    """
    digest = bytes.fromhex(entry.fingerprint)
    return records.new_row(entry.request, key=key or entry.key, digest=digest, position=entry.position)


def outcome_of(
    row: Row,
    request: KontextRequest | None,
    *,
    directory: Path,
    folder: int,
    error: KontextError | None = None,
    from_earlier_run: bool = False,
    skipped: bool = False,
) -> BulkOutcome:
    """Return the outcome of a request.

    Args:
        row: The row as it is now.
        request: The request; None if it is not in the input.
        directory: The run's directory.
        folder: The number of the directory in the store.
        error: The error of this run; None if there is none, or if the row has it.
        from_earlier_run: As in `BulkOutcome`.
        skipped: As in `BulkOutcome`: the error is then that which the row recorded.
    """
    files = files_of(row, folder) if row.state is State.SAVED else ()
    if skipped and row.state is not State.SAVED and error is None:
        error = error_from_row(row, request)
    return BulkOutcome(
        index=row.position or 0,
        request=request,
        fingerprint=row.digest.hex(),
        task_id=row.task_id,
        files=tuple(directory / name for name, _ in files),
        cost=row.cost,
        seconds=row.seconds,
        error=error,
        from_earlier_run=from_earlier_run,
        skipped=skipped,
    )


def row_to_dict(row: Row) -> dict[str, Any]:
    """Return a row as a JSON object with everything that a script needs, so that it need not read the store."""
    return {
        "completion": row.completion,
        "index": row.position,
        "state": str(row.state),
        "prompt": row.prompt,
        "model": row.model,
        "fields": dict(row.fields),
        "fingerprint": row.digest.hex(),
        "occurrence": occurrence_of(row),
        "task_id": row.task_id,
        "files": [name for name, _ in row.files],
        "cost": None if row.cost is None else f"{row.cost:f}",
        "seconds": None if row.seconds is None else round(row.seconds, 3),
        "completed_at": _time(row.completed_at),
        "error": dict(row.error) if row.error else None,
    }


def failure_type(row: Row) -> str | None:
    """Return the class name of the error of a row without an image; None if there is an image or no final result."""
    if row.state in (State.INTENT, State.UNCERTAIN):
        return "SubmissionUncertain"
    if row.state in (State.SAVED, State.PLANNED) or not row.error:
        return None
    return str(row.error.get("type", "KontextError"))


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")

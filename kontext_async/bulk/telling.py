"""Builds the outcomes of requests that a run skips: already saved, failed or expired earlier, or uncertain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kontext_async.bulk.outcomes import BulkOutcome
from kontext_async.bulk.states import State
from kontext_async.errors import KontextError, RequestRejected, SubmissionUncertain, TaskFailed, TaskNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kontext_async.bulk.entries import JournalRow
    from kontext_async.models import KontextRequest

__all__ = ["error_of", "skipped"]


def skipped(directory: Path, request: KontextRequest | None, row: JournalRow) -> BulkOutcome:
    """Return the outcome of a request that this run does not change."""
    return BulkOutcome(
        index=row.position,
        request=request,
        fingerprint=row.fingerprint,
        task_id=row.task_id,
        files=tuple(directory / name for name, _ in row.files) if row.state is State.SAVED else (),
        cost=row.cost,
        seconds=row.seconds,
        error=error_of(row, request),
        from_earlier_run=True,
        skipped=True,
    )


def error_of(row: JournalRow, request: KontextRequest | None) -> KontextError | None:
    """Return the error that an earlier run recorded, as an error of the same kind; None for a saved request."""
    if row.state is State.SAVED:
        return None
    known: Mapping[str, Any] = row.error or {}
    message = str(known.get("message", "the request failed in an earlier run; the journal has no details"))
    if row.state is State.INTENT:
        seen = message if row.error else "the run ended while the request was being sent"
        return SubmissionUncertain(request=request, fingerprint=row.fingerprint, seen=seen)
    if row.state is State.EXPIRED:
        return TaskNotFound(message, task_id=row.task_id)
    if known.get("type") == "TaskFailed" and row.task_id:
        error = TaskFailed(task_id=row.task_id, code=known.get("code"), message="")
        error.args = (message,)
        error.message = message
        return error
    return RequestRejected(message, status=known.get("status"), code=known.get("code"))

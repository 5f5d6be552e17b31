"""Converts rows and errors for ``results.jsonl`` and the contact sheet. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kontext_async.bulk.states import State

if TYPE_CHECKING:
    from kontext_async.bulk.entries import JournalRow
    from kontext_async.errors import KontextError

__all__ = ["error_to_dict", "failure_type", "row_to_dict"]

ERROR_DETAILS = ("status", "code", "retry_after", "field", "value", "rule", "fingerprint", "waited", "reason", "seen")


def error_to_dict(error: KontextError) -> dict[str, Any]:
    """Return an error as a JSON object."""
    details = {name: getattr(error, name, None) for name in ERROR_DETAILS}
    return {
        "type": type(error).__name__,
        "message": str(error),
        "task_id": error.task_id,
        "request_id": error.request_id,
        "retryable": error.retryable,
        "may_be_charged": error.may_be_charged,
    } | {name: value for name, value in details.items() if value is not None}


def row_to_dict(row: JournalRow) -> dict[str, Any]:
    """Return a row as a JSON object with everything that a script needs, so that it need not read the journal."""
    return {
        "completion": row.completion,
        "index": row.position,
        "state": str(row.state),
        "prompt": row.prompt,
        "model": row.model,
        "fields": dict(row.fields),
        "fingerprint": row.fingerprint,
        "occurrence": row.occurrence,
        "task_id": row.task_id,
        "files": [name for name, _ in row.files],
        "cost": None if row.cost is None else f"{row.cost:f}",
        "seconds": None if row.seconds is None else round(row.seconds, 3),
        "completed_at": _time(row.completed_at),
        "error": dict(row.error) if row.error else None,
    }


def failure_type(row: JournalRow) -> str | None:
    """Return the class name of the error of a row without an image; None if there is an image or no final result."""
    if row.state is State.INTENT:
        return "SubmissionUncertain"
    if row.state in (State.SAVED, State.PLANNED) or not row.error:
        return None
    return str(row.error.get("type", "KontextError"))


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")

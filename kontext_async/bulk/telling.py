"""Builds the outcomes of requests that a run skips: already saved, failed or expired earlier, or uncertain."""

from __future__ import annotations

import re
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

IDS = re.compile(r" \((task|request) [^()]*\)\Z")
UNCERTAIN = re.compile(
    r"the gateway may have accepted this request \(fingerprint [0-9a-f]+\): (.*); "
    r"it was not resent, because a second request may be billed too",
    re.DOTALL,
)


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
    message = _message_in(known)
    if row.state is State.INTENT:
        return SubmissionUncertain(request=request, fingerprint=row.fingerprint, seen=_seen_in(known))
    if row.state is State.EXPIRED:
        return TaskNotFound(message, task_id=row.task_id)
    if known.get("type") == "TaskFailed" and row.task_id:
        error = TaskFailed(task_id=row.task_id, code=_text_in(known, "code"), message="")
        error.args = (message,)
        error.message = message
        return error
    status = known.get("status")
    return RequestRejected(
        message,
        status=status if isinstance(status, int) else None,
        code=_text_in(known, "code"),
        request_id=_text_in(known, "request_id"),
    )


def _message_in(known: Mapping[str, Any]) -> str:
    """Return the message of a recorded error, without the IDs that the text of an error ends with."""
    message = _text_in(known, "message") or "the request failed in an earlier run; the journal has no details"
    return IDS.sub("", message)


def _seen_in(known: Mapping[str, Any]) -> str:
    """Return what an uncertain request met. Earlier versions recorded the whole sentence around it only."""
    if not known:
        return "the run ended while the request was being sent"
    message = _message_in(known)
    whole = UNCERTAIN.fullmatch(message)
    return _text_in(known, "seen") or (whole[1] if whole else message)


def _text_in(known: Mapping[str, Any], name: str) -> str | None:
    value = known.get(name)
    return value if isinstance(value, str) else None

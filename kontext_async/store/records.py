"""Generations and errors as JSON objects, as rows record them, and back. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cattrs
from attrs import evolve
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from kontext_async.errors import (
    InvalidRequest,
    KontextError,
    RequestRejected,
    SubmissionUncertain,
    TaskCancelled,
    TaskFailed,
    TaskModerated,
    TaskNotFound,
)
from kontext_async.models import Generation
from kontext_async.redaction import safe_repr, truncate
from kontext_async.serialization import make_converter
from kontext_async.store.rows import NewRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.models import KontextRequest
    from kontext_async.store.rows import Row

__all__ = ["error_from_row", "error_to_dict", "generation_from_dict", "generation_to_dict", "new_row"]

ERROR_DETAILS = (
    "reference",
    "status",
    "code",
    "retry_after",
    "field",
    "value",
    "rule",
    "fingerprint",
    "waited",
    "reason",
    "seen",
)

PLAIN_FIELDS = ("seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance", "moderation")

IDS = re.compile(r" \((task|request) [^()]*\)\Z")
UNCERTAIN = re.compile(
    r"the gateway may have accepted this request \(fingerprint [0-9a-f]+\): (.*); "
    r"it was not resent, because a second request may be billed too",
    re.DOTALL,
)
FAILURES: Mapping[str, type[TaskFailed]] = {each.__name__: each for each in (TaskFailed, TaskModerated, TaskCancelled)}
"""The errors of a task that ended without an image, by the name that a row has."""

OWNER_DIED = "its worker ended while the request was being sent"


def _make_converter() -> cattrs.Converter:
    converter = make_converter()
    converter.register_unstructure_hook(
        Generation, make_dict_unstructure_fn(Generation, converter, request=override(omit=True))
    )
    converter.register_structure_hook(
        Generation, make_dict_structure_fn(Generation, converter, request=override(struct_hook=lambda *_: None))
    )
    return converter


_converter = _make_converter()


def new_row(request: KontextRequest, *, key: str, digest: bytes, position: int | None = None) -> NewRow:
    """Return the row to plan for a request.

    Args:
        request: The request.
        key: Its key.
        digest: Its digest.
        position: The position in the input of a bulk run; None elsewhere.
    """
    return NewRow(
        key=key,
        digest=digest,
        model=request.model,
        images=len(request.input_images),
        prompt=request.prompt,
        fields=_fields_of(request),
        position=position,
    )


def _fields_of(request: KontextRequest) -> dict[str, Any]:
    """Return the fields beside model and prompt, for people and scripts; of images, only the names."""
    given: dict[str, Any] = {name: getattr(request, name) for name in PLAIN_FIELDS}
    given["metadata"] = dict(request.metadata) if request.metadata else None
    given["input_images"] = [_named(source) for source in request.input_images]
    return {name: value for name, value in given.items() if value not in (None, [])}


def _named(source: object) -> str:
    return str(source) if hasattr(source, "__fspath__") else safe_repr(source)


def generation_to_dict(generation: Generation) -> dict[str, Any]:
    """Return a generation, without its request, as a JSON object."""
    made: dict[str, Any] = _converter.unstructure(generation)
    return made


def generation_from_dict(known: Mapping[str, Any], request: KontextRequest | None) -> Generation:
    """Return the generation that a row recorded.

    Args:
        known: The record.
        request: The request of the caller.

    Raises:
        ValueError: The record is not one that `generation_to_dict` made.
    """
    try:
        made = _converter.structure({**known, "request": None}, Generation)
        return evolve(made, request=request)
    except Exception as error:  # noqa: BLE001 # cattrs raises groups of anything about foreign data
        text = truncate("; ".join(cattrs.transform_error(error, path="result")), 200)
        raise ValueError(f"it is not a recorded generation: {text}") from None


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


def error_from_row(row: Row, request: KontextRequest | None, *, plain_reference: str | None = None) -> KontextError:
    """Return the error of an uncertain, failed or expired row, as an error of the same kind.

    Args:
        row: The row.
        request: The request of the caller.
        plain_reference: The text that leads to its task where the row has the ID alone; None if unknown.
    """
    error = _rebuild_error(row, request)
    if error.task_id is not None and row.task_id is not None:
        error.with_task(row.task_id, row.reference or plain_reference)
    return error


def _rebuild_error(row: Row, request: KontextRequest | None) -> KontextError:
    known: Mapping[str, Any] = row.error or {}
    if row.state == "uncertain":
        return SubmissionUncertain(request=request, fingerprint=row.digest.hex(), seen=_seen_in(known))
    message = _message_in(known)
    if row.state == "expired":
        return TaskNotFound(message, task_id=row.task_id)
    if (failed_class := FAILURES.get(str(known.get("type")))) and row.task_id:
        failed = failed_class(task_id=row.task_id, code=_text_in(known, "code"), message="")
        failed.args = (message,)
        failed.message = message
        if known.get("may_be_charged") is False:
            failed.may_be_charged = False
        if isinstance(failed, TaskCancelled):
            failed.cost = row.cost
        return failed
    if known.get("type") == "InvalidRequest":
        return _invalid_request(known)
    status = known.get("status")
    return RequestRejected(
        message,
        status=status if isinstance(status, int) else None,
        code=_text_in(known, "code"),
        request_id=_text_in(known, "request_id"),
    )


def _invalid_request(known: Mapping[str, Any]) -> InvalidRequest:
    name, value, rule = (_text_in(known, each) or "unknown" for each in ("field", "value", "rule"))
    error = InvalidRequest(name, value, rule)
    error.value = value  # it was made printable when it was recorded
    error.args = (f"{name}: {value} is not allowed; {rule}",)
    return error


def _message_in(known: Mapping[str, Any]) -> str:
    """Return the message of a recorded error, without the IDs that the text of an error ends with."""
    message = _text_in(known, "message") or "the request failed earlier; there are no details"
    return IDS.sub("", message)


def _seen_in(known: Mapping[str, Any]) -> str:
    """Return what an uncertain request met. Earlier versions recorded the whole sentence around it only."""
    if not known:
        return OWNER_DIED
    message = _message_in(known)
    whole = UNCERTAIN.fullmatch(message)
    return _text_in(known, "seen") or (whole[1] if whole else message)


def _text_in(known: Mapping[str, Any], name: str) -> str | None:
    value = known.get(name)
    return value if isinstance(value, str) else None

"""The input request and its journal row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from kontext_async.bulk.budget import read_money
from kontext_async.bulk.paths import is_relative_name
from kontext_async.bulk.states import State
from kontext_async.redaction import safe_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.bulk.budget import PriceKind
    from kontext_async.models import KontextRequest

__all__ = ["InputRequest", "JournalRow"]

PLAIN_FIELDS = ("seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance", "moderation")


@frozen(kw_only=True)
class InputRequest:
    """A request that was read from the input.

    Attributes:
        position: The position in the input, from 0.
        request: The request.
        fingerprint: The digest of all fields and image contents, 64 hexadecimal characters.
    """

    position: int
    request: KontextRequest
    fingerprint: str

    def fields(self) -> str:
        """Return the fields beside model and prompt as JSON for people and scripts; of images, only the names."""
        request = self.request
        given: dict[str, Any] = {name: getattr(request, name) for name in PLAIN_FIELDS}
        given["metadata"] = dict(request.metadata) if request.metadata else None
        given["input_images"] = [_named(source) for source in request.input_images]
        return json.dumps({name: value for name, value in given.items() if value not in (None, [])})


def _named(source: object) -> str:
    return str(source) if hasattr(source, "__fspath__") else safe_repr(source)


@define(kw_only=True)
class JournalRow:
    """A request in the journal. Changes of the object are not written automatically.

    Attributes:
        id: The ID of the row within its run.
        fingerprint: The fingerprint of the request.
        occurrence: The number of earlier requests of the input with this fingerprint.
        position: The position in the input of the latest run, from 0.
        state: The state of the request.
        attempts: The number of create requests that were sent.
        doubtful: The number of earlier create requests that are uncertain.
        sunk: USD that earlier tasks of this request cost.
        model: The requested model.
        images: The number of input images.
        prompt: The prompt.
        fields: The other fields of the request.
        task_id: The task ID; None before acceptance.
        cost: USD; None if the gateway did not report the cost.
        seconds: Seconds from acceptance until the run detected completion.
        files: The saved images: names within the directory, and sizes in bytes.
        error: The error of a failed request, or the last error seen.
        accepted_at: Unix seconds.
        completed_at: Unix seconds.
        completion: The number in the order of completion, from 1.
    """

    id: int
    fingerprint: str
    occurrence: int
    position: int
    state: State = State.PLANNED
    attempts: int = 0
    doubtful: int = 0
    sunk: Decimal = Decimal(0)
    model: str
    images: int
    prompt: str
    fields: Mapping[str, Any]
    task_id: str | None = None
    cost: Decimal | None = None
    seconds: float | None = None
    files: tuple[tuple[str, int], ...] = field(default=())
    error: Mapping[str, Any] | None = None
    accepted_at: float | None = None
    completed_at: float | None = None
    completion: int | None = None

    @property
    def kind(self) -> PriceKind:
        """The price kind."""
        return self.model, self.images

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> JournalRow:
        """Build a row from a record of the database. Names of files outside the run's directory are left out.

        Raises:
            ValueError: A value is not one that a run writes.
        """
        files = [(name, int(size)) for name, size in json.loads(known["files"] or "[]")]
        return cls(
            id=known["id"],
            fingerprint=bytes(known["fingerprint"]).hex(),
            occurrence=known["occurrence"],
            position=known["position"],
            state=State(known["state"]),
            attempts=known["attempts"],
            doubtful=known["doubtful"],
            sunk=read_money(known["sunk"]),
            model=known["model"],
            images=known["images"],
            prompt=known["prompt"],
            fields=json.loads(known["fields"]),
            task_id=known["task_id"],
            cost=None if known["cost"] is None else read_money(known["cost"]),
            seconds=known["seconds"],
            files=tuple(files) if all(is_relative_name(name) for name, _ in files) else (),
            error=json.loads(known["error"]) if known["error"] else None,
            accepted_at=known["accepted_at"],
            completed_at=known["completed_at"],
            completion=known["completion"],
        )

    @classmethod
    def new(cls, number: int, entry: InputRequest, occurrence: int) -> JournalRow:
        """Build the row of a request that is new to the journal."""
        return cls(
            id=number,
            fingerprint=entry.fingerprint,
            occurrence=occurrence,
            position=entry.position,
            model=entry.request.model,
            images=len(entry.request.input_images),
            prompt=entry.request.prompt,
            fields=json.loads(entry.fields()),
        )

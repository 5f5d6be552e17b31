"""What the journal is asked about, and what it says: a request that was read, and its row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from kontext_async.bulk.states import State
from kontext_async.redaction import safe_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.bulk.budget import PriceKind
    from kontext_async.models import KontextRequest

__all__ = ["Entry", "Row"]

PLAIN_FIELDS = ("seed", "aspect_ratio", "output_format", "prompt_upsampling", "safety_tolerance")


@frozen(kw_only=True)
class Entry:
    """A request that was read.

    Attributes:
        position: Its place in the input, from 0.
        request: The request.
        fingerprint: Of every field and of the contents of the images, 64 hexadecimal characters.
    """

    position: int
    request: KontextRequest
    fingerprint: str

    def fields(self) -> str:
        """What was asked for beside model and prompt, as JSON for people and scripts; of images, only their names."""
        request = self.request
        given: dict[str, Any] = {name: getattr(request, name) for name in PLAIN_FIELDS}
        given["input_images"] = [_named(source) for source in request.input_images]
        return json.dumps({name: value for name, value in given.items() if value not in (None, [])})


def _named(source: object) -> str:
    return str(source) if hasattr(source, "__fspath__") else safe_repr(source)


@define(kw_only=True)
class Row:
    """What the journal knows of a request. Changes here are not written by themselves.

    Attributes:
        id: The row's id within its run.
        fingerprint: The request's.
        occurrence: Which of the requests with this fingerprint it is, from 0.
        position: Where it stands in the input of the latest run, from 0.
        state: How far it has come.
        attempts: Creates that went out.
        doubtful: Earlier creates of which nobody knows whether they were accepted.
        sunk: USD that earlier tasks of this request cost.
        model: The model that was asked for.
        images: How many input images there are.
        prompt: The prompt.
        fields: What else was asked for.
        task_id: The task's id, once accepted.
        cost: USD, where the gateway said it.
        seconds: From accepted to seen finished.
        files: Its pictures: names within the directory, and sizes in bytes.
        error: Why it failed, or what was seen last.
        accepted_at: Unix seconds.
        completed_at: Unix seconds.
        completion: Its place in the order of completion, from 1.
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
        """What its price depends on."""
        return self.model, self.images

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> Row:
        """A row as the database has it."""
        return cls(
            id=known["id"],
            fingerprint=bytes(known["fingerprint"]).hex(),
            occurrence=known["occurrence"],
            position=known["position"],
            state=State(known["state"]),
            attempts=known["attempts"],
            doubtful=known["doubtful"],
            sunk=Decimal(known["sunk"]),
            model=known["model"],
            images=known["images"],
            prompt=known["prompt"],
            fields=json.loads(known["fields"]),
            task_id=known["task_id"],
            cost=None if known["cost"] is None else Decimal(known["cost"]),
            seconds=known["seconds"],
            files=tuple((name, size) for name, size in json.loads(known["files"] or "[]")),
            error=json.loads(known["error"]) if known["error"] else None,
            accepted_at=known["accepted_at"],
            completed_at=known["completed_at"],
            completion=known["completion"],
        )

    @classmethod
    def new(cls, number: int, entry: Entry, occurrence: int) -> Row:
        """The row of a request that the journal has not seen."""
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

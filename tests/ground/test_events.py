"""The session events as values."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import attrs
import pytest

from kontext_async import events
from kontext_async.cancellation import Cancellation, CancelOutcome
from kontext_async.errors import TaskNotFound
from kontext_async.events import (
    Abandoned,
    Accepted,
    CancelRequested,
    CircuitClosed,
    CircuitOpened,
    Completed,
    Downloaded,
    Event,
    Failed,
    Retrying,
    StatusReceived,
    Submitting,
    Throttled,
)
from kontext_async.models import GeneratedImage, Generation, TaskState, TaskStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

AT = datetime(2026, 1, 9, tzinfo=UTC)
STATUS = TaskStatus(task_id="t1", state=TaskState.IN_PROGRESS, raw_status="in_progress")
IMAGE = GeneratedImage(url="https://cdn.example/a.jpg?signature=secret", task_id="t1")
GENERATION = Generation(
    task_id="t1", model=None, request=None, images=(IMAGE,), usage=Usage(), created_at=None, elapsed=1.0
)
OUTCOME = CancelOutcome(task_id="t1", reference="vtrix:t1", cancellation=Cancellation.TOO_LATE, status=STATUS)
EVENTS: list[Event] = [
    Submitting(at=AT, fingerprint="f", attempt=1),
    Accepted(at=AT, task_id="t1", fingerprint="f", status=STATUS),
    StatusReceived(at=AT, task_id="t1", status=STATUS),
    Throttled(at=AT, seconds=1.5, scope="submit"),
    Retrying(at=AT, task_id="t1", operation="status", attempt=1, error=TaskNotFound("not yet", task_id="t1")),
    CircuitOpened(at=AT, error=TaskNotFound("gone"), seconds=1.0),
    CircuitClosed(at=AT, seconds=2.0),
    Completed(at=AT, task_id="t1", generation=GENERATION),
    Failed(at=AT, task_id="t1", error=TaskNotFound("gone", task_id="t1")),
    Abandoned(at=AT, task_id="t1", reason="its caller has gone"),
    CancelRequested(at=AT, task_id="t1", outcome=OUTCOME),
    Downloaded(at=AT, task_id="t1", image=IMAGE, path=Path("a.jpg"), size=3),
]
EACH_EVENT = pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)


def test_these_examples_cover_every_event() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    assert {type(event).__name__ for event in EVENTS} | {"Event"} == set(events.__all__)


@EACH_EVENT
def test_events_are_frozen(event: Any) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.at = AT


@EACH_EVENT
def test_events_survive_pickling(event: Event) -> None:
    twin = pickle.loads(pickle.dumps(event))  # noqa: S301 # pickled on this line
    assert type(twin) is type(event)
    if not hasattr(event, "error"):  # errors are equal only if they are identical
        assert twin == event


@EACH_EVENT
def test_the_repr_of_an_event_hides_queries(event: Event) -> None:
    assert "secret" not in repr(event)


@EACH_EVENT
def test_task_id_and_fingerprint_of_an_event_are_optional(event: Event) -> None:
    event_class: Callable[..., Any] = type(event)
    own = {
        a.name: getattr(event, a.name)
        for a in attrs.fields(type(event))
        if a.name not in ("at", "task_id", "fingerprint")
    }
    bare = event_class(at=AT, **own)
    assert (bare.task_id, bare.fingerprint) == (None, None)

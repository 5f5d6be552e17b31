"""The seconds that a request spent in each of its stages, from the event stream. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, fields, frozen

from kontext_async.events import Accepted, Completed, Downloaded

if TYPE_CHECKING:
    from kontext_async.events import Event

__all__ = ["RequestTimer", "RequestTimes"]

REMEMBERED_TASKS = 10_000
"""Tasks whose times are remembered at once; the oldest is forgotten."""


@frozen(kw_only=True)
class RequestTimes:
    """The seconds that a request spent in each stage; None for a stage that was not seen.

    Attributes:
        queued: Until its last attempt left the queue for a slot.
        sent: Until the gateway had accepted it.
        pending: Until a poll saw it completed.
        downloading: The download of its image.
    """

    queued: float | None = None
    sent: float | None = None
    pending: float | None = None
    downloading: float | None = None

    @property
    def stages(self) -> dict[str, float]:
        """The stages that were seen, in their order."""
        stages = {each.name: getattr(self, each.name) for each in fields(RequestTimes)}
        return {name: seconds for name, seconds in stages.items() if seconds is not None}

    @property
    def total(self) -> float:
        """The sum of all stages that were seen."""
        return (self.queued or 0.0) + (self.sent or 0.0) + (self.pending or 0.0) + (self.downloading or 0.0)


UNSEEN = RequestTimes()


class RequestTimer:
    """Collects the times of requests. It must see their events in order: `Accepted`, `Completed` and `Downloaded`."""

    def __init__(self) -> None:
        self._times: dict[str, RequestTimes] = {}

    def observe(self, event: Event) -> RequestTimes:
        """Return the times of the event's request as they are after the event."""
        match event:
            case Completed(generation=generation):
                return self.observe_completed(generation.task_id, generation.elapsed)
            case Accepted(queued=queued, sent=sent):
                times = RequestTimes(queued=queued, sent=sent)
            case _:
                times = self._times.get(event.task_id or "", UNSEEN)
        if isinstance(event, Downloaded):
            times = evolve(times, downloading=(times.downloading or 0.0) + event.seconds)
        return self._remember(event.task_id, times)

    def observe_completed(self, task_id: str, seconds: float) -> RequestTimes:
        """Return the times of a request as they are once its task has completed after so many seconds."""
        seen = self._times.get(task_id, UNSEEN)  # `evolve` takes ten times as long, for each task
        times = RequestTimes(queued=seen.queued, sent=seen.sent, pending=seconds, downloading=seen.downloading)
        return self._remember(task_id, times)

    def _remember(self, task_id: str | None, times: RequestTimes) -> RequestTimes:
        if task_id is not None:
            self._times.pop(task_id, None)
            self._times[task_id] = times
            if len(self._times) > REMEMBERED_TASKS:
                del self._times[next(iter(self._times))]
        return times

"""Spans and metrics of a session, from its event stream, by the API of OpenTelemetry.

A request is one span, with a child for each of its stages: ``queued``, ``sent``, ``pending`` and ``downloading``. It
belongs to the span in which `KontextSession.generate` was called. Names follow the semantic conventions for generative
AI where these have one (https://opentelemetry.io/docs/specs/semconv/gen-ai/); the others begin with ``kontext``.

No span and no metric has a prompt, an image, a key or a URL of an image.

=====================================  ==============  ==========================================================
metric                                 instrument      what it measures
=====================================  ==============  ==========================================================
``gen_ai.client.operation.duration``   histogram, s    requests, from the queue to the end of their task
``kontext.request.stage.duration``     histogram, s    each stage of a request: ``kontext.stage``
``kontext.requests.queued``            gauge           submissions that wait for a slot
``kontext.requests.in_flight``         gauge           slots in use
``kontext.requests.limit``             gauge           slots that the account sustains
``kontext.tasks.pending``              gauge           tasks that are polled
``kontext.circuit.open``               gauge           1 while submitting has stopped
``kontext.polls``                      counter         status requests that returned a status
``kontext.throttled``                  counter         times that the gateway asked to slow down
``kontext.requests.uncertain``         counter         submissions whose outcome is unknown
``kontext.requests.abandoned``         counter         tasks and requests that nobody waits for any longer
``kontext.spent``                      counter, USD    what completed tasks cost
=====================================  ==============  ==========================================================
"""

from __future__ import annotations

import asyncio
import weakref
from concurrent.futures import CancelledError, TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import frozen
from opentelemetry import context as otel_context, metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, StatusCode

from kontext_async.engine.request_times import RequestTimer
from kontext_async.events import Accepted, Completed, Downloaded, Failed
from kontext_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import TracerProvider

    from kontext_async.engine.request_times import RequestTimes
    from kontext_async.models import SessionStatistics
    from kontext_async.session import KontextSession

__all__ = ["instrument"]

OPERATION = "generate_content"
PROVIDER = "black_forest_labs"

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds: tasks take from one to some dozens, and `Timeouts.wait` is 600 by default."""

GAUGES: dict[str, tuple[str, Callable[[SessionStatistics], float]]] = {
    "kontext.requests.queued": ("{request}", lambda figures: figures.queued),
    "kontext.requests.in_flight": ("{request}", lambda figures: figures.in_flight),
    "kontext.requests.limit": ("{request}", lambda figures: figures.limit),
    "kontext.tasks.pending": ("{task}", lambda figures: figures.pending),
    "kontext.circuit.open": ("1", lambda figures: float(figures.circuit != "closed")),
}
COUNTERS: dict[str, tuple[str, Callable[[SessionStatistics], float]]] = {
    "kontext.polls": ("{request}", lambda figures: figures.polls),
    "kontext.throttled": ("{response}", lambda figures: figures.throttled),
    "kontext.requests.uncertain": ("{request}", lambda figures: figures.uncertain),
    "kontext.requests.abandoned": ("{request}", lambda figures: figures.abandoned),
    "kontext.spent": ("{USD}", lambda figures: float(figures.spent)),
}

COLLECT_SECONDS = 1.0
"""Seconds for which a collecting thread waits for the session's event loop."""

REMEMBERED_PARENTS = 10_000


def instrument(
    session: KontextSession,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Callable[[], None]:
    """Record spans and metrics of a session. Call it on the session's event loop, once for each session.

    Args:
        session: The session.
        tracer_provider: Makes the tracer; None is the global one.
        meter_provider: Makes the meter; None is the global one.

    Returns:
        A function that ends it.
    """
    address = urlsplit(session.base_url)
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDER,
        "server.address": address.hostname or "",
    }
    if address.port:
        attributes["server.port"] = address.port
    meter = metrics.get_meter(__name__, __version__, meter_provider)
    _observe_statistics(session, meter, attributes)
    recorder = _Recorder(trace.get_tracer(__name__, __version__, tracer_provider), meter, attributes)
    return session.subscribe(recorder.on_event, Accepted, Completed, Failed, Downloaded)


@frozen
class _Origin:
    """The span and the model of a request, as they are known when the gateway accepts it."""

    context: Context
    model: str | None


class _Recorder:
    """Makes spans and histograms from events."""

    def __init__(self, tracer: trace.Tracer, meter: Meter, attributes: Mapping[str, Any]) -> None:
        self._tracer = tracer
        self._attributes = attributes
        self._timer = RequestTimer()
        self._origins: dict[str | None, _Origin] = {}
        self._durations = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._stages = meter.create_histogram(
            "kontext.request.stage.duration",
            unit="s",
            description="Duration of a stage of a request.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def on_event(self, event: Accepted | Completed | Failed | Downloaded) -> None:
        """Record an event."""
        match event:
            case Accepted():
                self._timer.observe(event)
                self._remember(event.task_id, _Origin(otel_context.get_current(), event.model))
            case Completed():
                self._record_completed(event)
            case Failed():
                self._record_failed(event)
            case Downloaded():
                self._record_downloaded(event)

    def _remember(self, task_id: str | None, origin: _Origin) -> None:
        self._origins[task_id] = origin
        if len(self._origins) > REMEMBERED_PARENTS:
            del self._origins[next(iter(self._origins))]

    def _record_completed(self, event: Completed) -> None:
        times = self._timer.observe(event)
        generation = event.generation
        origin = self._origin(event.task_id)
        model = origin.model or generation.model
        details = {"gen_ai.response.id": generation.task_id, "gen_ai.output.type": "image"}
        if generation.model:
            details["gen_ai.response.model"] = generation.model
        span = self._start_span(event.at, times.total, origin, model, details)
        if generation.usage.cost is not None:
            span.set_attribute("kontext.cost", float(generation.usage.cost))
        self._record_stages(span, event.at, times, model)
        span.end(_nanoseconds(event.at))
        self._remember(event.task_id, _Origin(trace.set_span_in_context(span, origin.context), model))
        self._durations.record(times.total, self._labels(model))

    def _record_failed(self, event: Failed) -> None:
        origin = self._origin(event.task_id)
        seconds = event.elapsed or 0.0
        kind = type(event.error).__name__
        details = {"error.type": kind} | ({"gen_ai.response.id": event.task_id} if event.task_id else {})
        span = self._start_span(event.at, seconds, origin, origin.model, details)
        span.set_status(StatusCode.ERROR, str(event.error))
        span.end(_nanoseconds(event.at))
        self._durations.record(seconds, {**self._labels(origin.model), "error.type": kind})

    def _record_downloaded(self, event: Downloaded) -> None:
        origin = self._origin(event.task_id)
        self._record_stage("downloading", event.at, event.seconds, origin.context, origin.model)

    def _record_stages(self, span: trace.Span, at: datetime, times: RequestTimes, model: str | None) -> None:
        context = trace.set_span_in_context(span)
        later = 0.0
        for name, seconds in reversed(times.stages.items()):
            self._record_stage(name, at, seconds, context, model, later=later)
            later += seconds

    def _record_stage(
        self, name: str, at: datetime, seconds: float, context: Context, model: str | None, *, later: float = 0.0
    ) -> None:
        ended = _nanoseconds(at) - round(later * 1e9)
        span = self._tracer.start_span(name, context, start_time=ended - round(seconds * 1e9))
        span.end(ended)
        self._stages.record(seconds, {**self._labels(model), "kontext.stage": name})

    def _start_span(
        self, ended: datetime, seconds: float, origin: _Origin, model: str | None, details: Mapping[str, Any]
    ) -> trace.Span:
        return self._tracer.start_span(
            f"{OPERATION} {model}" if model else OPERATION,
            origin.context,
            kind=SpanKind.CLIENT,
            attributes={**self._labels(model), **details},
            start_time=_nanoseconds(ended) - round(seconds * 1e9),
        )

    def _origin(self, task_id: str | None) -> _Origin:
        known = self._origins.pop(task_id, None) if task_id else None
        return known or _Origin(otel_context.get_current(), None)

    def _labels(self, model: str | None) -> dict[str, Any]:
        return {**self._attributes, **({"gen_ai.request.model": model} if model else {})}


def _observe_statistics(session: KontextSession, meter: Meter, attributes: Mapping[str, Any]) -> None:
    """Register the gauges and counters, which are read when somebody collects them."""
    loop = asyncio.get_running_loop()
    known = weakref.ref(session)

    def observe(read: Callable[[SessionStatistics], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            if figures := _read_statistics(known(), loop):
                yield Observation(read(figures), attributes)

        return callback

    for name, (unit, read) in GAUGES.items():
        meter.create_observable_gauge(name, [observe(read)], unit=unit)
    for name, (unit, read) in COUNTERS.items():
        meter.create_observable_counter(name, [observe(read)], unit=unit)


def _read_statistics(session: KontextSession | None, loop: asyncio.AbstractEventLoop) -> SessionStatistics | None:
    """Read the figures on the session's loop: exporters collect in threads of their own."""
    if session is None or session.is_closed or loop.is_closed():
        return None
    try:
        if asyncio.get_running_loop() is loop:
            return session.statistics()
    except RuntimeError:  # no loop runs in this thread
        pass

    async def read() -> SessionStatistics:  # for the loop
        return session.statistics()

    coroutine = read()
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(COLLECT_SECONDS)
    except (FutureTimeoutError, CancelledError, RuntimeError):
        coroutine.close()
        return None


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1e9)

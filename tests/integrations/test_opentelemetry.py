"""Spans and metrics of a session, as the SDK's exporters in memory receive them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from session_support import new_session, run_with_clock

from kontext_async import KontextError, KontextSession
from kontext_async.emulator import Emulator
from kontext_async.integrations import opentelemetry
from kontext_async.testing import FAST, ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

pytestmark = pytest.mark.anyio


class Telemetry:
    """The SDK with exporters in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def instrument(self, session: KontextSession) -> Any:
        return opentelemetry.instrument(session, tracer_provider=self.tracers, meter_provider=self.meters)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def points(self) -> dict[str, list[Any]]:
        """Return the data points of each metric."""
        data: Any = self.reader.get_metrics_data()
        if data is None:
            return {}
        found = [metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in found}

    def value(self, name: str) -> float:
        (point,) = self.points()[name]
        value: float = point.value
        return value


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.meters.shutdown()
    made.tracers.shutdown()


def seconds_of(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_slow_request_is_a_span_with_its_stages(telemetry: Telemetry, clock: ManualClock) -> None:
    async with (
        Emulator(service_time=20.0, clock=clock.unix) as emulator,
        KontextSession(emulator.api_key, base_url=emulator.base_url, clock=clock) as session,
    ):
        telemetry.instrument(session)
        with telemetry.tracers.get_tracer("web").start_as_current_span("GET /image") as web_request:
            generation = await run_with_clock(session.generate("a secret fox"), clock, session)
        await session.read(generation.image)
        port = session.base_url.rpartition(":")[2]
    (span,) = telemetry.spans("generate_content flux_kontext_pro")
    assert span.parent is not None
    assert span.parent.span_id == web_request.get_span_context().span_id
    assert attributes_of(span) == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "black_forest_labs",
        "gen_ai.request.model": "flux_kontext_pro",
        "gen_ai.response.model": "flux_kontext_pro",
        "gen_ai.response.id": generation.task_id,
        "gen_ai.output.type": "image",
        "server.address": "127.0.0.1",
        "server.port": int(port),
        "kontext.cost": 0.04,
    }
    stages = {name: telemetry.spans(name)[0] for name in ("queued", "sent", "pending", "downloading")}
    for stage in stages.values():
        assert stage.parent == span.context
    assert seconds_of(stages["pending"]) == pytest.approx(generation.elapsed, abs=1e-3)
    assert seconds_of(stages["pending"]) >= 20
    assert seconds_of(span) == pytest.approx(
        sum(seconds_of(stages[name]) for name in ("queued", "sent", "pending")), abs=1e-3
    )
    assert stages["queued"].end_time == stages["sent"].start_time
    assert stages["sent"].end_time == stages["pending"].start_time
    assert "secret" not in "".join(each.to_json() for each in telemetry.exporter.get_finished_spans())


async def test_the_durations_are_histograms(telemetry: Telemetry, session: KontextSession) -> None:
    telemetry.instrument(session)
    outcomes = await session.generate_all(["a fox"] * 5)
    for outcome in outcomes:
        assert outcome.generation
        await session.read(outcome.generation.image)
    points = telemetry.points()
    (durations,) = points["gen_ai.client.operation.duration"]
    assert durations.count == 5
    assert durations.attributes["gen_ai.request.model"] == "flux_kontext_pro"
    stages = {point.attributes["kontext.stage"]: point.count for point in points["kontext.request.stage.duration"]}
    assert stages == {"queued": 5, "sent": 5, "pending": 5, "downloading": 5}


async def test_the_figures_of_the_session_are_gauges_and_counters(
    telemetry: Telemetry, session: KontextSession
) -> None:
    telemetry.instrument(session)
    await session.generate_all(["a fox"] * 3)
    figures = session.statistics()
    assert telemetry.value("kontext.spent") == pytest.approx(0.12)
    assert telemetry.value("kontext.polls") == figures.polls > 0
    assert telemetry.value("kontext.requests.limit") == figures.limit
    for name in ("queued", "in_flight", "uncertain", "abandoned"):
        assert telemetry.value(f"kontext.requests.{name}") == 0
    assert telemetry.value("kontext.tasks.pending") == 0
    assert telemetry.value("kontext.throttled") == 0
    assert telemetry.value("kontext.circuit.open") == 0


async def test_figures_are_read_from_other_threads(telemetry: Telemetry, session: KontextSession) -> None:
    telemetry.instrument(session)
    await session.generate("a fox")
    points = await asyncio.to_thread(telemetry.points)
    assert points["kontext.spent"][0].value == pytest.approx(0.04)


async def test_figures_are_gone_with_the_session(telemetry: Telemetry, emulator: Emulator) -> None:
    async with new_session(emulator) as session:
        telemetry.instrument(session)
    assert "kontext.spent" not in telemetry.points()
    assert "kontext.spent" not in await asyncio.to_thread(telemetry.points)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("task-fails", "TaskFailed"),
        ("balance-too-low", "PermissionDenied"),
        ("cut-after-accept", "SubmissionUncertain"),
    ],
)
async def test_a_failure_is_a_span_with_its_error(
    telemetry: Telemetry, session: KontextSession, emulator: Emulator, fault: str, error: str
) -> None:
    emulator.faults.script("create", [fault])
    telemetry.instrument(session)
    with pytest.raises(KontextError):
        await session.generate("a fox")
    (span,) = [span for span in telemetry.exporter.get_finished_spans() if span.name.startswith("generate_content")]
    assert not span.status.is_ok
    assert attributes_of(span)["error.type"] == error
    (durations,) = telemetry.points()["gen_ai.client.operation.duration"]
    assert durations.attributes["error.type"] == error


async def test_the_function_that_instrument_returns_ends_it(telemetry: Telemetry, session: KontextSession) -> None:
    stop = telemetry.instrument(session)
    stop()
    await session.generate("a fox")
    assert telemetry.exporter.get_finished_spans() == ()


async def test_an_attached_task_is_a_span_of_its_wait(
    telemetry: Telemetry, session: KontextSession, emulator: Emulator
) -> None:
    task = await session.submit("a fox")
    async with new_session(emulator, FAST) as other:
        telemetry.instrument(other)
        await other.attach(task.id).wait()
    (span,) = telemetry.spans("generate_content flux_kontext_pro")
    assert [each.name for each in telemetry.exporter.get_finished_spans()] == ["pending", span.name]

"""The types that an editor shows for the public API. mypy and pyright check this file; none of it is sent."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, assert_never, assert_type, get_type_hints

import attrs
import pytest

import kontext_async
from kontext_async import (
    CancelOutcome,
    GeneratedImage,
    Generation,
    GenerationTask,
    ImageSource,
    InvalidRequest,
    KontextError,
    KontextRequest,
    KontextSession,
    Limits,
    Outcome,
    Polling,
    RequestFields,
    RequestLike,
    Retries,
    SessionStatistics,
    Settings,
    SubmissionUncertain,
    TaskErrorDetail,
    TaskState,
    TaskStatus,
    TaskTimeout,
    Timeouts,
    UntrustedRules,
    Usage,
)
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

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Iterator
    from os import PathLike

    from PIL import Image


async def generate_one_image(session: KontextSession, timeout: float | None) -> None:
    assert_type(await session.generate("a fox"), Generation)
    assert_type(await session.generate({"prompt": "a fox"}, timeout=300), Generation)
    assert_type(await session.generate(KontextRequest("a fox"), timeout=timeout, seed=7), Generation)
    assert_type(await session.submit("a fox", aspect_ratio="16:9", output_format="png"), GenerationTask)
    await session.generate(
        "a fox",
        input_images=["fox.jpg"],
        seed=None,
        aspect_ratio=None,
        output_format=None,
        prompt_upsampling=True,
        safety_tolerance=0,
        model="flux_kontext_max",
    )


async def wrap_generate(session: KontextSession, prompt: str, **fields: Unpack[RequestFields]) -> Path:
    """A user's wrapper, whose keywords are checked as those of `KontextSession.generate`."""
    generation = await session.generate(prompt, timeout=60, **fields)
    return await session.save(generation.image, "fox.jpg")


async def use_the_wrapper(session: KontextSession) -> None:
    assert_type(await wrap_generate(session, "a fox", seed=7, aspect_ratio="16:9"), Path)
    await wrap_generate(session, "a fox", sed=7)  # type: ignore[call-arg]
    await wrap_generate(session, "a fox", seed="7")  # type: ignore[arg-type]
    await wrap_generate(session, "a fox", timeout=60)  # type: ignore[call-arg]


async def refuse_wrong_keywords(session: KontextSession) -> None:
    await session.generate("a fox", sed=7)  # type: ignore[call-arg]
    await session.generate("a fox", seed="7")  # type: ignore[arg-type]
    await session.generate("a fox", output_format="gif")  # type: ignore[arg-type]
    await session.generate("a fox", prompt_upsampling="yes")  # type: ignore[arg-type]
    await session.generate("a fox", input_images=7)  # type: ignore[arg-type]
    await session.generate("a fox", model=None)  # type: ignore[arg-type]
    await session.generate("a fox", 300)  # type: ignore[call-arg]
    await session.generate()  # type: ignore[call-arg]
    await session.generate(["a fox"])  # type: ignore[arg-type]
    await session.submit("a fox", timeout=300)  # type: ignore[call-arg]
    await session.submit("a fox", aspect_ratio=(16, 9))  # type: ignore[arg-type]


async def use_a_task(session: KontextSession) -> None:
    task = session.attach("d8ejq1de878c739e2lrg")
    assert_type(task, GenerationTask)
    assert_type(task.id, str)
    assert_type(task.request, KontextRequest | None)
    assert_type(await task.wait(), Generation)
    assert_type(await task.wait(timeout=300), Generation)
    assert_type(await task.wait(300), Generation)
    assert_type(await task.status(), TaskStatus)
    assert_type(task.updates(), AsyncGenerator[TaskStatus, None])
    assert_type(task.updates(every=0.5), AsyncGenerator[TaskStatus, None])
    assert_type(task.updates(None), AsyncGenerator[TaskStatus, None])
    task.updates(every="1")  # type: ignore[arg-type]
    async for status in task.updates():
        assert_type(status, TaskStatus)
    task.id = "other"  # type: ignore[misc]
    session.attach(7)  # type: ignore[arg-type]


async def generate_many_images(
    session: KontextSession, lines: Iterator[str], rows: AsyncIterator[Mapping[str, Any]]
) -> None:
    assert_type(session.generate_many(lines), AsyncGenerator[Outcome, None])
    async for outcome in session.generate_many(rows, fail_fast=True):
        assert_type(outcome, Outcome)
        assert_type(outcome.ok, bool)
        assert_type(outcome.index, int)
        assert_type(outcome.request, KontextRequest | None)
        assert_type(outcome.task_id, str | None)
        assert_type(outcome.generation, Generation | None)
        assert_type(outcome.error, KontextError | None)
        if outcome.generation:
            assert_type(await session.save(outcome.generation, "fox.jpg"), list[Path])
    assert_type(await session.generate_all(["a fox", {"prompt": "a fox"}, KontextRequest("a fox")]), list[Outcome])
    session.generate_many([7])  # type: ignore[list-item]
    session.generate_many(7)  # type: ignore[arg-type]


async def download_images(
    session: KontextSession, image: GeneratedImage, generation: Generation, path: PathLike[str]
) -> None:
    assert_type(await session.read(image), bytes)
    assert_type(await session.save(image, "fox.jpg"), Path)
    assert_type(await session.save(image, path), Path)
    assert_type(await session.save(generation, path), list[Path])
    assert_type(await session.save(generation.image, path), Path)
    assert_type(await session.save(generation.image, path, durable=True), Path)
    assert_type(await session.read(generation.image), bytes)
    await session.read(generation)  # type: ignore[arg-type]
    await session.save("https://host/fox.jpg", path)  # type: ignore[call-overload]


def show_completed(event: Completed) -> None:
    """A callback for one kind of event."""


async def use_a_session(session: KontextSession, callback: Callable[[Event], None]) -> None:
    async with KontextSession() as running:
        assert_type(running, KontextSession)
    assert_type(await KontextSession("key", base_url="http://host", settings=Settings()).start(), KontextSession)
    await session.aclose()
    assert_type(session.statistics(), SessionStatistics)
    assert_type(session.statistics().spent, Decimal)
    assert_type(session.subscribe(callback), Callable[[], None])
    session.subscribe(print)
    session.subscribe(lambda event: event.at)
    session.subscribe(lambda event: event.generation, Completed)
    session.subscribe(lambda event: event.task_id, Completed, Downloaded)
    assert_type(session.subscribe(show_completed, Completed), Callable[[], None])
    assert_type(session.subscribe(callback, task_id="t"), Callable[[], None])
    session.subscribe(lambda event: event.generation, Completed, task_id="t")
    session.subscribe(lambda event: event.task_id, Completed, Downloaded, task_id=None)
    session.subscribe(callback, task_id=7)  # type: ignore[call-overload]
    session.subscribe(show_completed)  # type: ignore[arg-type]
    session.subscribe(show_completed, Failed)  # type: ignore[arg-type]
    session.subscribe(callback, "Completed")  # type: ignore[call-overload]
    KontextSession("key", "http://host")  # type: ignore[call-arg]
    KontextSession(limits=Limits(max_in_flight=3))
    KontextSession(limits=Limits(max_in_flight=3), timeouts=Timeouts(wait=900), polling=Polling(), retries=Retries())
    KontextSession(limits=Retries())  # type: ignore[arg-type]
    KontextSession(timeouts=30)  # type: ignore[arg-type]
    assert_type(session.is_closed, bool)
    with session:  # type: ignore[attr-defined]
        pass


def build_requests(file: io.BytesIO, image: Image.Image, path: Path, like: RequestLike) -> None:
    request = KontextRequest("a fox", input_images=[file, image, path, b"", "fox.jpg", memoryview(b"")], seed=7)
    assert_type(request.prompt, str)
    assert_type(request.input_images, tuple[ImageSource, ...])
    assert_type(request.seed, int | None)
    assert_type(request.aspect_ratio, str | None)
    assert_type(request.output_format, Literal["jpeg", "png", "webp"] | None)
    assert_type(request.prompt_upsampling, bool | None)
    assert_type(request.safety_tolerance, int | None)
    assert_type(request.model, str)
    assert_type(KontextRequest.of(like, seed=7), KontextRequest)
    assert_type(KontextRequest.from_untrusted({"prompt": "a fox"}, UntrustedRules()), KontextRequest)
    assert_type(KontextRequest.from_dict(request.to_dict()), KontextRequest)
    assert_type(Outcome.from_dict({}), Outcome)
    assert_type(attrs.evolve(request, seed=8), KontextRequest)
    KontextRequest("a fox", input_images="fox.jpg")
    KontextRequest("a fox", input_images=path)
    KontextRequest("a fox", input_images=["a.jpg", "b.jpg"])
    KontextRequest("a fox", input_images=(each for each in (file,)))
    KontextRequest()  # type: ignore[call-arg]
    KontextRequest("a fox", 7)  # type: ignore[call-arg, arg-type]
    KontextRequest("a fox", seed="7")  # type: ignore[arg-type]
    KontextRequest("a fox", output_format="gif")  # type: ignore[arg-type]
    KontextRequest("a fox", input_images=7)  # type: ignore[arg-type]
    KontextRequest.of(7)  # type: ignore[arg-type]
    request.seed = 8  # type: ignore[misc]


def read_results(generation: Generation, status: TaskStatus) -> None:
    assert_type(generation.task_id, str)
    assert_type(generation.model, str | None)
    assert_type(generation.request, KontextRequest | None)
    assert_type(generation.images, tuple[GeneratedImage, ...])
    assert_type(generation.image, GeneratedImage)
    assert_type(generation.images[0].url, str)
    assert_type(generation.images[0].job_id, str | None)
    assert_type(generation.usage, Usage)
    assert_type(generation.usage.cost, Decimal | None)
    assert_type(generation.usage.discount, float | None)
    assert_type(generation.created_at, datetime | None)
    assert_type(generation.elapsed, float)
    assert_type(generation.metadata, Mapping[str, Any])
    assert_type(status.state, TaskState)
    assert_type(status.state.is_terminal, bool)
    assert_type(status.progress, float | None)
    assert_type(status.error, TaskErrorDetail | None)
    generation.elapsed = 1.0  # type: ignore[misc]


def match_errors(error: KontextError) -> None:
    assert_type(error.task_id, str | None)
    assert_type(error.request_id, str | None)
    assert_type(error.retryable, bool)
    assert_type(error.may_be_charged, bool)
    assert_type(error.copy(), KontextError)
    match error:
        case InvalidRequest():
            assert_type((error.field, error.value, error.rule), tuple[str, str, str])
        case SubmissionUncertain():
            assert_type(error.fingerprint, str)
            assert_type(error.request, KontextRequest | None)
            assert_type(error.copy(), SubmissionUncertain)
        case TaskTimeout():
            assert_type(error.last_status, TaskStatus | None)
            assert_type(error.waited, float)
            timeout: TimeoutError = error
            timeout.with_traceback(None)


def match_events(event: Event) -> None:  # noqa: C901, PLR0912 # a case for each
    assert_type(event.at, datetime)
    assert_type(event.task_id, str | None)
    assert_type(event.fingerprint, str | None)
    match event:
        case Submitting():
            assert_type(event.attempt, int)
        case Accepted():
            assert_type(event.status, TaskStatus)
        case Throttled():
            assert_type(event.seconds, float)
            assert_type(event.scope, Literal["submit", "poll"])
        case Retrying():
            assert_type(event.operation, Literal["create", "status", "download"])
            assert_type((event.attempt, event.error), tuple[int, KontextError])
        case CircuitOpened():
            assert_type((event.error, event.seconds), tuple[KontextError, float])
        case CircuitClosed():
            assert_type(event.seconds, float)
        case Completed():
            assert_type(event.generation, Generation)
        case Failed():
            assert_type(event.error, KontextError)
        case StatusReceived():
            assert_type(event.status, TaskStatus)
        case Abandoned():
            assert_type(event.reason, str)
        case CancelRequested():
            assert_type(event.outcome, CancelOutcome)
        case Downloaded():
            assert_type((event.image, event.path, event.size), tuple[GeneratedImage, Path | None, int])
        case _:
            assert_never(event)


def test_the_keywords_of_generate_are_the_fields_of_a_request() -> None:
    keywords = RequestFields.__annotations__
    fields = attrs.fields_dict(KontextRequest)
    assert set(keywords) | {"prompt"} == set(fields)
    assert not RequestFields.__required_keys__


@pytest.mark.parametrize("name", sorted(set(kontext_async.__all__) - {"ImageSource", "RequestLike"}))
def test_every_public_name_is_importable_and_documented(name: str) -> None:
    found = getattr(kontext_async, name)
    assert name == "__version__" or inspect.getdoc(found)


@pytest.mark.parametrize("kind", [KontextSession, GenerationTask])
def test_every_public_method_has_types_and_a_docstring(kind: type) -> None:
    methods = {
        name: method
        for name, method in vars(kind).items()
        if not name.startswith("_") and (callable(method) or isinstance(method, property))
    }
    assert len(methods) >= 5
    for method in methods.values():
        function = method.fget if isinstance(method, property) else method
        assert inspect.getdoc(function)
        assert "return" in function.__annotations__


def test_the_type_hints_of_models_resolve() -> None:
    for kind in (KontextRequest, Generation, TaskStatus, Outcome, Settings):
        assert set(get_type_hints(kind)) >= {a.name for a in attrs.fields(kind)}


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(kontext_async.__file__).parent / "py.typed").exists()

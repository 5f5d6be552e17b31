"""What the user passes in and gets back: plain frozen data, without I/O and without a reference to a session.

Field rules: PROTOCOL.md, "Create: the request" and "The task". Money is `decimal.Decimal` in USD, durations are
float seconds, times are aware UTC datetimes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from datetime import datetime  # noqa: TC003 # attrs resolves it
from decimal import Decimal  # noqa: TC003 # attrs resolves it
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, cast

import attrs
from attrs import field, frozen

from kontext_async import images
from kontext_async.base_errors import InvalidRequest, KontextError
from kontext_async.images import ImageSource
from kontext_async.redaction import strip_query

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Estimate",
    "GeneratedImage",
    "Generation",
    "ImageSource",
    "KontextRequest",
    "Outcome",
    "RequestFields",
    "RequestLike",
    "SessionStatistics",
    "TaskErrorDetail",
    "TaskState",
    "TaskStatus",
    "Usage",
]

MODEL_PATTERN = re.compile(r"[A-Za-z0-9._-]+")
RATIO_PATTERN = re.compile(r"([1-9][0-9]{0,4}):([1-9][0-9]{0,4})")
MAX_INPUT_IMAGES = 4
SAFETY_TOLERANCES = range(7)
MAX_INTEGER_BITS = 2048
"""Python refuses to write longer integers as text, depending on ``sys.set_int_max_str_digits``."""

OutputFormat: TypeAlias = Literal["jpeg", "png"]


def _check_prompt(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(attribute.name, value, "it must be text that is not blank")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            attribute.name, ascii(value), "it must be valid Unicode, without lone surrogates"
        ) from None


def _check_images(_: object, attribute: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    if len(value) > MAX_INPUT_IMAGES:
        raise InvalidRequest(attribute.name, f"{len(value)} images", f"at most {MAX_INPUT_IMAGES} are taken")
    for index, source in enumerate(value):
        images.check(source, f"{attribute.name}[{index}]")


def _check_integer(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value.bit_length() > MAX_INTEGER_BITS:
        raise InvalidRequest(attribute.name, value, f"it must be an integer of at most {MAX_INTEGER_BITS} bits")


def _check_ratio(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    rule = "it must be W:H in whole numbers, between 21:9 and 9:21"
    match = RATIO_PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidRequest(attribute.name, value, rule)
    width, height = int(match[1]), int(match[2])
    if 9 * width > 21 * height or 21 * width < 9 * height:
        raise InvalidRequest(attribute.name, value, rule)


def _check_format(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("jpeg", "png"):
        raise InvalidRequest(attribute.name, value, "it must be 'jpeg' or 'png'")


def _check_boolean(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(attribute.name, value, "it must be true or false")


def _check_tolerance(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value not in SAFETY_TOLERANCES:
        raise InvalidRequest(attribute.name, value, "it must be an integer from 0 to 6")


def _check_model(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not MODEL_PATTERN.fullmatch(value):
        raise InvalidRequest(attribute.name, value, "it must be letters, digits, '.', '_' and '-'")


def _optional(check: Callable[[Any, Any, Any], None]) -> Any:
    return attrs.validators.optional(check)


def _as_images(value: ImageSource | Iterable[ImageSource] | None) -> tuple[ImageSource, ...]:
    """One image is taken for a list of one: it would otherwise be read letter by letter."""
    if value is None:
        return ()
    if isinstance(value, str | bytes | bytearray | memoryview | PathLike) or images.is_reader(value):
        return (cast("ImageSource", images.normalize(value)),)
    if not isinstance(value, Iterable):
        return (value,)
    return tuple(images.normalize(source) for source in value)


@frozen(weakref_slot=False)  # thousands of them wait at once
class KontextRequest:
    """One picture to be made or edited.

    Attributes:
        prompt: What to make, or what to change in the input images; not blank.
        input_images: Up to four images to edit or to combine: see `kontext_async.images.ImageSource`.
        seed: Any integer; None lets the server pick one.
        aspect_ratio: ``W:H``, between ``21:9`` and ``9:21``; None leaves it to the server.
        output_format: ``jpeg`` or ``png``; None leaves it to the server, which makes JPEG.
        prompt_upsampling: Whether the server may enrich the prompt; None leaves it to the server, which does not.
        safety_tolerance: 0 (strictest) to 6; None leaves it to the server, which takes 2.
        model: The model's id; ``flux_kontext_max`` takes the same fields.

    Raises:
        InvalidRequest: At construction, with the field, the value and the rule.
    """

    prompt: str = field(validator=_check_prompt)
    input_images: tuple[ImageSource, ...] = field(
        default=(),
        kw_only=True,
        converter=_as_images,
        validator=_check_images,
        repr=lambda value: f"<{len(value)}>",
    )
    seed: int | None = field(default=None, kw_only=True, validator=_optional(_check_integer))
    aspect_ratio: str | None = field(default=None, kw_only=True, validator=_optional(_check_ratio))
    output_format: OutputFormat | None = field(default=None, kw_only=True, validator=_optional(_check_format))
    prompt_upsampling: bool | None = field(default=None, kw_only=True, validator=_optional(_check_boolean))
    safety_tolerance: int | None = field(default=None, kw_only=True, validator=_optional(_check_tolerance))
    model: str = field(default="flux_kontext_pro", kw_only=True, validator=_check_model)

    @classmethod
    def of(cls, request: RequestLike, **fields: Any) -> KontextRequest:
        """A request from a prompt, a mapping of field names, or a request; `fields` go on top.

        Raises:
            InvalidRequest: Of a field that does not exist, or whose value is not allowed.
        """
        if isinstance(request, str):
            given: dict[str, Any] = {"prompt": request}
        elif isinstance(request, Mapping):
            given = dict(request)
        elif isinstance(request, cls):
            if not fields:
                return request
            given = {a.name: getattr(request, a.name) for a in attrs.fields(cls)}
        else:
            raise InvalidRequest("request", request, "it must be a prompt, a mapping of fields, or a KontextRequest")
        given |= fields
        known = attrs.fields_dict(cls)
        for name in given:
            if name not in known:
                raise InvalidRequest(
                    str(name), given[name], f"there is no such field; the fields are {', '.join(known)}"
                )
        if "prompt" not in given:
            raise InvalidRequest("prompt", None, "a request needs one")
        return cls(**given)


class RequestFields(TypedDict, total=False):
    """The fields of `KontextRequest` other than the prompt, as keyword arguments.

    Wrappers of `KontextSession.generate` can annotate theirs with ``**fields: Unpack[RequestFields]``.
    """

    input_images: ImageSource | Iterable[ImageSource]
    seed: int | None
    aspect_ratio: str | None
    output_format: OutputFormat | None
    prompt_upsampling: bool | None
    safety_tolerance: int | None
    model: str


RequestLike: TypeAlias = str | Mapping[str, Any] | KontextRequest
"""A prompt, a mapping of the names of `KontextRequest`'s fields, or a `KontextRequest`."""


class TaskState(enum.Enum):
    """Where a task is. What the gateway says beyond these words is `UNKNOWN`, and counts as not finished."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to the task."""
        return self is TaskState.COMPLETED or self is TaskState.FAILED


@frozen(kw_only=True)
class TaskErrorDetail:
    """Why a task failed, in the gateway's words."""

    code: str | None = None
    message: str = ""


@frozen(kw_only=True)
class GeneratedImage:
    """One picture of a finished task.

    Attributes:
        url: Where it can be fetched, until the URL expires.
        type: ``image``, or what else the gateway says.
        job_id: The gateway's id of the job that made it, where it gave one.
        task_id: The task that it belongs to.
    """

    url: str = field(repr=strip_query)
    type: str = "image"
    job_id: str | None = None
    task_id: str | None = None


@frozen(kw_only=True)
class Usage:
    """What a task cost.

    Attributes:
        cost: USD, None where the gateway did not say.
        discount: The factor that is already in `cost`, None where the gateway did not say.
        extra: What else the gateway said.
    """

    cost: Decimal | None = None
    discount: float | None = None
    extra: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class Estimate:
    """What the gateway says that a request would cost, before anything is paid.

    Attributes:
        cost: USD, None where the gateway does not know.
        currency: The currency that the gateway named; a cost in any other than USD is not taken.
        discount: The factor that is already in `cost`, None where the gateway did not say.
        model: The model that was priced, where that was said.
        reason: Why there is no cost, in the gateway's words.
    """

    cost: Decimal | None = None
    currency: str = "USD"
    discount: float | None = None
    model: str | None = None
    reason: str | None = None


@frozen(kw_only=True)
class TaskStatus:
    """What the gateway said of a task.

    Attributes:
        task_id: The task's id.
        state: Where the task is.
        raw_status: The gateway's own word for that.
        model: The model that makes it, where it was said.
        progress: 0.0 to 1.0, where it was said; it may go backwards.
        error: Why it failed, None while it has not.
        images: The pictures, in the gateway's order.
        usage: What it cost, None until that is said.
        created_at: When the gateway took it.
        metadata: The gateway's free-form notes.
        extra: Keys of the answer that are not described.
    """

    task_id: str
    state: TaskState
    raw_status: str
    model: str | None = None
    progress: float | None = None
    error: TaskErrorDetail | None = None
    images: tuple[GeneratedImage, ...] = ()
    usage: Usage | None = None
    created_at: datetime | None = None
    metadata: Mapping[str, Any] = field(factory=dict, hash=False)
    extra: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class Generation:
    """A finished task with its pictures.

    Attributes:
        task_id: The task's id.
        model: The model that made it, where that is known.
        request: What was asked for; None when the task was attached.
        images: At least one picture.
        usage: What it cost.
        created_at: When the gateway took the task, where it said so.
        elapsed: Seconds from accepted (or attached) to seen finished.
        metadata: The gateway's free-form notes.
    """

    task_id: str
    model: str | None
    request: KontextRequest | None
    images: tuple[GeneratedImage, ...]
    usage: Usage
    created_at: datetime | None
    elapsed: float
    metadata: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class Outcome:
    """What became of one of many requests.

    Attributes:
        index: The request's place in what was passed in, from 0.
        request: The request, None where none could be made from what was passed in.
        task_id: The task's id, None where the gateway did not accept one.
        generation: The result, None where it failed.
        error: Why it failed, None where it did not.
    """

    index: int
    request: KontextRequest | None
    task_id: str | None = None
    generation: Generation | None = None
    error: KontextError | None = field(default=None, eq=False)

    @property
    def ok(self) -> bool:
        """Whether there is a generation."""
        return self.generation is not None


@frozen(kw_only=True)
class SessionStatistics:
    """A session's figures at one moment.

    Attributes:
        queued: Submits that wait for a slot.
        in_flight: Slots that are held: creates on the wire and tasks that are not finished.
        limit: How many slots there are at present, found between 1 and `Limits.max_in_flight`.
        pending: Tasks that the poll loop asks about.
        polls_in_flight: Status requests on the wire.
        submitted: Create requests that went out, those sent again included.
        accepted: Tasks that the gateway accepted.
        throttled: Times that the gateway asked to slow down.
        polls: Status requests that were answered.
        completed: Tasks seen completed.
        failed: Tasks seen failed, and submits that were refused.
        uncertain: Creates of which nobody knows whether they were accepted.
        abandoned: Accepted tasks that nobody waits for any more, or that are no longer followed.
        downloaded: Pictures fetched.
        spent: USD that the finished ones among the tasks submitted here cost, as far as the gateway said.
    """

    queued: int
    in_flight: int
    limit: int
    pending: int
    polls_in_flight: int
    submitted: int
    accepted: int
    throttled: int
    polls: int
    completed: int
    failed: int
    uncertain: int
    abandoned: int
    downloaded: int
    spent: Decimal

"""The values that users pass in and get back: plain frozen data, without I/O and without a reference to a session.

Field rules: PROTOCOL.md, "Create: the request" and "The task". Money is `decimal.Decimal` in USD, durations are
float seconds, times are aware UTC datetimes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from datetime import datetime  # noqa: TC003 # attrs resolves it
from decimal import Decimal  # noqa: TC003 # attrs resolves it
from typing import Any, Literal, TypeAlias, TypedDict, cast, get_args

import attrs
from attrs import field, frozen
from attrs.validators import optional

from kontext_async import images
from kontext_async.base_errors import InvalidRequest, KontextError
from kontext_async.foreign_values import (
    FrozenTexts,
    freeze_texts,
    is_valid_text,
    plain_boolean,
    plain_integer,
    plain_text,
    required_text,
    to_plain,
)
from kontext_async.images import ImageSource
from kontext_async.redaction import safe_repr, strip_query

__all__ = [
    "Cancellation",
    "Estimate",
    "FailureKind",
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
"""The longest allowed integer. Python may refuse to print longer ones (``sys.set_int_max_str_digits``)."""

MILLISECONDS_FROM = 1e11
"""The magnitude from which a time since the epoch is in milliseconds: as seconds it would be in the year 5138."""

OutputFormat: TypeAlias = Literal["jpeg", "png", "webp"]


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
        raise InvalidRequest(attribute.name, f"{len(value)} images", f"at most {MAX_INPUT_IMAGES} are accepted")
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
    if not isinstance(value, str) or value not in get_args(OutputFormat):
        raise InvalidRequest(attribute.name, value, "it must be 'jpeg', 'png' or 'webp'")


def _check_boolean(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidRequest(attribute.name, value, "it must be true or false")


def _check_tolerance(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value not in SAFETY_TOLERANCES:
        raise InvalidRequest(attribute.name, value, "it must be an integer from 0 to 6")


def _check_model(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not MODEL_PATTERN.fullmatch(value):
        raise InvalidRequest(attribute.name, value, "it must be letters, digits, '.', '_' and '-'")


def _check_metadata(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    rule = "it must be a mapping from text to text, in valid Unicode"
    if not isinstance(value, FrozenTexts):
        raise InvalidRequest(attribute.name, value, rule)
    for item in value.items():
        if not all(map(is_valid_text, item)):
            raise InvalidRequest(attribute.name, item, rule)


def _normalize_images(value: ImageSource | Iterable[ImageSource] | None) -> tuple[ImageSource, ...]:
    """Return the sources as a tuple; a single source is not iterated over, but becomes a tuple of one."""
    if (type(value) is tuple and not value) or to_plain(value) is None:
        return ()
    if images.is_single(value):
        return (cast("ImageSource", images.normalize(value)),)
    if not isinstance(value, Iterable):
        return (cast("ImageSource", value),)
    return tuple(cast("ImageSource", images.normalize(source)) for source in value)


def _plain_format(value: OutputFormat | None) -> OutputFormat | None:
    return cast("OutputFormat | None", plain_text(value))


@frozen(weakref_slot=False)  # thousands of them wait at once
class KontextRequest:
    """A request to generate or edit one image. Its fields are checked when it is created.

    Attributes:
        prompt: A description of the image to generate, or of the change to the input images; not blank.
        input_images: Up to four images to edit or combine. See `kontext_async.images.ImageSource` for the types.
        seed: Any integer; None lets the gateway pick one.
        aspect_ratio: ``W:H`` in whole numbers, between ``21:9`` and ``9:21``; None leaves the choice to the gateway.
        output_format: ``jpeg`` or ``png``, on some gateways also ``webp``; None means JPEG.
        prompt_upsampling: True lets the gateway enrich the prompt; None means its default, False.
        safety_tolerance: 0 (strictest) to 6; None means the gateway's default, 2.
        model: The model ID; ``flux_kontext_max`` has the same fields.
        moderation: True or False is sent beside the model; None leaves the choice to the gateway.
        metadata: Text by name, for tracing; sent beside the model. An empty mapping is the same as None.

    Numbers and booleans of NumPy and pandas become Python's own; their missing values (NaN, NaT, NA) become None.

    Raises:
        InvalidRequest: A field is invalid. The error has the field, the value and the rule.
    """

    prompt: str = field(converter=required_text, validator=_check_prompt)
    input_images: tuple[ImageSource, ...] = field(
        default=(),
        kw_only=True,
        converter=_normalize_images,
        validator=_check_images,
        repr=lambda value: f"<{len(value)}>",
    )
    seed: int | None = field(default=None, kw_only=True, converter=plain_integer, validator=optional(_check_integer))
    aspect_ratio: str | None = field(default=None, kw_only=True, converter=plain_text, validator=optional(_check_ratio))
    output_format: OutputFormat | None = field(
        default=None, kw_only=True, converter=_plain_format, validator=optional(_check_format)
    )
    prompt_upsampling: bool | None = field(
        default=None, kw_only=True, converter=plain_boolean, validator=optional(_check_boolean)
    )
    safety_tolerance: int | None = field(
        default=None, kw_only=True, converter=plain_integer, validator=optional(_check_tolerance)
    )
    model: str = field(default="flux_kontext_pro", kw_only=True, converter=required_text, validator=_check_model)
    moderation: bool | None = field(
        default=None, kw_only=True, converter=plain_boolean, validator=optional(_check_boolean)
    )
    metadata: Mapping[str, str] | None = field(
        default=None, kw_only=True, converter=freeze_texts, validator=optional(_check_metadata)
    )

    @classmethod
    def of(cls, request: RequestLike, **fields: Any) -> KontextRequest:
        """Build a request from a prompt, a mapping of field names, or a request.

        Args:
            request: The prompt, the mapping or the request. A request is returned unchanged if there are no `fields`.
            fields: Fields of `KontextRequest` that override those of `request`.

        Raises:
            InvalidRequest: A field does not exist, or its value is not allowed.
        """
        if isinstance(request, str):
            if not fields:
                return cls(request)
            given: dict[str, Any] = {"prompt": request}
        elif isinstance(request, Mapping):
            given = _read_mapping(request)
        elif isinstance(request, cls):
            if not fields:
                return request
            given = {name: getattr(request, name) for name in FIELDS}
        else:
            raise InvalidRequest("request", request, "it must be a prompt, a mapping of fields, or a KontextRequest")
        given |= fields
        for name in given:
            if name not in FIELDS:
                shown = str(name) if type(name) in {str, int} else safe_repr(name)
                raise InvalidRequest(shown, given[name], f"no such field; the fields are {', '.join(FIELDS)}")
        if "prompt" not in given:
            raise InvalidRequest("prompt", None, "a request needs a prompt")
        return cls(**given)


FIELDS = attrs.fields_dict(KontextRequest)
"""The fields of a request, by name."""


def _read_mapping(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(request)
    except Exception as error:
        raise InvalidRequest("request", request, f"the mapping cannot be read: {safe_repr(error)}") from error


class RequestFields(TypedDict, total=False):
    """The fields of `KontextRequest` except the prompt, as keyword arguments.

    A wrapper of `KontextSession.generate` can annotate its own with ``**fields: Unpack[RequestFields]``.
    """

    input_images: ImageSource | Iterable[ImageSource]
    seed: int | None
    aspect_ratio: str | None
    output_format: OutputFormat | None
    prompt_upsampling: bool | None
    safety_tolerance: int | None
    model: str
    moderation: bool | None
    metadata: Mapping[str, str] | None


RequestLike: TypeAlias = str | Mapping[str, Any] | KontextRequest
"""A prompt, a mapping from the names of `KontextRequest`'s fields to values, or a `KontextRequest`."""


class TaskState(enum.Enum):
    """The state of a task. A raw status that the library does not know is `UNKNOWN` and counts as not finished."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """True if the task has ended, with images or without: its state no longer changes."""
        return self is TaskState.COMPLETED or self is TaskState.FAILED


class Cancellation(enum.Enum):
    """The result of cancelling a task."""

    IN_TIME = "in time"
    """The task has ended without an image."""
    TOO_LATE = "too late"
    """The task ended before."""
    UNKNOWN = "unknown"
    """The task is not finished; the gateway may still cancel it."""


class FailureKind(enum.Enum):
    """The kind of a task's failure."""

    ERROR = "error"
    MODERATED = "moderated"
    """The gateway refuses the prompt, an input image or the result. It bills nothing."""
    CANCELLED = "cancelled"


@frozen(kw_only=True)
class TaskErrorDetail:
    """The gateway's explanation of why a task failed.

    Attributes:
        code: The gateway's error code, if it gave one.
        message: The gateway's message, bounded.
        kind: The kind of failure.
    """

    code: str | None = None
    message: str = ""
    kind: FailureKind = FailureKind.ERROR


@frozen(kw_only=True)
class GeneratedImage:
    """An image of a completed task.

    Attributes:
        url: The image's download URL, which expires.
        type: ``image``, or another type that the gateway gave.
        job_id: The gateway's ID of the job that generated the image, if it gave one.
        task_id: The ID of the task.
        reference: The reference of the task as text, where its ID is not enough to find it.
    """

    url: str = field(repr=strip_query)
    type: str = "image"
    job_id: str | None = None
    task_id: str | None = None
    reference: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Usage:
    """The amount that the gateway billed for a task.

    Attributes:
        cost: USD, not negative; None if the gateway did not report it, or billed in another currency.
        currency: The currency that the gateway named.
        amount: The billed amount in `currency`, if that is not USD; None if it is, or if the gateway did not report it.
        discount: The factor that is already applied; None if the gateway did not report it.
        extra: Other keys of the gateway's usage report.
    """

    cost: Decimal | None = None
    currency: str = "USD"
    amount: Decimal | None = None
    discount: float | None = None
    extra: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen(kw_only=True)
class Estimate:
    """The gateway's price for a request, before anything is billed.

    Attributes:
        cost: USD; None if the gateway does not know the price, or gave it in another currency.
        currency: The currency that the gateway named.
        amount: The price in `currency`, such as credits, if that is not USD; None if it is, or if it is not known.
        discount: The factor that is already applied; None if the gateway did not report it.
        model: The ID of the priced model, if the gateway named it.
        reason: The gateway's reason for giving no price, if it gave one.
        extra: Other keys of the gateway's price, such as ``billing_model``.
    """

    cost: Decimal | None = None
    currency: str = "USD"
    amount: Decimal | None = None
    discount: float | None = None
    model: str | None = None
    reason: str | None = None
    extra: Mapping[str, Any] = field(factory=dict, eq=False)


@frozen(kw_only=True)
class TaskStatus:
    """A task as one response of the gateway describes it.

    Attributes:
        task_id: The task ID.
        state: The task's state.
        raw_status: The status as the gateway wrote it, bounded.
        model: The model ID, if the gateway reported it.
        progress: 0.0 to 1.0, if the gateway reported it; it may decrease.
        error: The reason for a failure; None if the gateway reported none.
        images: The images, in the gateway's order; at most 64.
        omitted_images: The number of further images, at least, that the response had and that are not read.
        usage: The billed amount; None if the gateway has not reported it yet.
        created_at: The time at which the gateway accepted the task, if it reported one.
        metadata: The gateway's free-form metadata.
        extra: Keys of the response that PROTOCOL.md does not describe.
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
    omitted_images: int = 0


@frozen(kw_only=True)
class Generation:
    """A completed task with its images.

    Attributes:
        task_id: The task ID.
        model: The model ID, if it is known.
        request: The request; None if the task was attached.
        images: The images, in the gateway's order; at least one, and at most 64.
        omitted_images: The number of further images, at least, that the gateway listed and that are not read.
        usage: The billed amount.
        created_at: The time at which the gateway accepted the task, if it reported one.
        elapsed: Seconds from the moment the task was accepted or attached until a poll saw it completed.
        metadata: The gateway's free-form metadata.
    """

    task_id: str
    model: str | None
    request: KontextRequest | None
    images: tuple[GeneratedImage, ...]
    usage: Usage
    created_at: datetime | None
    elapsed: float
    metadata: Mapping[str, Any] = field(factory=dict, hash=False)
    omitted_images: int = 0

    @property
    def image(self) -> GeneratedImage:
        """The first image. It is the only one in the usual case; a generation has at least one."""
        return self.images[0]


@frozen(kw_only=True)
class Outcome:
    """The result or the error of one of many requests.

    Attributes:
        index: The request's position in the input, from 0.
        request: The request; None if the input at this position is not a valid request.
        task_id: The task ID; None if the gateway did not accept the request.
        generation: The result; None if the request failed.
        error: The error; None if the request succeeded.
    """

    index: int
    request: KontextRequest | None
    task_id: str | None = None
    generation: Generation | None = None
    error: KontextError | None = field(default=None, eq=False)

    @property
    def ok(self) -> bool:
        """True if the request succeeded: there is a `generation`."""
        return self.generation is not None


@frozen(kw_only=True)
class SessionStatistics:
    """A snapshot of a session's counters.

    Attributes:
        queued: Submissions that wait for a slot.
        in_flight: Slots in use: create requests on the wire and unfinished tasks.
        limit: The current number of slots, which adapts between 1 and `Limits.max_in_flight`.
        pending: Tasks that the session polls.
        polls_in_flight: Status requests on the wire.
        submitted: Create requests sent, retries included.
        accepted: Tasks that the gateway accepted.
        throttled: Times the gateway asked the session to slow down.
        polls: Status requests that returned a task's status.
        completed: Tasks that completed.
        failed: Tasks that failed, and submissions that failed or whose outcome is unknown.
        uncertain: Submissions whose outcome is unknown: the gateway may have accepted them.
        abandoned: Tasks, and create requests in flight, that nobody waits for any longer: one `Abandoned` event each.
        downloaded: Images downloaded.
        spent: USD billed for the completed tasks that this session submitted, as far as the gateway reported it.
        circuit: ``closed`` while the session submits; ``open`` or ``half_open`` during an outage; ``stopped`` if the
            gateway refuses the key.
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
    circuit: str = "closed"

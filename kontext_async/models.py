"""The values that users pass in and get back: plain frozen data, without I/O and without a reference to a session.

Field rules: PROTOCOL.md, "Create: the request" and "The task". Money is `decimal.Decimal` in USD, durations are
float seconds, times are aware UTC datetimes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from datetime import datetime  # noqa: TC003 # attrs resolves it
from decimal import Decimal  # noqa: TC003 # attrs resolves it
from typing import Any, TypeAlias, TypedDict

import attrs
from attrs import field, frozen
from attrs.validators import optional

from kontext_async.base_errors import InvalidRequest, KontextError
from kontext_async.foreign_values import (
    freeze_texts,
    plain_boolean,
    plain_integer,
    plain_text,
    required_text,
)
from kontext_async.images import ImageSource
from kontext_async.redaction import safe_repr, strip_query
from kontext_async.request_fields import (
    OutputFormat,
    check_boolean,
    check_format,
    check_images,
    check_integer,
    check_metadata,
    check_model,
    check_prompt,
    check_ratio,
    check_tolerance,
    normalize_images,
    plain_format,
)
from kontext_async.request_rules import UntrustedRules, refuse_paths
from kontext_async.request_sources import source_from_json, source_to_json
from kontext_async.serialization import Serializable, register_hooks

__all__ = [
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

MILLISECONDS_FROM = 1e11
"""The magnitude from which a time since the epoch is in milliseconds: as seconds it would be in the year 5138."""


@frozen(weakref_slot=False)  # thousands of them wait at once
class KontextRequest(Serializable):
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

    prompt: str = field(converter=required_text, validator=check_prompt)
    input_images: tuple[ImageSource, ...] = field(
        default=(),
        kw_only=True,
        converter=normalize_images,
        validator=check_images,
        repr=lambda value: f"<{len(value)}>",
    )
    seed: int | None = field(default=None, kw_only=True, converter=plain_integer, validator=optional(check_integer))
    aspect_ratio: str | None = field(default=None, kw_only=True, converter=plain_text, validator=optional(check_ratio))
    output_format: OutputFormat | None = field(
        default=None, kw_only=True, converter=plain_format, validator=optional(check_format)
    )
    prompt_upsampling: bool | None = field(
        default=None, kw_only=True, converter=plain_boolean, validator=optional(check_boolean)
    )
    safety_tolerance: int | None = field(
        default=None, kw_only=True, converter=plain_integer, validator=optional(check_tolerance)
    )
    model: str = field(default="flux_kontext_pro", kw_only=True, converter=required_text, validator=check_model)
    moderation: bool | None = field(
        default=None, kw_only=True, converter=plain_boolean, validator=optional(check_boolean)
    )
    metadata: Mapping[str, str] | None = field(
        default=None, kw_only=True, converter=freeze_texts, validator=optional(check_metadata)
    )

    @classmethod
    def from_untrusted(cls, fields: object, rules: UntrustedRules = UntrustedRules()) -> KontextRequest:  # noqa: B008 # frozen
        """Build a request from fields that a stranger wrote, such as the JSON body of an HTTP request.

        Input images are data URIs, base64 and, if `rules` allow them, https URLs; never a path.

        Args:
            fields: The decoded JSON.
            rules: What a stranger may set, and how large it may be. `UntrustedRules.json_schema` describes it.

        Raises:
            InvalidRequest: A field is missing, unknown, forbidden, invalid or too large.
        """
        return cls(**rules.read(fields))

    @classmethod
    def of(cls, request: RequestLike, /, **fields: Any) -> KontextRequest:
        """Build a request from a prompt, a mapping of field names, or a request.

        Text among the input images of a mapping is a data URI or an http(s) URL, never a path, so that the body of an
        HTTP request cannot open a file. For what else a stranger may set there, use `from_untrusted`.

        Args:
            request: The prompt, the mapping or the request. A request is returned unchanged if there are no `fields`.
            fields: Fields of `KontextRequest` that override those of `request`.

        Raises:
            InvalidRequest: A field does not exist, or its value is not allowed.
        """
        if isinstance(request, cls) and not fields:
            return request
        if cls is KontextRequest and (usual := _find_usual(request, fields)):
            return _replace_prompt(*usual)
        given = _read_fields(request, cls) | fields
        for name in given:
            if name not in FIELDS:
                shown = str(name) if type(name) in {str, int} else safe_repr(name)
                raise InvalidRequest(shown, given[name], f"no such field; the fields are {', '.join(FIELDS)}")
        if "prompt" not in given:
            raise InvalidRequest("prompt", None, "a request needs a prompt")
        return cls(**given)

    @classmethod
    def _validate(cls, value: object) -> KontextRequest:
        """Return what a field of a Pydantic model becomes: strangers write the bodies that Pydantic reads."""
        return value if isinstance(value, cls) else cls.from_untrusted(value)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, Any]:
        return UntrustedRules().__get_pydantic_json_schema__(schema, handler)


FIELDS = attrs.fields_dict(KontextRequest)
"""The fields of a request, by name."""

_TEMPLATE = KontextRequest("a request")
_SETTERS = {name: getattr(KontextRequest, name).__set__ for name in FIELDS}  # past the check that it is frozen
_COPIED = tuple((name, set_value) for name, set_value in _SETTERS.items() if name != "prompt")
_set_prompt = _SETTERS["prompt"]


def _find_usual(request: object, fields: Mapping[str, Any]) -> tuple[KontextRequest, str] | None:
    """Return a checked request and another prompt for it, if that is what is asked for."""
    if not fields:
        return (_TEMPLATE, request) if type(request) is str else None
    prompt = fields.get("prompt")
    if len(fields) == 1 and type(prompt) is str and type(request) is KontextRequest:
        return request, prompt
    return None


def _replace_prompt(template: KontextRequest, prompt: str) -> KontextRequest:
    """Return a request that differs in its prompt only, as most do: its other fields were checked before."""
    check_prompt(None, FIELDS["prompt"], prompt)
    request = KontextRequest.__new__(KontextRequest)
    _set_prompt(request, prompt)
    for name, set_value in _COPIED:
        set_value(request, getattr(template, name))
    return request


def _read_fields(request: object, request_class: type[KontextRequest]) -> dict[str, Any]:
    """Return the fields of a prompt, a mapping or a request."""
    if isinstance(request, str):
        return {"prompt": request}
    if isinstance(request, Mapping):
        given = _read_mapping(request)
        if "input_images" in given:
            refuse_paths(given)
        return given
    if isinstance(request, request_class):
        return {name: getattr(request, name) for name in FIELDS}
    raise InvalidRequest("request", request, "it must be a prompt, a mapping of fields, or a KontextRequest")


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
"""A prompt, a mapping from the names of `KontextRequest`'s fields to values, or a `KontextRequest`.

Text among the input images of a mapping is a data URI or an http(s) URL; a path is a `pathlib.Path` there.
"""


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


class FailureKind(enum.Enum):
    """The kind of a task's failure."""

    ERROR = "error"
    MODERATED = "moderated"
    """The gateway refuses the prompt, an input image or the result. It bills nothing."""
    CANCELLED = "cancelled"


@frozen(kw_only=True)
class TaskErrorDetail(Serializable):
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
class GeneratedImage(Serializable):
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
class Usage(Serializable):
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
class Estimate(Serializable):
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
class TaskStatus(Serializable):
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
class Generation(Serializable):
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
class Outcome(Serializable):
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
class SessionStatistics(Serializable):
    """A snapshot of a session's counters.

    Attributes:
        queued: Submissions that wait for a slot.
        in_flight: Slots in use: create requests on the wire and unfinished tasks.
        limit: The current number of slots, which adapts between 1 and `Limits.max_in_flight`. Where the gateway has
            several pools of models, the sum of those that were used.
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


def _request_to_json(request: KontextRequest) -> dict[str, Any]:
    given = {name: value for name, each in FIELDS.items() if (value := getattr(request, name)) != each.default}
    if request.metadata:
        given["metadata"] = dict(request.metadata)
    if request.input_images:
        given["input_images"] = [
            source_to_json(source, f"input_images[{index}]") for index, source in enumerate(request.input_images)
        ]
    return given


def _request_from_json(data: Any, *, allow_paths: bool) -> KontextRequest:
    given = {name: value for name, value in _read_mapping(data).items() if name in FIELDS}
    listed = given.pop("input_images", ())
    sources = [
        source_from_json(source, f"input_images[{index}]", allow_paths=allow_paths)
        for index, source in enumerate(listed if isinstance(listed, list | tuple) else [listed])
    ]
    return KontextRequest.of(given | ({"input_images": sources} if sources else {}))


def request_to_json_if_possible(request: KontextRequest | None) -> dict[str, Any] | None:
    """Return a request as JSON; None if one of its input images cannot travel."""
    try:
        return None if request is None else _request_to_json(request)
    except InvalidRequest:
        return None


def _register_hooks(converter: Any, allow_paths: bool) -> None:  # noqa: FBT001 # as `register_hooks` calls it
    from cattrs.gen import make_dict_unstructure_fn, override  # noqa: PLC0415 # as in `serialization`

    converter.register_unstructure_hook(KontextRequest, _request_to_json)
    converter.register_structure_hook(KontextRequest, lambda data, _: _request_from_json(data, allow_paths=allow_paths))
    for kind in (Generation, Outcome):  # what was paid for travels even if its request cannot
        hook = override(unstruct_hook=request_to_json_if_possible)
        converter.register_unstructure_hook(
            kind, make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True, request=hook)
        )


register_hooks(_register_hooks)

"""The gateway's strict reading of a create request. Pure: bytes in, a `CreateRequest` or `RuleViolation` out.

Implements "Create: the request" of the protocol page, and refuses everything else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from kontext_async.emulator.painting.input_images import MAX_IMAGE_BYTES, InputImage, UnreadableImage, read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MODELS = ("flux_kontext_pro", "flux_kontext_max")
IMAGE_FIELDS = ("input_image", "input_image_2", "input_image_3", "input_image_4")
TOLERANCES = range(7)
TOP_LEVEL_FIELDS = ("model", "input", "moderation", "metadata", "options")
MAX_BODY_BYTES = 4 * ((MAX_IMAGE_BYTES + 2) // 3 * 4) + 1024 * 1024
"""Four images of the largest size in base64, and 1 MiB for everything else."""

RATIO = re.compile(r"([0-9]{1,6}):([0-9]{1,6})")
WIDEST_RATIO = (21, 9)


class RuleViolation(Exception):
    """The request breaks a rule.

    Attributes:
        status: 400 when the request's structure is wrong, 422 when a field's value is.
        field: The path of the field, as `input[0].params.seed`; empty for the request as a whole.
        rule: The text of the rule.
    """

    def __init__(self, field: str, rule: str, *, status: int = HTTPStatus.UNPROCESSABLE_ENTITY) -> None:
        super().__init__(f"{field}: {rule}" if field else rule)
        self.status = status
        self.field = field
        self.rule = rule


@frozen(kw_only=True)
class CreateRequest:
    """A create request that satisfies all rules.

    Attributes:
        model: The model's ID.
        prompt: The prompt.
        images: The input images in order: read ones, or the URL of one that is not fetched yet.
        seed: The requested seed, if any.
        ratio: Width and height of the requested ratio, if any.
        output_format: `jpeg` or `png`; in one dialect also `webp`.
        digest: Hex digest of the model and all params; the same for the same request.
        moderation: Whether the client wants moderation, if it said so.
        metadata: The client's own texts about the request.
        webhook_url: The address that is to get the result, if any.
        webhook_secret: The secret by which that address knows the sender.
    """

    model: str
    prompt: str
    images: tuple[InputImage | str, ...]
    seed: int | None
    ratio: tuple[int, int] | None
    output_format: str
    digest: str
    moderation: bool | None = None
    metadata: Mapping[str, str] = field(factory=dict)
    webhook_url: str | None = None
    webhook_secret: str | None = field(default=None, repr=False)


def parse_create(body: bytes, model_header: str | None = None, *, for_price: bool = False) -> CreateRequest:
    """Parse the body of a create request in the plain dialect: `{"model": …, "input": [{"params": {…}}]}`.

    Newer clients name the model in the header `X-Model` and leave it out of the body. A request `for_price` may have
    an ID of its own.

    Raises:
        RuleViolation: The request breaks a rule.
    """
    fields = _require_object("", parse_json(body))
    if model_header is not None:
        fields.setdefault("model", model_header)
    _reject_unknown("", fields, (*TOP_LEVEL_FIELDS, "id") if for_price else TOP_LEVEL_FIELDS)
    for name in ("model", "input"):
        if name not in fields:
            raise RuleViolation(name, "is required", status=HTTPStatus.BAD_REQUEST)
    items = fields["input"]
    if not isinstance(items, list) or len(items) != 1:
        raise RuleViolation("input", "must be a list of exactly one object", status=HTTPStatus.BAD_REQUEST)
    item = _require_object("input[0]", items[0])
    _reject_unknown("input[0]", item, ("params",))
    if "params" not in item:
        raise RuleViolation("input[0].params", "is required", status=HTTPStatus.BAD_REQUEST)
    for name in fields.keys() & OPTION_CHECKS.keys():
        OPTION_CHECKS[name](name, fields[name])
    parsed = check_params(fields["model"], _require_object("input[0].params", item["params"]), "input[0].params.")
    return evolve(parsed, moderation=fields.get("moderation"), metadata=fields.get("metadata", {}))


def parse_queue_create(body: bytes, model: str) -> CreateRequest:
    """Parse the body of a create request in the queue dialect: the bare params, with the model in the path.

    Raises:
        RuleViolation: The request breaks a rule.
    """
    return check_params(model, _require_object("", parse_json(body)), "")


def check_params(model: object, params: Mapping[str, Any], path: str) -> CreateRequest:
    """Check the params of a create request; `path` is the prefix of the fields' names.

    Raises:
        RuleViolation: The params break a rule.
    """
    known_model = _check_model(model)
    for name, value in params.items():
        if name not in FIELD_CHECKS:
            raise RuleViolation(path + name, "is not a parameter of this model")
        if value is None:
            raise RuleViolation(path + name, "must not be null: leave it out instead")
    if "prompt" not in params:
        raise RuleViolation(path + "prompt", "is required")
    values = {name: FIELD_CHECKS[name](path + name, value) for name, value in params.items()}
    return CreateRequest(
        model=known_model,
        prompt=values["prompt"],
        images=tuple(values[name] for name in IMAGE_FIELDS if name in values),
        seed=values.get("seed"),
        ratio=values.get("aspect_ratio"),
        output_format=values.get("output_format", "jpeg"),
        digest=compute_digest(known_model, params),
    )


def compute_digest(model: str, params: Mapping[str, Any]) -> str:
    """Return the hex digest of a model and its params; the order of the params does not matter."""
    digest = hashlib.blake2b(model.encode(), digest_size=16)
    for name in sorted(params):
        value = params[name]
        text = value if isinstance(value, str) else json.dumps(value)
        digest.update(f"\0{name}\0{type(value).__name__}\0".encode())
        digest.update(text.encode(errors="surrogatepass"))
    return digest.hexdigest()


def parse_json(body: bytes) -> Any:
    """Parse JSON as strictly as the standard defines it.

    Raises:
        RuleViolation: The body is not JSON.
    """
    try:
        return json.loads(body.decode(), parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise RuleViolation("", f"the body is not valid JSON: {error}", status=HTTPStatus.BAD_REQUEST) from None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _require_object(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RuleViolation(field, f"must be a JSON object, not {_name_type(value)}", status=HTTPStatus.BAD_REQUEST)
    return value


def _reject_unknown(field: str, value: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in value:
        if name not in names:
            path = f"{field}.{name}" if field else name
            raise RuleViolation(
                path, f"is unknown: only {', '.join(names)} may stand here", status=HTTPStatus.BAD_REQUEST
            )


def _name_type(value: object) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


def _check_model(model: object) -> str:
    name = _check_string("model", model)
    if name not in MODELS:
        raise RuleViolation("model", f"{name[:80]!r} is not one of {', '.join(MODELS)}", status=HTTPStatus.BAD_REQUEST)
    return name


def _check_string(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise RuleViolation(field, f"must be a string, not {_name_type(value)}")
    return value


def _check_integer(field: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RuleViolation(field, f"must be an integer, not {_name_type(value)}")
    return value


def _check_prompt(field: str, value: object) -> str:
    prompt = _check_string(field, value)
    if not prompt.strip():
        raise RuleViolation(field, "must not be blank")
    return prompt


def _check_ratio(field: str, value: object) -> tuple[int, int]:
    match = RATIO.fullmatch(_check_string(field, value))
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not width or not height:
        raise RuleViolation(field, "must be W:H, such as 16:9")
    long, short = WIDEST_RATIO
    if width * short > height * long or height * short > width * long:
        raise RuleViolation(field, "must be between 21:9 and 9:21")
    return width, height


def _check_output_format(field: str, value: object) -> str:
    name = _check_string(field, value)
    if name not in ("jpeg", "png"):
        raise RuleViolation(field, "must be jpeg or png")
    return name


def _check_boolean(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise RuleViolation(field, f"must be a boolean, not {_name_type(value)}")
    return value


def _check_tolerance(field: str, value: object) -> int:
    tolerance = _check_integer(field, value)
    if tolerance not in TOLERANCES:
        raise RuleViolation(field, "must be between 0 and 6")
    return tolerance


def _check_image(field: str, value: object) -> InputImage | str:
    text = _check_string(field, value)
    if text.startswith("data:"):
        raise RuleViolation(field, "must be plain base64, without a data: prefix")
    if text.lower().startswith(("http://", "https://")):
        return _check_url(field, text)
    if len(text) // 4 * 3 > MAX_IMAGE_BYTES + 2:
        raise RuleViolation(field, f"must be at most {MAX_IMAGE_BYTES} bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RuleViolation(field, "must be an http(s) URL or valid base64") from None
    return parse_image(field, data)


def parse_image(field: str, data: bytes) -> InputImage:
    """Parse the bytes of an input image.

    Raises:
        RuleViolation: The image is too large, or is not a JPEG, PNG, WebP or GIF.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise RuleViolation(field, f"must be at most {MAX_IMAGE_BYTES} bytes")
    try:
        return read_image(data)
    except UnreadableImage as error:
        raise RuleViolation(field, str(error)) from None


def _check_url(field: str, text: str) -> str:
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host or any(letter.isspace() for letter in text):
        raise RuleViolation(field, "must be an http(s) URL with a host")
    return text


def _check_metadata(field: str, value: object) -> dict[str, str]:
    metadata = _require_object(field, value)
    for name, text in metadata.items():
        _check_string(f"{field}.{name}", text)
    return metadata


OPTION_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "moderation": _check_boolean,
    "metadata": _check_metadata,
    "options": _require_object,
    "id": _check_string,
}
"""The fields beside `model` and `input`; only a request for a price has an `id`."""

FIELD_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "prompt": _check_prompt,
    "seed": _check_integer,
    "aspect_ratio": _check_ratio,
    "output_format": _check_output_format,
    "prompt_upsampling": _check_boolean,
    "safety_tolerance": _check_tolerance,
    **dict.fromkeys(IMAGE_FIELDS, _check_image),
}

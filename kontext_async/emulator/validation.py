"""The gateway's strict reading of a create request. Pure: bytes in, a `CreateRequest` or `Invalid` out.

Implements "Create: the request" of the protocol page, and refuses everything that is not on it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import attrs

from kontext_async.emulator.painter import MAX_IMAGE_BYTES, InputImage, UnreadableImageError, read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MODELS = ("flux_kontext_pro", "flux_kontext_max")
IMAGE_FIELDS = ("input_image", "input_image_2", "input_image_3", "input_image_4")
TOLERANCES = range(7)
MAX_BODY_BYTES = 4 * ((MAX_IMAGE_BYTES + 2) // 3 * 4) + 1024 * 1024
"""Four images of the largest size in base64, and room for the rest."""

BAD_REQUEST = 400
UNPROCESSABLE = 422

_RATIO = re.compile(r"([0-9]{1,6}):([0-9]{1,6})")
_WIDEST = (21, 9)


class Invalid(Exception):
    """The request breaks a rule.

    Attributes:
        status: 400 when the request's structure is wrong, 422 when a field's value is.
        field: The path of the field, as `input[0].params.seed`; empty for the request as a whole.
        rule: What the rule is, in words.
    """

    def __init__(self, field: str, rule: str, *, status: int = UNPROCESSABLE) -> None:
        super().__init__(f"{field}: {rule}" if field else rule)
        self.status = status
        self.field = field
        self.rule = rule


@attrs.frozen(kw_only=True)
class CreateRequest:
    """A create request that keeps all rules.

    Attributes:
        model: The model's id.
        prompt: The prompt.
        images: The input images in order: read ones, or the URL of one that is still to be fetched.
        seed: The seed that was asked for, if any.
        ratio: Width and height of the asked ratio, if any.
        output_format: `jpeg` or `png`.
        digest: Hex digest of the model and all params; the same for the same request.
    """

    model: str
    prompt: str
    images: tuple[InputImage | str, ...]
    seed: int | None
    ratio: tuple[int, int] | None
    output_format: str
    digest: str


def parse_create(body: bytes, model_header: str | None = None) -> CreateRequest:
    """Read the body of a plain create: `{"model": …, "input": [{"params": {…}}]}`.

    Newer clients name the model in the header `X-Model` and leave it out of the body.

    Raises:
        Invalid: It breaks a rule.
    """
    fields = _object("", parse_json(body))
    if model_header is not None:
        fields.setdefault("model", model_header)
    _no_others("", fields, ("model", "input"))
    for name in ("model", "input"):
        if name not in fields:
            raise Invalid(name, "is required", status=BAD_REQUEST)
    items = fields["input"]
    if not isinstance(items, list) or len(items) != 1:
        raise Invalid("input", "must be a list of exactly one object", status=BAD_REQUEST)
    item = _object("input[0]", items[0])
    _no_others("input[0]", item, ("params",))
    if "params" not in item:
        raise Invalid("input[0].params", "is required", status=BAD_REQUEST)
    return check_params(fields["model"], _object("input[0].params", item["params"]), "input[0].params.")


def parse_queue_create(body: bytes, model: str) -> CreateRequest:
    """Read the body of a create in the queue dialect: the bare params, with the model in the path.

    Raises:
        Invalid: It breaks a rule.
    """
    return check_params(model, _object("", parse_json(body)), "")


def check_params(model: object, params: Mapping[str, Any], path: str) -> CreateRequest:
    """Check the params of a create; `path` is what the fields' names are led in with.

    Raises:
        Invalid: They break a rule.
    """
    known = _check_model(model)
    for name, value in params.items():
        if name not in _CHECKS:
            raise Invalid(path + name, "is not a parameter of this model")
        if value is None:
            raise Invalid(path + name, "must not be null: leave it out instead")
    if "prompt" not in params:
        raise Invalid(path + "prompt", "is required")
    values = {name: _CHECKS[name](path + name, value) for name, value in params.items()}
    return CreateRequest(
        model=known,
        prompt=values["prompt"],
        images=tuple(values[name] for name in IMAGE_FIELDS if name in values),
        seed=values.get("seed"),
        ratio=values.get("aspect_ratio"),
        output_format=values.get("output_format", "jpeg"),
        digest=digest_of(known, params),
    )


def digest_of(model: str, params: Mapping[str, Any]) -> str:
    """The hex digest of a model and its params; it does not depend on their order."""
    digest = hashlib.blake2b(model.encode(), digest_size=16)
    for name in sorted(params):
        value = params[name]
        text = value if isinstance(value, str) else json.dumps(value)
        digest.update(f"\0{name}\0{type(value).__name__}\0".encode())
        digest.update(text.encode(errors="surrogatepass"))
    return digest.hexdigest()


def parse_json(body: bytes) -> Any:
    """Read JSON as strictly as the standard has it.

    Raises:
        Invalid: It is not JSON.
    """
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid("", f"the body is not valid JSON: {error}", status=BAD_REQUEST) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(field: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(field, f"must be a JSON object, not {_type_name(value)}", status=BAD_REQUEST)
    return value


def _no_others(field: str, value: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in value:
        if name not in names:
            path = f"{field}.{name}" if field else name
            raise Invalid(path, f"is unknown: only {', '.join(names)} may stand here", status=BAD_REQUEST)


def _type_name(value: object) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


def _check_model(model: object) -> str:
    name = _string("model", model)
    if name not in MODELS:
        raise Invalid("model", f"{name[:80]!r} is not one of {', '.join(MODELS)}", status=BAD_REQUEST)
    return name


def _string(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise Invalid(field, f"must be a string, not {_type_name(value)}")
    return value


def _integer(field: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(field, f"must be an integer, not {_type_name(value)}")
    return value


def _prompt(field: str, value: object) -> str:
    prompt = _string(field, value)
    if not prompt.strip():
        raise Invalid(field, "must not be blank")
    return prompt


def _ratio(field: str, value: object) -> tuple[int, int]:
    match = _RATIO.fullmatch(_string(field, value))
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not width or not height:
        raise Invalid(field, "must be W:H, such as 16:9")
    long, short = _WIDEST
    if width * short > height * long or height * short > width * long:
        raise Invalid(field, "must be between 21:9 and 9:21")
    return width, height


def _output_format(field: str, value: object) -> str:
    name = _string(field, value)
    if name not in ("jpeg", "png"):
        raise Invalid(field, "must be jpeg or png")
    return name


def _boolean(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Invalid(field, f"must be a boolean, not {_type_name(value)}")
    return value


def _tolerance(field: str, value: object) -> int:
    tolerance = _integer(field, value)
    if tolerance not in TOLERANCES:
        raise Invalid(field, "must be between 0 and 6")
    return tolerance


def _image(field: str, value: object) -> InputImage | str:
    text = _string(field, value)
    if text.startswith("data:"):
        raise Invalid(field, "must be plain base64, without a data: prefix")
    if text.lower().startswith(("http://", "https://")):
        return _url(field, text)
    if len(text) // 4 * 3 > MAX_IMAGE_BYTES + 2:
        raise Invalid(field, f"must be at most {MAX_IMAGE_BYTES} bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(field, "must be an http(s) URL or valid base64") from None
    return image_of(field, data)


def image_of(field: str, data: bytes) -> InputImage:
    """Read an input image's bytes.

    Raises:
        Invalid: They are too many, or no JPEG, PNG, WebP or GIF.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise Invalid(field, f"must be at most {MAX_IMAGE_BYTES} bytes")
    try:
        return read_image(data)
    except UnreadableImageError as error:
        raise Invalid(field, str(error)) from None


def _url(field: str, text: str) -> str:
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host or any(letter.isspace() for letter in text):
        raise Invalid(field, "must be an http(s) URL with a host")
    return text


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "prompt": _prompt,
    "seed": _integer,
    "aspect_ratio": _ratio,
    "output_format": _output_format,
    "prompt_upsampling": _boolean,
    "safety_tolerance": _tolerance,
    **dict.fromkeys(IMAGE_FIELDS, _image),
}

"""The validators and converters of the fields of `KontextRequest`. No I/O.

Field rules: PROTOCOL.md, "Create: the request".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from kontext_async import images
from kontext_async.base_errors import InvalidRequest
from kontext_async.foreign_values import FrozenMapping, is_valid_text, plain_text, to_plain
from kontext_async.request_rules import MAX_INPUT_IMAGES, OUTPUT_FORMATS, RATIO_PATTERN, SAFETY_TOLERANCES

if TYPE_CHECKING:
    import attrs

    from kontext_async.images import ImageSource

__all__ = [
    "OutputFormat",
    "check_boolean",
    "check_format",
    "check_images",
    "check_integer",
    "check_metadata",
    "check_model",
    "check_prompt",
    "check_ratio",
    "check_tolerance",
    "normalize_images",
    "plain_format",
]

MODEL_PATTERN = re.compile(r"[A-Za-z0-9._-]+")
MAX_INTEGER_BITS = 2048
"""The longest allowed integer. Python may refuse to print longer ones (``sys.set_int_max_str_digits``)."""

OutputFormat: TypeAlias = Literal["jpeg", "png", "webp"]


def check_prompt(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    """Require text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(attribute.name, value, "it must be text that is not blank")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            attribute.name, ascii(value), "it must be valid Unicode, without lone surrogates"
        ) from None


def check_images(_: object, attribute: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    """Require a few sources that can be input images."""
    if len(value) > MAX_INPUT_IMAGES:
        raise InvalidRequest(attribute.name, f"{len(value)} images", f"at most {MAX_INPUT_IMAGES} are accepted")
    for index, source in enumerate(value):
        images.check(source, f"{attribute.name}[{index}]")


def check_integer(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require an integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value.bit_length() > MAX_INTEGER_BITS:
        raise InvalidRequest(attribute.name, value, f"it must be an integer of at most {MAX_INTEGER_BITS} bits")


def check_ratio(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require a ratio in the range of the model."""
    rule = "it must be W:H in whole numbers, between 21:9 and 9:21"
    match = RATIO_PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidRequest(attribute.name, value, rule)
    width, height = int(match[1]), int(match[2])
    if 9 * width > 21 * height or 21 * width < 9 * height:
        raise InvalidRequest(attribute.name, value, rule)


def check_format(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require one of the output formats."""
    if not isinstance(value, str) or value not in OUTPUT_FORMATS:
        raise InvalidRequest(attribute.name, value, "it must be 'jpeg', 'png' or 'webp'")


def check_boolean(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require a boolean."""
    if not isinstance(value, bool):
        raise InvalidRequest(attribute.name, value, "it must be true or false")


def check_tolerance(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require a safety tolerance."""
    if not isinstance(value, int) or isinstance(value, bool) or value not in SAFETY_TOLERANCES:
        raise InvalidRequest(attribute.name, value, "it must be an integer from 0 to 6")


def check_model(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    """Require a model ID."""
    if not isinstance(value, str) or not MODEL_PATTERN.fullmatch(value):
        raise InvalidRequest(attribute.name, value, "it must be letters, digits, '.', '_' and '-'")


def check_metadata(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require text by name."""
    rule = "it must be a mapping from text to text, in valid Unicode"
    if not isinstance(value, FrozenMapping):
        raise InvalidRequest(attribute.name, value, rule)
    for item in value.items():
        if not all(map(is_valid_text, item)):
            raise InvalidRequest(attribute.name, item, rule)


def normalize_images(value: ImageSource | Iterable[ImageSource] | None) -> tuple[ImageSource, ...]:
    """Return the sources as a tuple; a single source is not iterated over, but becomes a tuple of one."""
    if (type(value) is tuple and not value) or to_plain(value) is None:
        return ()
    if images.is_single(value):
        return (cast("ImageSource", images.normalize(value)),)
    if not isinstance(value, Iterable):
        return (cast("ImageSource", value),)
    return tuple(cast("ImageSource", images.normalize(source)) for source in value)


def plain_format(value: OutputFormat | None) -> OutputFormat | None:
    """Convert an output format."""
    return cast("OutputFormat | None", plain_text(value))

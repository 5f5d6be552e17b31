"""The rules for a request that a stranger wrote, such as the JSON body of a web server. No I/O.

One table, `UntrustedRules.table`, says what each field may hold. `KontextRequest.from_untrusted` validates with it, and
`UntrustedRules.json_schema` describes it.

What a JSON Schema cannot say, `KontextRequest` checks after the table: the range of the aspect ratio, and that an image
is one. A path can never come through: text that is neither a data URI nor an https URL is decoded as base64.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import field, frozen

from kontext_async import images
from kontext_async.base_errors import ConfigurationError, InvalidRequest
from kontext_async.foreign_values import is_valid_text
from kontext_async.redaction import safe_repr
from kontext_async.serialization import pydantic_schema

if TYPE_CHECKING:
    import attrs

__all__ = [
    "MAX_INPUT_IMAGES",
    "OUTPUT_FORMATS",
    "RATIO_PATTERN",
    "SAFETY_TOLERANCES",
    "UntrustedRules",
    "refuse_paths",
]

RATIO_PATTERN = re.compile(r"([1-9][0-9]{0,4}):([1-9][0-9]{0,4})")
MAX_INPUT_IMAGES = 4
OUTPUT_FORMATS = ("jpeg", "png", "webp")
SAFETY_TOLERANCES = range(7)

MAX_SEED = 2**63 - 1
MAX_RATIO_LENGTH = 11
SHOWN_LENGTH = 100
"""The most characters of an unusable image source that its error shows: a longer one is an image."""

URI_OVERHEAD = 256
"""Characters of a data URI beside its payload: the media type and its parameters."""

MAX_URL_LENGTH = 2048

SCHEMA_VERSION = "https://json-schema.org/draft/2020-12/schema"

MAPPING_RULE = (
    "text in a mapping must be a data URI or an http(s) URL, because a path in the body of a request would be opened "
    "on this computer; give a path as a pathlib.Path, or as a keyword argument"
)


class FieldRule(ABC):
    """The rule for one field."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Return the rule as a JSON Schema."""

    @abstractmethod
    def read(self, value: object, name: str) -> Any:
        """Return the value as `KontextRequest` takes it.

        Raises:
            InvalidRequest: The value is not allowed.
        """


@frozen
class Text(FieldRule):
    """Text of bounded length that matches a pattern."""

    max_length: int
    pattern: str
    rule: str

    def schema(self) -> dict[str, Any]:
        """See `FieldRule.schema`."""
        return {"type": "string", "minLength": 1, "maxLength": self.max_length, "pattern": self.pattern}

    def read(self, value: object, name: str) -> str:
        """See `FieldRule.read`."""
        if not isinstance(value, str):
            raise InvalidRequest(name, value, "it must be text")
        if len(value) > self.max_length:
            raise InvalidRequest(name, f"{len(value)} characters", f"at most {self.max_length} are allowed")
        if not is_valid_text(value) or re.search(self.pattern, value) is None:
            raise InvalidRequest(name, ascii(value), self.rule)
        return value


@frozen
class Integer(FieldRule):
    """A whole number in a range."""

    minimum: int
    maximum: int

    def schema(self) -> dict[str, Any]:
        """See `FieldRule.schema`."""
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}

    def read(self, value: object, name: str) -> int:
        """See `FieldRule.read`."""
        if isinstance(value, float) and value.is_integer():  # as JSON Schema counts: 1.0 is an integer
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not self.minimum <= value <= self.maximum:
            raise InvalidRequest(name, value, f"it must be an integer from {self.minimum} to {self.maximum}")
        return value


@frozen
class Boolean(FieldRule):
    """True or false."""

    def schema(self) -> dict[str, Any]:
        """See `FieldRule.schema`."""
        return {"type": "boolean"}

    def read(self, value: object, name: str) -> bool:
        """See `FieldRule.read`."""
        if not isinstance(value, bool):
            raise InvalidRequest(name, value, "it must be true or false")
        return value


@frozen
class Choice(FieldRule):
    """One of a few texts."""

    allowed: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        """See `FieldRule.schema`."""
        return {"type": "string", "enum": list(self.allowed)}

    def read(self, value: object, name: str) -> str:
        """See `FieldRule.read`."""
        if not isinstance(value, str) or value not in self.allowed:
            raise InvalidRequest(name, value, f"it must be one of {', '.join(self.allowed)}")
        return value


@frozen
class Sources(FieldRule):
    """Input images: data URIs, base64 and, if they are allowed, https URLs."""

    max_images: int
    max_bytes: int
    allow_urls: bool

    @property
    def max_length(self) -> int:
        """The most characters of one source."""
        return encoded_length(self.max_bytes) + URI_OVERHEAD

    @property
    def rule(self) -> str:
        """The rule for one source, in words."""
        return f"it must be a data URI{', an https URL' if self.allow_urls else ''} or the base64 of an image"

    def schema(self) -> dict[str, Any]:
        """See `FieldRule.schema`."""
        source: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": self.max_length}
        if not self.allow_urls:
            source["not"] = {"pattern": "^\\s*[A-Za-z][A-Za-z0-9+.-]*://"}
        return {
            "description": f"Each is a data URI{', an https URL' if self.allow_urls else ''} or the base64 of an image "
            f"of at most {self.max_bytes} bytes.",
            "anyOf": [source, {"type": "array", "maxItems": self.max_images, "items": source}],
        }

    def read(self, value: object, name: str) -> tuple[str, ...]:
        """See `FieldRule.read`."""
        sources = value if isinstance(value, list | tuple) else [value]
        if len(sources) > self.max_images:
            raise InvalidRequest(name, f"{len(sources)} images", f"at most {self.max_images} are allowed")
        return tuple(self._read_source(source, f"{name}[{index}]") for index, source in enumerate(sources))

    def _read_source(self, source: object, name: str) -> str:
        if not isinstance(source, str) or not source.strip():
            raise InvalidRequest(name, source, self.rule)
        if len(source) > self.max_length:
            rule = f"at most {self.max_length} are allowed, for an image of {self.max_bytes} bytes"
            raise InvalidRequest(name, f"{len(source)} characters", rule)
        if images.has_scheme(source):
            return self._read_url(source, name)
        uri = source if images.is_data_uri(source) else f"data:;base64,{source}"
        try:
            images.check(uri, name)
            size = images.data_uri_size(uri, self.max_bytes)
        except InvalidRequest as error:
            raise self._refuse(source, name, error.rule) from None
        except ValueError as error:
            raise self._refuse(source, name, str(error)) from None
        if size > self.max_bytes:
            raise InvalidRequest(name, f"{size} bytes", f"an image may have at most {self.max_bytes} bytes")
        return uri

    def _read_url(self, source: str, name: str) -> str:
        if not self.allow_urls or not source.lower().startswith("https://") or len(source) > MAX_URL_LENGTH:
            limit = f"; a URL may have at most {MAX_URL_LENGTH} characters" if len(source) > MAX_URL_LENGTH else ""
            raise InvalidRequest(name, source, self.rule + limit)
        images.check(source, name)
        return source

    def _refuse(self, source: str, name: str, reason: str) -> InvalidRequest:
        shown = source if len(source) <= SHOWN_LENGTH else f"{len(source)} characters"
        return InvalidRequest(name, shown, self.rule if not images.is_data_uri(source) else reason)


@frozen
class OrNull(FieldRule):
    """A field that may be null, which is the same as leaving it out."""

    inner: FieldRule

    def schema(self) -> dict[str, Any]:
        """See `FieldRule.schema`."""
        return {"anyOf": [self.inner.schema(), {"type": "null"}]}

    def read(self, value: object, name: str) -> Any:
        """See `FieldRule.read`."""
        return None if value is None else self.inner.read(value, name)


def encoded_length(size: int) -> int:
    """Return the characters of `size` bytes in base64."""
    return 4 * ((size + 2) // 3)


def _refuse_setting(name: str, value: object, rule: str) -> NoReturn:
    raise ConfigurationError(f"UntrustedRules.{name}: {safe_repr(value)} is not allowed; {rule}")


def _require_count(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        _refuse_setting(attribute.name, value, "it must be an integer of at least 1")


def _require_image_count(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INPUT_IMAGES:
        _refuse_setting(attribute.name, value, f"it must be an integer from 0 to {MAX_INPUT_IMAGES}")


def _require_tolerance(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (isinstance(value, bool) or value not in SAFETY_TOLERANCES):
        _refuse_setting(attribute.name, value, "it must be an integer from 0 to 6, or None")


def _to_texts(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        _refuse_setting("models", value, "it must be several model IDs")
    return tuple(value)


@frozen(kw_only=True)
class UntrustedRules:
    """The rules for a request that a stranger wrote: which fields it may have, and how large it may be.

    A stranger may always set the prompt, the seed, the aspect ratio, the output format, and the prompt upsampling.
    Moderation and metadata are yours alone.

    Attributes:
        max_prompt_length: The most characters of the prompt.
        max_images: The most input images; 0 allows none.
        max_image_bytes: The largest input image, in bytes.
        allow_urls: True allows https URLs as input images. The gateway downloads them, not this computer.
        models: The models that a stranger may choose, which may differ in price; none leaves the choice to you.
        max_safety_tolerance: The highest safety tolerance that a stranger may choose; None leaves it to you.

    Raises:
        ConfigurationError: A rule is invalid.
    """

    max_prompt_length: int = field(default=4000, validator=_require_count)
    max_images: int = field(default=MAX_INPUT_IMAGES, validator=_require_image_count)
    max_image_bytes: int = field(default=images.MAX_IMAGE_BYTES, validator=_require_count)
    allow_urls: bool = False
    models: tuple[str, ...] = field(default=(), converter=_to_texts)
    max_safety_tolerance: int | None = field(default=None, validator=_require_tolerance)

    @property
    def table(self) -> dict[str, FieldRule]:
        """The fields that a stranger may set, each with its rule."""
        ratio = f"^{RATIO_PATTERN.pattern}$"
        table: dict[str, FieldRule] = {
            "prompt": Text(self.max_prompt_length, r"\S", "it must be text that is not blank, in valid Unicode"),
            "seed": OrNull(Integer(-MAX_SEED - 1, MAX_SEED)),
            "aspect_ratio": OrNull(Text(MAX_RATIO_LENGTH, ratio, "it must be W:H in whole numbers")),
            "output_format": OrNull(Choice(OUTPUT_FORMATS)),
            "prompt_upsampling": OrNull(Boolean()),
        }
        if self.max_images:
            table["input_images"] = OrNull(Sources(self.max_images, self.max_image_bytes, self.allow_urls))
        if self.models:
            table["model"] = Choice(self.models)
        if self.max_safety_tolerance is not None:
            table["safety_tolerance"] = OrNull(Integer(0, self.max_safety_tolerance))
        return table

    @property
    def max_body_bytes(self) -> int:
        """The most bytes of a JSON body that these rules allow: read no more from a stranger."""
        escaped = 12  # a character outside the basic plane as \uXXXX\uXXXX
        images_length = self.max_images * (encoded_length(self.max_image_bytes) + URI_OVERHEAD)
        return escaped * self.max_prompt_length + images_length + 4096

    def json_schema(self) -> dict[str, Any]:
        """Return these rules as a JSON Schema (draft 2020-12): what a request may hold."""
        return {
            "$schema": SCHEMA_VERSION,
            "title": "KontextRequest",
            "description": "A request to generate or edit one image.",
            "type": "object",
            "properties": {name: rule.schema() for name, rule in self.table.items()},
            "required": ["prompt"],
            "additionalProperties": False,
        }

    def read(self, given: object) -> dict[str, Any]:
        """Return the fields of a request that a stranger wrote.

        Args:
            given: The decoded JSON.

        Raises:
            InvalidRequest: It is no object, or a field is missing, unknown, forbidden, invalid or too large.
        """
        if not isinstance(given, Mapping):
            raise InvalidRequest("request", given, "it must be an object of fields")
        table = self.table
        for name, value in given.items():
            if name not in table:
                shown = name if isinstance(name, str) else safe_repr(name)
                raise InvalidRequest(shown, value, f"no such field here; the fields are {', '.join(table)}")
        if "prompt" not in given:
            raise InvalidRequest("prompt", None, "a request needs a prompt")
        return {name: rule.read(given[name], name) for name, rule in table.items() if name in given}

    def __get_pydantic_core_schema__(self, source: Any, handler: object) -> Any:
        """Make ``Annotated[KontextRequest, UntrustedRules(…)]`` a type of Pydantic models."""
        return pydantic_schema(lambda value: value if isinstance(value, source) else source.from_untrusted(value, self))

    def __get_pydantic_json_schema__(self, schema: object, handler: object) -> dict[str, Any]:
        return {name: value for name, value in self.json_schema().items() if name != "$schema"}


def refuse_paths(given: dict[str, Any]) -> None:
    """Refuse text that names a file among the input images of a mapping. Iterators become tuples.

    Raises:
        InvalidRequest: There is such a text. Path-like objects are allowed: no JSON holds them.
    """
    value = given.get("input_images")
    if isinstance(value, str):
        _refuse_path(value, "input_images")
    elif not images.is_single(value) and isinstance(value, Iterable):
        given["input_images"] = sources = tuple(value)
        for index, source in enumerate(sources):
            if isinstance(source, str):
                _refuse_path(source, f"input_images[{index}]")


def _refuse_path(source: str, name: str) -> None:
    if images.is_path(source):
        raise InvalidRequest(name, source, MAPPING_RULE)

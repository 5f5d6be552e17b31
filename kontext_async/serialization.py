"""Values as JSON objects, and back, for queues, caches and other processes; and as types of Pydantic models. No I/O.

cattrs is imported when the first value travels. A module whose values need hooks of their own registers them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from kontext_async.base_errors import InvalidRequest
from kontext_async.redaction import truncate

if TYPE_CHECKING:
    from collections.abc import Callable

    from cattrs import Converter

__all__ = ["Serializable", "make_converter", "register_hooks", "unstructure"]

MESSAGE_LENGTH = 500

HOOKS: list[Callable[[Converter, bool], object]] = []
"""Functions that register the hooks of one module, each called with a converter and with `allow_paths`."""


def register_hooks(register: Callable[[Converter, bool], object]) -> None:
    """Have `register` called for each converter, before it is used."""
    HOOKS.append(register)


def make_converter() -> Converter:
    """Return a converter that leaves defaults out, and writes money and times as text."""
    import cattrs  # noqa: PLC0415 # most programs never need it

    converter = cattrs.Converter(omit_if_default=True)
    converter.register_unstructure_hook(Decimal, str)
    converter.register_structure_hook(Decimal, lambda value, _: Decimal(value))
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value))
    return converter


@cache
def _converter(*, allow_paths: bool) -> Converter:
    converter = make_converter()
    for register in reversed(HOOKS):  # a value of a lower module may hold one of a higher module: an outcome, an error
        register(converter, allow_paths)
    return converter


def unstructure(value: object) -> Any:
    """Return a value as JSON."""
    return _converter(allow_paths=True).unstructure(value)


def structure(data: Any, kind: type[Any], *, allow_paths: bool) -> Any:
    """Return the value that JSON describes.

    Raises:
        InvalidRequest: It describes no such value.
    """
    import cattrs  # noqa: PLC0415 # as above

    try:
        return _converter(allow_paths=allow_paths).structure(data, kind)
    except InvalidRequest:
        raise
    except Exception as error:  # noqa: BLE001 # cattrs raises groups of anything about foreign data
        reasons = "; ".join(cattrs.transform_error(error, path=kind.__name__))
        rule = truncate(f"to_dict must have made it: {reasons}", MESSAGE_LENGTH)
        raise InvalidRequest(kind.__name__, type(data).__name__, rule) from None


class Serializable:
    """A value that travels as JSON: to queues, caches and other processes."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the value as an object of JSON, without what has its default.

        Raises:
            InvalidRequest: An input image is a file object, a reader or a Pillow image, which cannot travel.
        """
        made: dict[str, Any] = unstructure(self)
        return made

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, allow_paths: bool = False) -> Self:
        """Return the value that `to_dict` described. Unknown keys are ignored.

        Args:
            data: The object.
            allow_paths: True allows input images that are files of this computer, as `to_dict` writes them. Allow them
                only in data of your own; `KontextRequest.from_untrusted` reads what strangers wrote.

        Raises:
            InvalidRequest: The object does not describe such a value.
        """
        if not isinstance(data, Mapping):
            raise InvalidRequest(cls.__name__, data, "it must be an object")
        made: Self = structure(data, cls, allow_paths=allow_paths)
        return made

    @classmethod
    def _validate(cls, value: object) -> Self:
        """Return what a field of a Pydantic model becomes."""
        return value if isinstance(value, cls) else cls.from_dict(value)  # type: ignore[arg-type] # it checks

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        return pydantic_schema(cls._validate)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, Any]:
        return {"title": cls.__name__, "type": "object", "description": (cls.__doc__ or "").partition("\n")[0]}


def pydantic_schema(validate: Callable[[Any], Any]) -> Any:
    """Return the schema of Pydantic for a value that `validate` makes, and that `to_dict` writes as JSON."""
    from pydantic_core import core_schema  # noqa: PLC0415 # only Pydantic calls this

    written = core_schema.plain_serializer_function_ser_schema(lambda value: value.to_dict(), when_used="json")
    return core_schema.no_info_plain_validator_function(validate, serialization=written)

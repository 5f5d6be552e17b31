"""Values of other libraries, as users pass them in, to Python's own.

NumPy's and pandas' scalars are recognized by what they offer, so that neither library is imported.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

__all__ = [
    "FrozenMapping",
    "freeze_mapping",
    "freeze_texts",
    "is_missing",
    "is_valid_text",
    "plain_boolean",
    "plain_integer",
    "plain_text",
    "required_text",
    "to_integer",
    "to_plain",
]

PLAIN_TYPES = (str, int, bool)
T = TypeVar("T")

MISSING_TYPES = ("NAType", "NaTType")


def is_missing(value: object) -> bool:
    """Return True for None, NaN, and the missing values of pandas."""
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 # only NaN differs from itself
        return True
    kind = type(value)
    return kind.__name__ in MISSING_TYPES and kind.__module__.partition(".")[0] == "pandas"


def to_plain(value: Any) -> Any:
    """Return a scalar of NumPy or pandas as Python's own, a missing value as None, and any other value unchanged."""
    if value is None or type(value) in PLAIN_TYPES:
        return value
    if is_missing(value):
        return None
    try:
        value = value.item() if value.ndim == 0 else value
    except Exception:  # noqa: BLE001 # it is no scalar of NumPy: the validator has the last word
        return value
    return None if is_missing(value) else value


def to_integer(value: Any) -> Any:
    """Return a whole number of any type as an `int`, a missing value as None, and any other value unchanged."""
    value = to_plain(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return operator.index(value)
    return value


def plain_integer(value: int | None) -> int | None:
    """Convert a field that is an integer or None; `to_integer` with the type that users' tools show."""
    return value if value is None or type(value) is int else cast("int | None", to_integer(value))


def plain_boolean(value: bool | None) -> bool | None:  # noqa: FBT001 # a converter has one argument
    """Convert a field that is a boolean or None."""
    return None if value is None else cast("bool | None", to_plain(value))


def plain_text(value: str | None) -> str | None:
    """Convert a field that is text or None."""
    return value if value is None or type(value) is str else cast("str | None", to_plain(value))


def required_text(value: str) -> str:
    """Convert a field that is text."""
    return cast("str", to_plain(value))


def is_valid_text(value: object) -> bool:
    """Return True for text without lone surrogates, which cannot be encoded."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


class FrozenMapping(Mapping[str, T]):
    """A mapping that does not change, can be hashed, and can be pickled."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, T]) -> None:
        self._items = dict(items)

    def __getitem__(self, name: str) -> T:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[object, ...]:
        return FrozenMapping, (self._items,)


def freeze_mapping(value: Any) -> Any:
    """Return a mapping as a `FrozenMapping`, and any other value unchanged: the validator refuses that."""
    if isinstance(value, FrozenMapping) or not isinstance(value, Mapping):
        return value
    try:
        return FrozenMapping(value)
    except Exception:  # noqa: BLE001 # a foreign mapping may raise anything
        return value


def freeze_texts(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return a mapping as a `FrozenMapping`, an empty one or a missing value as None, and any other value unchanged."""
    if value is None:
        return None
    texts: Mapping[str, str] = freeze_mapping(to_plain(value))
    return None if isinstance(texts, FrozenMapping) and not texts else texts

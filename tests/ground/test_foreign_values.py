"""Values of NumPy and pandas as fields of a request."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from kontext_async.models import KontextRequest


class NAType:
    """pandas' missing value, as far as it matters: comparing it gives no boolean."""

    __module__ = "pandas._libs.missing"

    def __eq__(self, other: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment] # it is never hashed here


class NaTType(NAType):
    __module__ = "pandas._libs.tslibs.nattype"


MISSING = [None, float("nan"), np.float64("nan"), np.float32("nan"), np.datetime64("NaT", "s"), NAType(), NaTType()]


@pytest.mark.parametrize("missing", MISSING, ids=lambda value: type(value).__name__)
def test_a_missing_value_of_another_library_means_that_the_field_is_not_given(missing: Any) -> None:
    optional = set(attrs.fields_dict(KontextRequest)) - {"prompt", "model"}
    options: dict[str, Any] = dict.fromkeys(optional, missing)
    assert KontextRequest("a", **options) == KontextRequest("a")


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("seed", np.int64(7), 7),
        ("seed", np.uint8(7), 7),
        ("seed", np.float64(7.0), 7),
        ("seed", np.float32(7.0), 7),
        ("seed", np.array(7), 7),
        ("seed", 7.0, 7),
        ("seed", -0.0, 0),
        ("safety_tolerance", np.int32(2), 2),
        ("safety_tolerance", 2.0, 2),
        ("prompt_upsampling", np.bool_(True), True),  # noqa: FBT003 # the value is the point
        ("moderation", np.bool_(False), False),  # noqa: FBT003 # as above
        ("output_format", np.str_("png"), "png"),
        ("aspect_ratio", np.str_("1:1"), "1:1"),
        ("prompt", np.str_("a fox"), "a fox"),
        ("model", np.str_("m"), "m"),
    ],
)
def test_a_value_of_numpy_becomes_pythons_own(name: str, value: Any, plain: object) -> None:
    request = KontextRequest(**{"prompt": "a", name: value})
    assert getattr(request, name) == plain
    assert type(getattr(request, name)) is type(plain)

"""The places where the soak of stopped processes stops them."""

from __future__ import annotations

import pytest

from benchmarks.soak.zombie_worker import STEPS, Place


@pytest.mark.parametrize("place", [step for step in STEPS.values() if isinstance(step, Place)])
def test_a_place_is_a_method(place: Place) -> None:
    assert callable(getattr(place.owner, place.method))

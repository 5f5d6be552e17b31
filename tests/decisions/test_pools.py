"""The ceiling of each pool of models."""

from __future__ import annotations

import pytest

from kontext_async import Limits
from kontext_async.decisions.pools import find_ceiling
from kontext_async.gateways import GATEWAYS, Gateway, make_gateway

PRO, MAX = "flux_kontext_pro", "flux_kontext_max"


@pytest.fixture
def bfl() -> Gateway:
    return make_gateway("bfl", "key")


def ceilings(gateway: Gateway, limits: Limits) -> tuple[int, int]:
    """Return the ceilings of [pro] and [max]."""
    first, second = (
        find_ceiling(gateway.pool_of(model), limits, common=gateway.common_pool, pool_of=gateway.pool_of)
        for model in (PRO, MAX)
    )
    return first, second


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(), (24, 6)),
        (Limits(max_in_flight=100), (100, 6)),
        (Limits(max_in_flight=3), (3, 3)),
        (Limits(max_in_flight_by_model={MAX: 12}), (24, 12)),
        (Limits(max_in_flight_by_model={"flux-kontext-max": 12}), (24, 12)),
        (Limits(max_in_flight_by_model={PRO: 10}), (10, 6)),
        (Limits(max_in_flight_by_model={PRO: 10, "another": 20}), (20, 6)),
        (Limits(max_in_flight=3, max_in_flight_by_model={MAX: 12}), (3, 12)),
    ],
)
def test_max_has_a_limit_of_its_own_at_black_forest_labs(
    bfl: Gateway, limits: Limits, expected: tuple[int, int]
) -> None:
    assert ceilings(bfl, limits) == expected


@pytest.mark.parametrize("name", [name for name in GATEWAYS if name != "bfl"])
def test_all_models_share_one_pool_elsewhere(name: str) -> None:
    gateway = make_gateway(name, "key")
    assert gateway.pool_of(PRO) == gateway.pool_of(MAX) == gateway.common_pool
    assert ceilings(gateway, Limits(max_in_flight=7)) == (7, 7)

import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from kontext_async.emulator import Distribution, ServiceTime
from kontext_async.emulator.service_times import to_service_time


def draw_many(service_time: ServiceTime, count: int = 4000) -> list[float]:
    rng = random.Random(1)
    return [service_time.draw(rng) for _ in range(count)]


def test_a_constant_draws_one_value() -> None:
    assert set(draw_many(ServiceTime.constant(2), 10)) == {2.0}


def test_lognormal_has_the_requested_median() -> None:
    assert statistics.median(draw_many(ServiceTime.lognormal(3, 0.5))) == pytest.approx(3, rel=0.05)


def test_gamma_has_the_requested_mean() -> None:
    assert statistics.mean(draw_many(ServiceTime.gamma(4, 2))) == pytest.approx(2, rel=0.05)


def test_bimodal_has_two_modes() -> None:
    seen = draw_many(ServiceTime.bimodal(1, 10, slow_share=0.25))
    assert sum(value > 4 for value in seen) / len(seen) == pytest.approx(0.25, abs=0.03)
    assert not [value for value in seen if 2.5 < value < 4.5]


@given(st.floats(0.001, 100), st.floats(0.01, 3), st.integers())
def test_a_draw_is_positive_and_repeatable(median: float, cv: float, seed: int) -> None:
    service_time = ServiceTime.lognormal(median, cv)
    first = service_time.draw(random.Random(seed))
    assert first > 0
    assert first == service_time.draw(random.Random(seed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", ServiceTime.constant(0.5)),
        ("constant:2", ServiceTime.constant(2)),
        ("lognormal:0.3,0.5", ServiceTime.lognormal(0.3, 0.5)),
        ("gamma:4,2", ServiceTime.gamma(4, 2)),
        ("bimodal:1,8,0.3", ServiceTime.bimodal(1, 8, 0.3)),
    ],
)
def test_a_text_is_parsed_as_a_distribution(text: str, expected: ServiceTime) -> None:
    assert ServiceTime.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "soon", "lognormal:1", "weibull:1,2", "gamma:1,2,3", "constant:-1", "constant:nan"]
)
def test_a_text_that_cannot_be_parsed_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each part has its own message
        ServiceTime.parse(text)


@pytest.mark.parametrize(
    ("construct", "name"),
    [
        (lambda: ServiceTime.constant(-1), "seconds"),
        (lambda: ServiceTime.constant(float("inf")), "seconds"),
        (lambda: ServiceTime.lognormal(0, 1), "median"),
        (lambda: ServiceTime.gamma(1, True), "mean"),  # noqa: FBT003
        (lambda: ServiceTime.bimodal(1, 2, slow_share=1.5), "slow_share"),
        (lambda: to_service_time("fast"), "service_time"),  # type: ignore[arg-type]
    ],
)
def test_errors_name_the_invalid_parameter(construct: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        construct()


def test_a_number_is_converted_to_a_constant() -> None:
    assert to_service_time(3) == ServiceTime.constant(3)
    assert to_service_time(3).distribution is Distribution.CONSTANT
    assert to_service_time(ServiceTime.gamma(1, 1)) == ServiceTime.gamma(1, 1)

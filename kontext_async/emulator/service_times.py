"""The distributions of the seconds that tasks take. Pure: the random numbers are an argument."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import frozen

from kontext_async.emulator.validators import is_number

if TYPE_CHECKING:
    import random


class Distribution(StrEnum):
    """The families of distributions that `ServiceTime` offers."""

    CONSTANT = "constant"
    LOGNORMAL = "lognormal"
    GAMMA = "gamma"
    BIMODAL = "bimodal"


@frozen
class ServiceTime:
    """A distribution of the seconds from a task's acceptance to its end.

    Use the constructors `constant`, `lognormal`, `gamma`, `bimodal` or `parse`.

    Attributes:
        distribution: The family.
        parameters: Its parameters, in the order of the constructor of that name.
    """

    distribution: Distribution
    parameters: tuple[float, ...]

    @classmethod
    def constant(cls, seconds: float) -> ServiceTime:
        """Return a constant time; with 0 seconds, the response to the create request already says `completed`.

        Raises:
            ValueError: `seconds` is negative or not finite.
        """
        _require_positive(seconds=seconds, zero_allowed=True)
        return cls(Distribution.CONSTANT, (float(seconds),))

    @classmethod
    def lognormal(cls, median: float, cv: float) -> ServiceTime:
        """Return a lognormal distribution with `median` seconds and coefficient of variation `cv`.

        Raises:
            ValueError: A parameter is not positive and finite.
        """
        _require_positive(median=median, cv=cv)
        return cls(Distribution.LOGNORMAL, (float(median), float(cv)))

    @classmethod
    def gamma(cls, shape: float, mean: float) -> ServiceTime:
        """Return a gamma distribution with `shape` and a mean of `mean` seconds.

        Raises:
            ValueError: A parameter is not positive and finite.
        """
        _require_positive(shape=shape, mean=mean)
        return cls(Distribution.GAMMA, (float(shape), float(mean)))

    @classmethod
    def bimodal(cls, fast: float, slow: float, slow_share: float = 0.3, cv: float = 0.15) -> ServiceTime:
        """Return a mixture of two lognormal modes, as of a warm and a cold machine.

        Args:
            fast: Median of the fast mode, in seconds.
            slow: Median of the slow mode, in seconds.
            slow_share: The share of tasks in the slow mode, 0 to 1.
            cv: Coefficient of variation of each mode.

        Raises:
            ValueError: A parameter is not positive and finite, or the share is above 1.
        """
        _require_positive(fast=fast, slow=slow, cv=cv)
        if not is_number(slow_share) or not 0 <= slow_share <= 1:
            raise ValueError(f"slow_share must be between 0 and 1, not {slow_share!r}")
        return cls(Distribution.BIMODAL, (float(fast), float(slow), float(slow_share), float(cv)))

    @classmethod
    def parse(cls, text: str) -> ServiceTime:
        """Parse a distribution as the command line spells it.

        Examples: `0.5`, `constant:2`, `lognormal:0.3,0.5`, `gamma:4,2`, `bimodal:1,8,0.3`.

        Raises:
            ValueError: The text names no distribution, or its numbers are invalid.
        """
        name, colon, numbers = text.strip().partition(":")
        if not colon:
            name, numbers = "constant", name
        try:
            constructor = getattr(cls, Distribution(name))
            service_time: ServiceTime = constructor(*(float(number) for number in numbers.split(",")))
        except TypeError as error:
            raise ValueError(f"service_time has the wrong number of parameters: {text!r}") from error
        return service_time

    def draw(self, rng: random.Random) -> float:
        """Draw the seconds of one task from `rng`."""
        match self.distribution:
            case Distribution.CONSTANT:
                return self.parameters[0]
            case Distribution.LOGNORMAL:
                return _draw_lognormal(rng, *self.parameters)
            case Distribution.GAMMA:
                shape, mean = self.parameters
                return rng.gammavariate(shape, mean / shape)
            case Distribution.BIMODAL:
                fast, slow, slow_share, cv = self.parameters
                return _draw_lognormal(rng, slow if rng.random() < slow_share else fast, cv)


def to_service_time(value: ServiceTime | float) -> ServiceTime:
    """Convert a plain number to a constant of that many seconds.

    Raises:
        ValueError: The value is neither a number nor a `ServiceTime`.
    """
    if isinstance(value, ServiceTime):
        return value
    if not is_number(value):
        raise ValueError(f"service_time must be a ServiceTime or seconds, not {value!r}")
    return ServiceTime.constant(value)


def _draw_lognormal(rng: random.Random, median: float, cv: float) -> float:
    return median * math.exp(rng.gauss(0.0, math.sqrt(math.log1p(cv * cv))))


def _require_positive(*, zero_allowed: bool = False, **values: float) -> None:
    for name, value in values.items():
        is_enough = is_number(value) and (value > 0 or (zero_allowed and value == 0))
        if not is_enough or math.isinf(value):
            rule = "at least 0" if zero_allowed else "above 0"
            raise ValueError(f"{name} must be a finite number {rule}, not {value!r}")

"""When a task will end, as its `progress` foretells it; believed where it has proved right. Pure.

A task of age t and progress p foretells its end at the age t / p, as if progress were linear in time. Whether it is,
the answers show: each ask found the task finished or not, and that is more or less likely with an end near the age that
was predicted_end than with what is known from age alone. The logarithms of those likelihood ratios are summed up, for a few
spreads of the end around what was predicted_end, and old ones fade. `progress` is used where the best sum is high enough.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

from attrs import define, field

from kontext_async.decisions.polling.inspection import Curve, Plan, best_plan

__all__ = ["ProgressModel", "predicted_end"]

SPREADS = (0.02, 0.05, 0.1, 0.2)
"""Relative standard deviations of the end around what was predicted_end."""

SHAPES = tuple(math.pi / math.sqrt(3) / spread for spread in SPREADS)
"""The same as shapes of the log-logistic distribution."""

PROVED = 6.0
"""The sum of log-likelihood ratios from which on progress is used: odds of 400 to 1."""

FADING = 0.98
"""What is left of a sum after one more ask."""

DOUBT = 0.02
"""The probability that is left to what was not predicted_end at all: one miss does not outweigh all hits."""

EARLIEST = 0.05
"""Progress below this says too little."""

GRID = tuple((place / 48) ** 0.5 if place <= 48 else 1 + (place - 48) / 48 for place in range(97))  # noqa: PLR2004
"""Ages as parts of the age predicted_end, closer around 1."""

STEPS = 2
"""Plans per octave of what a request is worth."""


def predicted_end(age: float, progress: float | None) -> float:
    """The age, in seconds, at which a task of this age and progress will end; 0 where progress does not say."""
    if progress is None or not EARLIEST <= progress < 1:
        return 0.0
    return age / progress


@define
class ProgressModel:
    """How well progress predicted_end the ends of tasks so far."""

    _sums: list[float] = field(factory=lambda: [0.0] * len(SPREADS), init=False)

    def seen(self, end: float, begin: float, age: float, *, finished: bool, chance: float) -> None:
        """Take down one ask.

        Args:
            end: The age that was predicted_end.
            begin: The age of the ask before, when the task was unfinished.
            age: The age of this ask.
            finished: What it found.
            chance: The probability that it would be finished, from age alone.
        """
        without = _likelihood(chance, finished=finished)
        for place, shape in enumerate(SHAPES):
            likely = 1 - _alive(age / end, shape) / _alive(begin / end, shape)
            ratio = math.log(_likelihood(likely, finished=finished) / without)
            self._sums[place] = self._sums[place] * FADING + ratio

    def next_ask(self, end: float, age: float, worth: float) -> float | None:
        """The age of the ask after one at `age`, for an end predicted_end at `end`; None where progress is not proved."""
        best = max(self._sums)
        if best < PROVED or end <= 0:
            return None
        octave = round(STEPS * math.log2(worth / end))
        return end * _plan(SHAPES[self._sums.index(best)], octave).after(age / end)


def _likelihood(chance: float, *, finished: bool) -> float:
    return DOUBT + (1 - 2 * DOUBT) * (chance if finished else 1 - chance)


def _alive(part: float, shape: float) -> float:
    """The share of tasks that goes on at `part` of the age predicted_end: log-logistic."""
    return 1 / (1 + min(part, 2.0) ** shape) if part > 0 else 1.0


@lru_cache(maxsize=256)
def _plan(shape: float, octave: int) -> Plan:
    by = [1 - _alive(part, shape) for part in GRID]
    shares = [after - before for before, after in pairwise(by)]
    return best_plan(Curve.of_shares(GRID, shares), 2 ** (octave / STEPS))

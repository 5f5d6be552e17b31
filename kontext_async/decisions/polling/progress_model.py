"""The end of a task as its `progress` predicts it, used where such predictions have proved right. Pure.

A task of age t and progress p predicts its end at the age t / p, as if progress were linear in time. Polls show whether
it is: each poll found the task ended or not, and that is more or less likely with an end near the predicted age than
with the distribution of ages alone. The model sums the logarithms of these likelihood ratios, for a few spreads of the
end around the prediction, and old ones fade. `progress` is used while the best sum is high enough.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

from attrs import define, field

from kontext_async.decisions.polling.inspection import LifetimeDistribution, PollSchedule, optimal_schedule

__all__ = ["ProgressModel", "predict_end"]

SPREADS = (0.02, 0.05, 0.1, 0.2)
"""Relative standard deviations of the end around the prediction."""

SHAPES = tuple(math.pi / math.sqrt(3) / spread for spread in SPREADS)
"""The same spreads, as shapes of the log-logistic distribution."""

PROVEN = 6.0
"""The sum of log-likelihood ratios from which progress is used: odds of 400 to 1."""

DECAY = 0.98
"""The factor that each further poll applies to the sums."""

DOUBT = 0.02
"""The probability reserved for results that contradict the prediction: one miss does not outweigh all hits."""

MIN_PROGRESS = 0.05
"""Progress below this says too little."""

AGE_GRID = tuple((place / 48) ** 0.5 if place <= 48 else 1 + (place - 48) / 48 for place in range(97))  # noqa: PLR2004
"""Ages as parts of the predicted age, denser around 1."""

SCHEDULES_PER_OCTAVE = 2
"""Schedules that are kept per octave of the cost of a poll."""


def predict_end(age: float, progress: float | None) -> float:
    """Return the age, in seconds, at which a task of this age and progress will end; 0 without a usable progress."""
    if progress is None or not MIN_PROGRESS <= progress < 1:
        return 0.0
    return age / progress


@define
class ProgressModel:
    """The record of how well progress has predicted the ends of tasks."""

    _sums: list[float] = field(factory=lambda: [0.0] * len(SPREADS), init=False)

    def observe(self, predicted_end: float, begin: float, age: float, *, ended: bool, probability: float) -> None:
        """Record one poll.

        Args:
            predicted_end: The predicted age, in seconds.
            begin: The age at the poll before, which found the task unfinished.
            age: The age at this poll.
            ended: True if this poll found the task ended.
            probability: The probability that it would, from the distribution of ages alone.
        """
        without = _likelihood(probability, ended=ended)
        for place, shape in enumerate(SHAPES):
            likely = 1 - _alive(age / predicted_end, shape) / _alive(begin / predicted_end, shape)
            ratio = math.log(_likelihood(likely, ended=ended) / without)
            self._sums[place] = self._sums[place] * DECAY + ratio

    def next_poll(self, predicted_end: float, age: float, poll_cost: float) -> float | None:
        """Return the age of the poll that follows one at `age`; None without a prediction that may be used."""
        if predicted_end <= 0 or (best := max(self._sums)) < PROVEN:
            return None
        octave = round(SCHEDULES_PER_OCTAVE * math.log2(poll_cost / predicted_end))
        return predicted_end * _schedule(SHAPES[self._sums.index(best)], octave).next_poll(age / predicted_end)


def _likelihood(probability: float, *, ended: bool) -> float:
    return DOUBT + (1 - 2 * DOUBT) * (probability if ended else 1 - probability)


def _alive(part: float, shape: float) -> float:
    """Return the share of tasks that are unfinished at `part` of the predicted age: log-logistic."""
    return 1 / (1 + min(part, 2.0) ** shape) if part > 0 else 1.0


@lru_cache(maxsize=256)
def _schedule(shape: float, octave: int) -> PollSchedule:
    ended = [1 - _alive(part, shape) for part in AGE_GRID]
    shares = [after - before for before, after in pairwise(ended)]
    distribution = LifetimeDistribution.from_shares(AGE_GRID, shares)
    return optimal_schedule(distribution, 2 ** (octave / SCHEDULES_PER_OCTAVE))

"""The distribution of the ages at which tasks end, estimated from polls. Pure.

A poll shows that a task was unfinished at one age, or that it ended somewhere between two: its end is
interval-censored. The estimate is the self-consistent one (Turnbull, 1976: The empirical distribution function with
arbitrarily grouped, censored and truncated data), expressed as events and exposure. Every poll puts the task at risk
between the ages of two polls, no matter how the task ends later, so that running tasks count at once. An end is an
event that is distributed over its interval as the estimate itself is, in several rounds. Between the rounds the events
are smoothed a little (Silverman, Jones, Wilson and Nychka, 1990: EMS). The first round starts from a flat estimate:
where nothing is known of the inside of an interval, ends are equally likely in all of it, and the estimate never
confirms the schedule that it led to.

Old observations count less: the weight of each falls by 1/e every `MEMORY` ends.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from kontext_async.decisions.polling.inspection import TAIL, LifetimeDistribution

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SurvivalEstimator"]

MEMORY = 300.0
"""Ends after which an observation weighs 1/e of a new one."""

MAX_ENDS = 640
"""The most ends that are kept; older ones weigh less than an eighth."""

SHORTEST = 1e-3
"""The youngest age that is distinguished from 0, in seconds."""

PER_OCTAVE = 64
OCTAVES = 24
MARKS = (0.0, *(SHORTEST * 2 ** (mark / PER_OCTAVE) for mark in range(1, PER_OCTAVE * OCTAVES + 1)))
"""The ages that are distinguished, in seconds: 0, then steps of 1.1 % from a millisecond to 4.6 hours."""

LONGEST = MARKS[-1]
AT_ONE_SECOND = 0.5 - PER_OCTAVE * math.log2(SHORTEST)
"""The number of the mark at one second, plus a half so that truncation rounds."""

BINS = 112
"""The approximate number of age bins of an estimate. They are equally wide in the square root of the age, as the gaps
between polls are."""

ROUNDS = 8
"""The number of rounds in which the events are distributed."""

SMOOTHING_BINS = 2
"""The bins to each side over which events are smoothed in each round. There are more while fewer than `MEMORY` ends are
known, in inverse proportion to the fifth root of their number, as for kernel bandwidths."""

PRIOR_AT_RISK = 0.3
"""Tasks that are imagined to be at risk at every age, ending at the rate `TAIL` / age: no age is ever ruled out."""

MIN_MASS = 1e-12
"""The smallest mass of an interval in which an end was observed."""

MAX_WEIGHT = 1e9
"""The weight of a new observation above which all weights are scaled down."""

Interval: TypeAlias = tuple[int, int, float]


def _nearest_mark(age: float) -> int:
    """Return the number of the mark nearest to an age."""
    if age <= SHORTEST:
        return 0
    return int(PER_OCTAVE * math.log2(age) + AT_ONE_SECOND) if age < LONGEST else len(MARKS) - 1


@define
class SurvivalEstimator:
    """An estimator of the ages at which tasks end, from polls.

    Attributes:
        ends_observed: The number of ends observed.
    """

    ends_observed: int = field(default=0, init=False)
    _weight: float = field(default=1.0, init=False)
    _changes: list[float] = field(factory=lambda: [0.0] * len(MARKS), init=False)
    _ends: list[Interval] = field(factory=list, init=False)

    def observe_alive(self, begin: float, end: float) -> None:
        """Record that a task that was unfinished at the age `begin` was still unfinished at the age `end`."""
        first, last = _nearest_mark(begin), _nearest_mark(end)
        if last > first:
            self._changes[first] += self._weight
            self._changes[last] -= self._weight

    def observe_end(self, begin: float, end: float) -> None:
        """Record that a task that was unfinished at the age `begin` had ended at the age `end`.

        The caller reports with `observe_alive` that the task was unfinished from its acceptance to `begin`.
        """
        last = max(1, _nearest_mark(end))
        self._ends.append((min(_nearest_mark(begin), last - 1), last, self._weight))
        self.ends_observed += 1
        self._weight *= 1 + 1 / MEMORY
        if len(self._ends) > MAX_ENDS * 1.25:
            del self._ends[:-MAX_ENDS]

    def discount_past(self, retained: float) -> None:
        """Multiply the weight of all observations so far by `retained`."""
        self._weight /= retained

    def estimate(self) -> LifetimeDistribution:
        """Estimate the distribution. At least one end must have been observed."""
        if self._weight > MAX_WEIGHT:
            self._scale_down()
        youngest = max(0, min(last for _, last, _ in self._ends) - PER_OCTAVE)
        oldest = min(len(MARKS) - 1, max(last for _, last, _ in self._ends) + PER_OCTAVE)
        ages, nearest = _make_grid(youngest, oldest)
        unit = 1 / self._weight
        changes = [0.0] * len(ages)
        for mark, change in enumerate(self._changes):
            if change:
                changes[nearest[mark]] += change * unit
        exposed = [max(0.0, weight) for weight in accumulate(changes[:-1])]
        ends: dict[tuple[int, int], float] = {}
        for first, last, weight in self._ends:
            end = max(1, nearest[last])
            key = (min(nearest[first], end - 1), end)
            ends[key] = ends.get(key, 0.0) + weight * unit
        known = max(1.0, sum(ends.values()))
        reach = round(SMOOTHING_BINS * max(1.0, MEMORY / known) ** 0.2)
        return LifetimeDistribution.from_shares(ages, _estimate_shares(ages, exposed, ends, reach))

    def _scale_down(self) -> None:
        unit = 1 / self._weight
        self._changes = [change * unit for change in self._changes]
        self._ends = [(first, last, weight * unit) for first, last, weight in self._ends]
        self._weight = 1.0


@lru_cache(maxsize=32)
def _make_grid(youngest: int, oldest: int) -> tuple[Sequence[float], Sequence[int]]:
    """Return the ages between the bins of an estimate, and for each mark the number of the nearest of these ages.

    Args:
        youngest: The mark of the first edge; the first bin begins at 0 all the same.
        oldest: The mark of the last edge.
    """
    edges = _choose_edges(youngest, oldest)
    nearest = [0] * (youngest + 1)
    for number, (before, after) in enumerate(pairwise(edges)):
        middle = (before + after) / 2
        nearest += [number + (mark > middle) for mark in range(before + 1, after + 1)]
    nearest += [len(edges) - 1] * (len(MARKS) - 1 - oldest)
    return [0.0, *(MARKS[edge] for edge in edges[1:])], nearest


def _choose_edges(youngest: int, oldest: int) -> list[int]:
    """Return the marks between bins that are equally wide in the square root of the age, as far as marks permit."""
    step = (math.sqrt(MARKS[oldest]) - math.sqrt(MARKS[youngest])) / BINS
    edges = [youngest]
    target = math.sqrt(MARKS[youngest]) + step
    for mark in range(youngest + 1, oldest):
        root = math.sqrt(MARKS[mark])
        if root >= target:
            edges.append(mark)
            target = max(target + step, root + step / 2)
    edges.append(oldest)
    return edges


def _estimate_shares(
    ages: Sequence[float], exposed: Sequence[float], ends: dict[tuple[int, int], float], reach: int
) -> list[float]:
    """Return the self-consistent share of tasks that end in each bin.

    Args:
        ages: The edges of the bins.
        exposed: The weight of polls that found a task unfinished at both edges of each bin.
        ends: The weight of ends, by the edges between which they were.
        reach: The bins to each side over which to smooth in each round.
    """
    widths = [end - begin for begin, end in pairwise(ages)]
    prior = [PRIOR_AT_RISK * TAIL * width / end for width, end in zip(widths, ages[1:], strict=True)]
    shares = [width / ages[-1] for width in widths]
    for _ in range(ROUNDS):
        shares = _smooth(_redistribute(shares, exposed, ends, prior), reach)
    return shares


def _redistribute(
    shares: list[float], exposed: Sequence[float], ends: dict[tuple[int, int], float], prior: Sequence[float]
) -> list[float]:
    """Distribute the ends over their intervals in proportion to `shares`, and return the new shares: one round.

    With P the mass of an interval (first, last), the bin k of mass f(k) in it gets f(k) / P of the end as events, and
    (F(last) - F(k)) / P of it as exposure: sums over all intervals around k, from the changes at their edges.
    """
    cumulative = [0.0, *accumulate(shares)]
    density, upper_edge = [0.0] * len(cumulative), [0.0] * len(cumulative)
    for (first, last), weight in ends.items():
        mass = cumulative[last] - cumulative[first]
        per = weight / mass if mass > MIN_MASS else weight / MIN_MASS
        density[first] += per
        density[last] -= per
        per *= cumulative[last]
        upper_edge[first] += per
        upper_edge[last] -= per
    alive, per, upper = 1.0, 0.0, 0.0
    redistributed = []
    for place, share in enumerate(shares):
        per += density[place]
        upper += upper_edge[place]
        events = share * per + prior[place]
        at_risk = exposed[place] + upper - cumulative[place] * per + PRIOR_AT_RISK
        rate = events / at_risk if events > 0 < at_risk else 0.0
        ending = alive * rate if rate < 1 else alive
        alive -= ending
        redistributed.append(ending)
    return redistributed


def _smooth(shares: list[float], reach: int) -> list[float]:
    """Replace each share by the mean of those up to `reach` bins away, twice over; the sum stays the same."""
    width = 2 * reach + 1
    for _ in range(2):
        mirrored = [*shares[reach - 1 :: -1], *shares, *shares[: -reach - 1 : -1]]
        sums = [0.0, *accumulate(mirrored)]
        shares = [(after - before) / width for before, after in zip(sums, sums[width:], strict=False)]
    return shares

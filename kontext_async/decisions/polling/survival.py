"""How long tasks take, learned from asking now and then. Pure.

An ask tells that a task was still unfinished at one age, or that it ended somewhere between two: its end is
interval-censored. The estimate is the self-consistent one (Turnbull, 1976: The empirical distribution function with
arbitrarily grouped, censored and truncated data), as events and exposure: every ask puts the task at risk between the
ages of two asks, whatever comes of it later, so that running tasks count at once; an end is an event that is spread
over its interval as the estimate itself has it, again and again. Between the rounds the events are smoothed a little
(Silverman, Jones, Wilson and Nychka, 1990: EMS), from a start that is flat: where nothing is known of the inside of an
interval, ends are equally likely in all of it, and the estimate never confirms the schedule that it led to.

What is old counts less: the weight of everything falls by 1/e every `MEMORY` ends.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from kontext_async.decisions.polling.inspection import TAIL, Curve

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SurvivalEstimator"]

MEMORY = 300.0
"""Ends after which an observation weighs 1/e of a new one."""

RETAINED = 640
"""Ends that are kept, at most; older ones weigh less than an eighth."""

SHORTEST = 1e-3
"""Seconds: the youngest age that is told from 0."""

PER_OCTAVE = 64
OCTAVES = 24
MARKS = (0.0, *(SHORTEST * 2 ** (mark / PER_OCTAVE) for mark in range(1, PER_OCTAVE * OCTAVES + 1)))
"""The ages that are told apart, in seconds: 0, then steps of 1.1 % from a millisecond to 4.6 hours."""

LONGEST = MARKS[-1]
AT_ONE_SECOND = 0.5 - PER_OCTAVE * math.log2(SHORTEST)
"""The number of the mark at one second, and a half, so that what is cut off is rounded."""

BINS = 112
"""Age bins of an estimate, about, of equal width in the square root of the age: as the gaps between asks are."""

ROUNDS = 8
"""Times that the events are spread anew."""

SMOOTHING_BINS = 2
"""Bins to each side over which they are smoothed, each time; more while fewer than `MEMORY` ends are known, as
bandwidths go: with the fifth root of their number."""

AT_RISK = 0.3
"""Tasks that are imagined to be at risk at every age, ending at the rate `TAIL` / age: no age is ever ruled out."""

LEAST_MASS = 1e-12
"""No interval in which an end was seen is taken to hold less."""

HEAVY = 1e9
"""Above this weight of a new observation, all weights are scaled down."""

Interval: TypeAlias = tuple[int, int, float]


def _mark(age: float) -> int:
    """The number of the mark next to an age."""
    if age <= SHORTEST:
        return 0
    return int(PER_OCTAVE * math.log2(age) + AT_ONE_SECOND) if age < LONGEST else len(MARKS) - 1


@define
class SurvivalEstimator:
    """The ages at which tasks end, as far as asking showed them.

    Attributes:
        seen: Ends that were seen.
    """

    seen: int = field(default=0, init=False)
    _weight: float = field(default=1.0, init=False)
    _changes: list[float] = field(factory=lambda: [0.0] * len(MARKS), init=False)
    _ends: list[Interval] = field(factory=list, init=False)

    def observe_alive(self, begin: float, end: float) -> None:
        """A task that was unfinished at the age `begin` was so at the age `end` too."""
        first, last = _mark(begin), _mark(end)
        if last > first:
            self._changes[first] += self._weight
            self._changes[last] -= self._weight

    def observe_end(self, begin: float, end: float) -> None:
        """A task that was unfinished at the age `begin` was finished at the age `end`.

        That it was unfinished from its acceptance to `begin` is for `observe_alive` to say.
        """
        last = max(1, _mark(end))
        self._ends.append((min(_mark(begin), last - 1), last, self._weight))
        self.seen += 1
        self._weight *= 1 + 1 / MEMORY
        if len(self._ends) > RETAINED * 1.25:
            del self._ends[:-RETAINED]

    def forget(self, kept: float) -> None:
        """Let everything seen so far count for the part `kept` of what it did."""
        self._weight /= kept

    def curve(self) -> Curve:
        """The distribution of ages. At least one end was seen."""
        if self._weight > HEAVY:
            self._scale_down()
        youngest = max(0, min(last for _, last, _ in self._ends) - PER_OCTAVE)
        oldest = min(len(MARKS) - 1, max(last for _, last, _ in self._ends) + PER_OCTAVE)
        cuts = _cuts(youngest, oldest)
        ages = [0.0, *(MARKS[cut] for cut in cuts[1:])]
        place = _places(cuts)

        def bin_of(mark: int) -> int:
            return place[min(max(mark, youngest), oldest) - youngest]

        bins = len(cuts) - 1
        unit = 1 / self._weight
        changes = [0.0] * (bins + 1)
        for mark, change in enumerate(self._changes):
            if change:
                changes[bin_of(mark)] += change * unit
        exposed = [max(0.0, weight) for weight in accumulate(changes[:bins])]
        ends: dict[tuple[int, int], float] = {}
        for first, last, weight in self._ends:
            end = max(1, bin_of(last))
            key = (min(bin_of(first), end - 1), end)
            ends[key] = ends.get(key, 0.0) + weight * unit
        known = max(1.0, sum(ends.values()))
        reach = round(SMOOTHING_BINS * max(1.0, MEMORY / known) ** 0.2)
        return Curve.of_shares(ages, _self_consistent(ages, exposed, ends, reach))

    def _scale_down(self) -> None:
        unit = 1 / self._weight
        self._changes = [change * unit for change in self._changes]
        self._ends = [(first, last, weight * unit) for first, last, weight in self._ends]
        self._weight = 1.0


def _cuts(youngest: int, oldest: int) -> list[int]:
    """The marks between bins of equal width in the square root of the age, where the marks are fine enough."""
    step = (math.sqrt(MARKS[oldest]) - math.sqrt(MARKS[youngest])) / BINS
    cuts = [youngest]
    edge = math.sqrt(MARKS[youngest]) + step
    for mark in range(youngest + 1, oldest):
        root = math.sqrt(MARKS[mark])
        if root >= edge:
            cuts.append(mark)
            edge = max(edge + step, root + step / 2)
    cuts.append(oldest)
    return cuts


def _places(cuts: Sequence[int]) -> list[int]:
    """For every mark from the first cut to the last, the number of the cut next to it."""
    places = [0]
    for number, (before, after) in enumerate(pairwise(cuts)):
        middle = (before + after) / 2
        places += [number + (mark > middle) for mark in range(before + 1, after + 1)]
    return places


def _self_consistent(
    ages: Sequence[float], exposed: Sequence[float], ends: dict[tuple[int, int], float], reach: int
) -> list[float]:
    """The share of tasks that ends in each bin.

    Args:
        ages: The edges of the bins.
        exposed: The weight of asks that found a task unfinished at both edges of each bin.
        ends: The weight of ends, by the edges between which they were.
        reach: Over how many bins to smooth, each round.
    """
    widths = [end - begin for begin, end in pairwise(ages)]
    imagined = [AT_RISK * TAIL * width / end for width, end in zip(widths, ages[1:], strict=True)]
    shares = [width / ages[-1] for width in widths]
    for _ in range(ROUNDS):
        shares = _smoothed(_spread_anew(shares, exposed, ends, imagined), reach)
    return shares


def _spread_anew(
    shares: list[float], exposed: Sequence[float], ends: dict[tuple[int, int], float], imagined: Sequence[float]
) -> list[float]:
    """One round: ends are spread over their intervals as `shares` has it, and give new shares.

    With P the mass of an interval (first, last), the bin k of mass f(k) in it gets f(k) / P of the end as events, and
    (F(last) - F(k)) / P of it as exposure: sums over all intervals around k, made from the changes at their edges.
    """
    by = [0.0, *accumulate(shares)]
    density, reach = [0.0] * len(by), [0.0] * len(by)
    for (first, last), weight in ends.items():
        per = weight / max(LEAST_MASS, by[last] - by[first])
        density[first] += per
        density[last] -= per
        per *= by[last]
        reach[first] += per
        reach[last] -= per
    alive, per, upper = 1.0, 0.0, 0.0
    spread = []
    for place, share in enumerate(shares):
        per += density[place]
        upper += reach[place]
        events = share * per + imagined[place]
        at_risk = exposed[place] + upper - by[place] * per + AT_RISK
        ending = alive * min(1.0, max(0.0, events / at_risk)) if at_risk > 0 else 0.0
        alive -= ending
        spread.append(ending)
    return spread


def _smoothed(shares: list[float], reach: int) -> list[float]:
    """Each share as the mean of those around it, up to `reach` bins away, twice over; the sum stays."""
    width = 2 * reach + 1
    for _ in range(2):
        mirrored = [*shares[reach - 1 :: -1], *shares, *shares[: -reach - 1 : -1]]
        sums = [0.0, *accumulate(mirrored)]
        shares = [(after - before) / width for before, after in zip(sums, sums[width:], strict=False)]
    return shares

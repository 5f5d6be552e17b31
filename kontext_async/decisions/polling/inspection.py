"""When to look, for something that ends at an unknown age: the best schedule for a known distribution. Pure.

A task that is looked at costs `worth` seconds a look, and every second from its end to the look that sees it costs one.
With F the distribution of the ages at which tasks end, G its integral and S = 1 - F, a task that was "not yet" at age
a, and is looked at next at age b, has in the mean been finished for

    D(a, b) = (G(b) - G(a) - F(a) (b - a)) / S(a)

seconds by then: its *expected_delay delay*. The best schedule looks next where W(a) = min over b of
worth S(a) + S(a) D(a, b) + W(b) is reached (inspection policies: Barlow and Proschan, Mathematical Theory of
Reliability, 1965, chapter 4). For every b that is a straight line in F(a) of slope -b, so that the best b for all ages
of a grid are found in one pass over the lower envelope of lines, in time proportional to the grid (the concave
least-weight subsequence problem: Wilber, 1988). Where the rate of ends h hardly changes, the gaps come out as
sqrt(2 worth / h).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TAIL", "Curve", "Plan", "best_plan"]

TAIL = 1.0
"""Past all ages that were seen, tasks of age t are taken to end at the rate TAIL / t: what has lasted long lasts."""

LEAST_ALIVE = 1e-9
"""No share of tasks that go on is taken to be smaller."""


@frozen
class Curve:
    """A distribution of ages, straight between the ages of a grid, with `TAIL` behind them.

    Attributes:
        ages: The grid, in seconds, rising from 0.
        ended: The share of tasks that has ended by each of these ages.
        area: The integral of `ended` up to each of them.
    """

    ages: Sequence[float]
    ended: Sequence[float]
    area: Sequence[float]

    @classmethod
    def of_shares(cls, ages: Sequence[float], shares: Sequence[float]) -> Curve:
        """From the share of tasks that ends between each two ages of the grid; what they lack to 1 ends later."""
        ended, area = [0.0], [0.0]
        total = integral = 0.0
        for place, share in enumerate(shares):
            integral += (total + share / 2) * (ages[place + 1] - ages[place])
            total += share
            ended.append(total)
            area.append(integral)
        return cls(ages, ended, area)

    def by(self, age: float) -> tuple[float, float]:
        """The share that has ended by `age`, and the integral of that share."""
        last = len(self.ages) - 1
        if age >= self.ages[last]:
            return self._by_late(age)
        place = bisect_right(self.ages, age) - 1
        begin, before = self.ages[place], self.ended[place]
        part = (age - begin) / (self.ages[place + 1] - begin)
        ended = before + part * (self.ended[place + 1] - before)
        return ended, self.area[place] + (before + ended) / 2 * (age - begin)

    def chance(self, begin: float, end: float) -> float:
        """The probability that a task that is unfinished at the age `begin` is finished at the age `end`."""
        before = self.by(begin)[0]
        return min(1.0, max(0.0, (self.by(end)[0] - before) / max(LEAST_ALIVE, 1 - before)))

    def expected_delay(self, begin: float, end: float) -> float:
        """The mean delay, in seconds, that a task unfinished at the age `begin` has expected_delay at the age `end`."""
        before, area = self.by(begin)
        return max(0.0, self.by(end)[1] - area - before * (end - begin)) / max(LEAST_ALIVE, 1 - before)

    def _by_late(self, age: float) -> tuple[float, float]:
        # S(t) = S(x) x / t, which is TAIL = 1, and its integral
        edge = self.ages[-1]
        alive = max(LEAST_ALIVE, 1 - self.ended[-1])
        return 1 - alive * edge / age, self.area[-1] + age - edge - alive * edge * math.log(age / edge)


@frozen
class Plan:
    """For every age at which a task is unfinished: at which age to look next.

    Attributes:
        ages: The grid, in seconds, rising from 0.
        following: The next look for each of these ages.
        worth: The seconds of delay that one look may cost.
    """

    ages: Sequence[float]
    following: Sequence[float]
    worth: float

    def after(self, age: float) -> float:
        """The age of the look that follows one at `age`."""
        ages, following = self.ages, self.following
        if age >= ages[-1]:
            return age + tail_gap(age, self.worth)
        place = bisect_right(ages, age) - 1
        part = (age - ages[place]) / (ages[place + 1] - ages[place])
        return following[place] + part * (following[place + 1] - following[place])


def tail_gap(age: float, worth: float) -> float:
    """The gap past all that was seen: sqrt(2 worth / h) with h = TAIL / age."""
    return math.sqrt(2 * worth * age / TAIL)


def best_plan(curve: Curve, worth: float) -> Plan:
    """The schedule of least cost on the curve's grid."""
    ages, ended, area = curve.ages, curve.ended, curve.area
    last = len(ages) - 1
    gap = tail_gap(ages[last], worth)
    # The line of a look at ages[b]: height[b] - ages[b] * F(a), of which W(a) takes the lowest at F(a).
    height = [0.0] * last + [area[last] + (1 - ended[last]) * (gap + worth)]
    following = [0.0] * last + [ages[last] + gap]
    envelope = [last]
    front = 0
    for a in range(last - 1, -1, -1):
        share, age = ended[a], ages[a]
        best = envelope[front]
        least = height[best] - ages[best] * share
        while front + 1 < len(envelope):
            other = envelope[front + 1]
            value = height[other] - ages[other] * share
            if value > least:
                break
            front, best, least = front + 1, other, value
        following[a] = ages[best]
        height[a] = worth * (1 - share) + least + share * age
        while len(envelope) - front > 1:
            last_but_one, top = envelope[-2], envelope[-1]
            reach = (height[last_but_one] - height[a]) * (ages[last_but_one] - ages[top])
            if reach < (height[last_but_one] - height[top]) * (ages[last_but_one] - age):
                break
            envelope.pop()
        envelope.append(a)
    return Plan(ages, following, worth)

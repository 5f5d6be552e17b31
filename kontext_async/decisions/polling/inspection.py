"""The optimal schedule of polls for an end at an unknown age with a known distribution. Pure.

A poll costs c seconds (`poll_cost`), and every second from the end of a task to the poll that detects it costs one.
Let F be the distribution of the ages at which tasks end, G its integral, and S = 1 - F. A task that was unfinished at
age a and is polled next at age b has ended, on average,

    D(a, b) = (G(b) - G(a) - F(a) (b - a)) / S(a)

seconds before that poll: its *expected delay*. The optimal schedule polls next at the age b that attains

    W(a) = min over b of c S(a) + S(a) D(a, b) + W(b)

(inspection policies: Barlow and Proschan, Mathematical Theory of Reliability, 1965, chapter 4). For every b that is a
straight line in F(a) of slope -b, so that one pass over the lower envelope of these lines finds the best b for all ages
of a grid, in time proportional to the grid (the concave least-weight subsequence problem: Wilber, 1988). Where the rate
h at which tasks end hardly changes, the gaps come out as sqrt(2 c / h).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TAIL", "LifetimeDistribution", "PollSchedule", "optimal_schedule"]

TAIL = 1.0
"""Beyond all observed ages, tasks of age t are assumed to end at the rate TAIL / t: the older a task, the longer it is
expected to last."""

MIN_ALIVE = 1e-9
"""The smallest share of unfinished tasks in a division."""


@frozen
class LifetimeDistribution:
    """The distribution of the ages at which tasks end: linear between the ages of a grid, with `TAIL` beyond them.

    Attributes:
        ages: The grid, in seconds, ascending from 0.
        ended: The share of tasks that have ended by each of these ages.
        area: The integral of `ended` up to each of them.
    """

    ages: Sequence[float]
    ended: Sequence[float]
    area: Sequence[float]

    @classmethod
    def from_shares(cls, ages: Sequence[float], shares: Sequence[float]) -> LifetimeDistribution:
        """Build a distribution from the shares of tasks that end between adjacent ages of the grid.

        The part by which the shares sum to less than 1 ends beyond the grid.
        """
        ended, area = [0.0], [0.0]
        total = integral = 0.0
        for place, share in enumerate(shares):
            integral += (total + share / 2) * (ages[place + 1] - ages[place])
            total += share
            ended.append(total)
            area.append(integral)
        return cls(ages, ended, area)

    def cumulative(self, age: float) -> tuple[float, float]:
        """Return the share of tasks that have ended by `age`, and the integral of that share."""
        last = len(self.ages) - 1
        if age >= self.ages[last]:
            return self._cumulative_in_tail(age)
        place = bisect_right(self.ages, age) - 1
        begin, before = self.ages[place], self.ended[place]
        part = (age - begin) / (self.ages[place + 1] - begin)
        ended = before + part * (self.ended[place + 1] - before)
        return ended, self.area[place] + (before + ended) / 2 * (age - begin)

    def end_probability(self, begin: float, end: float) -> float:
        """Return the probability that a task that is unfinished at the age `begin` has ended by the age `end`."""
        before = self.cumulative(begin)[0]
        return min(1.0, max(0.0, (self.cumulative(end)[0] - before) / max(MIN_ALIVE, 1 - before)))

    def expected_delay(self, begin: float, end: float) -> float:
        """Return the expected seconds, at the age `end`, since the end of a task that was unfinished at `begin`."""
        before, area = self.cumulative(begin)
        return max(0.0, self.cumulative(end)[1] - area - before * (end - begin)) / max(MIN_ALIVE, 1 - before)

    def _cumulative_in_tail(self, age: float) -> tuple[float, float]:
        # S(t) = S(x) x / t, which is TAIL = 1, and its integral
        edge = self.ages[-1]
        alive = max(MIN_ALIVE, 1 - self.ended[-1])
        return 1 - alive * edge / age, self.area[-1] + age - edge - alive * edge * math.log(age / edge)


@frozen
class PollSchedule:
    """The age of the next poll, for every age at which a poll finds a task unfinished.

    Attributes:
        ages: The grid, in seconds, ascending from 0.
        following: The age of the next poll, for each of these ages.
        poll_cost: The seconds of delay that one poll may cost.
    """

    ages: Sequence[float]
    following: Sequence[float]
    poll_cost: float

    def next_poll(self, age: float) -> float:
        """Return the age of the poll that follows one at `age`."""
        ages, following = self.ages, self.following
        if age >= ages[-1]:
            return age + tail_gap(age, self.poll_cost)
        place = bisect_right(ages, age) - 1
        part = (age - ages[place]) / (ages[place + 1] - ages[place])
        return following[place] + part * (following[place + 1] - following[place])


def tail_gap(age: float, poll_cost: float) -> float:
    """Return the gap beyond all observed ages: sqrt(2 poll_cost / h) with h = TAIL / age."""
    return math.sqrt(2 * poll_cost * age / TAIL)


def optimal_schedule(distribution: LifetimeDistribution, poll_cost: float) -> PollSchedule:
    """Return the schedule of least cost on the grid of a distribution."""
    ages, ended, area = distribution.ages, distribution.ended, distribution.area
    last = len(ages) - 1
    gap = tail_gap(ages[last], poll_cost)
    # The line of a poll at ages[b] is height[b] - ages[b] * F(a); W(a) is the lowest line at F(a).
    height = [0.0] * last + [area[last] + (1 - ended[last]) * (gap + poll_cost)]
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
        height[a] = poll_cost * (1 - share) + least + share * age
        while len(envelope) - front > 1:
            last_but_one, top = envelope[-2], envelope[-1]
            reach = (height[last_but_one] - height[a]) * (ages[last_but_one] - ages[top])
            if reach < (height[last_but_one] - height[top]) * (ages[last_but_one] - age):
                break
            envelope.pop()
        envelope.append(a)
    return PollSchedule(ages, following, poll_cost)

"""The seconds for which a request is expected to occupy a slot, learned from ended requests. No await, no clock.

A slot is occupied from before the create request until the task ends. Kinds of request (the model and the number of
input images) take different times. A kind without an ended task is expected to take as long as all others do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["SlotDurations"]

ASSUMED = 5.0
"""Seconds that a task is assumed to take before the first one has ended: an image takes from 3 to 10."""

LEAST_WEIGHT = 1 / 32
"""The least weight of a new observation: the mean follows a service that becomes slower or faster."""

MAX_KINDS = 16
"""The number of kinds with a mean of their own; further ones share that of all."""


@define
class RecentMean:
    """The mean of recent values.

    Attributes:
        value: The mean.
        count: The number of values.
    """

    value: float = 0.0
    count: int = 0

    def observe(self, value: float) -> None:
        """Add a value."""
        self.count += 1
        self.value += max(1 / self.count, LEAST_WEIGHT) * (value - self.value)


@define
class KindDurations:
    """The durations of one kind.

    Attributes:
        create: Seconds from the assignment of the slot until the gateway accepts the request.
        task: Seconds from then until the end of the task is seen.
    """

    create: RecentMean = field(factory=RecentMean)
    task: RecentMean = field(factory=RecentMean)

    @property
    def expected(self) -> float:
        """The seconds for which a request occupies its slot."""
        return self.create.value + self.task.value


@define
class SlotDurations:
    """The durations of all kinds."""

    _overall: KindDurations = field(factory=KindDurations, init=False)
    _kinds: dict[Hashable, KindDurations] = field(factory=dict, init=False)
    _expected: dict[Hashable, float] = field(factory=dict, init=False)

    @property
    def mean(self) -> float:
        """The seconds for which a request of any kind is expected to occupy a slot."""
        return self._overall.expected if self._overall.task.count else ASSUMED

    def expected(self, kind: Hashable) -> float:
        """Return the seconds for which a request of a kind is expected to occupy a slot."""
        expected = self._expected.get(kind)
        return self.mean if expected is None else expected

    def observe_accepted(self, kind: Hashable, seconds: float) -> None:
        """Record that the gateway accepted a request so many seconds after its slot was assigned."""
        self._overall.create.observe(seconds)
        if durations := self._of(kind):
            durations.create.observe(seconds)

    def observe_ended(self, kind: Hashable, seconds: float) -> None:
        """Record that the end of a task was seen so many seconds after its acceptance."""
        self._overall.task.observe(seconds)
        if durations := self._of(kind):
            durations.task.observe(seconds)
            self._expected[kind] = durations.expected

    def _of(self, kind: Hashable) -> KindDurations | None:
        durations = self._kinds.get(kind)
        if durations is None and len(self._kinds) < MAX_KINDS:
            durations = self._kinds[kind] = KindDurations()
        return durations

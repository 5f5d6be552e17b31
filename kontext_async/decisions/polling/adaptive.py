"""The poll loop's timing rule: asks when a task is likely to have finished. Pure: no await, no clock.

For each kind of request the ends of tasks are learned (`SurvivalEstimator`), and now and then the best schedule for what is
known is worked out (`best_plan`): close to gaps of sqrt(2c / h), where h is the rate at which tasks of an age finish
and c is `Polling.poll_cost`. Until `ENOUGH` ends were seen the settings' interval holds; kinds with few ends share
what is known of all. `progress` takes over where it has proved to foretell ends (`ProgressModel`), and the gateway's own
times narrow down when a task ended (`narrow`).

A service that becomes slower or faster is noticed by what asks find, against what was expected: then the past counts
for less at once, and not only as it fades. A task of unknown age, one that was attached, is asked about at the
settings' interval, and nothing is learned from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field

from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.inspection import Curve, Plan, best_plan
from kontext_async.decisions.polling.progress_model import ProgressModel, predicted_end
from kontext_async.decisions.polling.queue import IntervalTiming
from kontext_async.decisions.polling.server_times import narrow
from kontext_async.decisions.polling.survival import MEMORY, SurvivalEstimator

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from kontext_async.models import TaskStatus
    from kontext_async.settings import Polling

__all__ = ["AdaptiveTiming"]

ENOUGH = 8
"""Ends from which on there is something to go by."""

ENOUGH_APART = 40
"""Ends from which on a kind of request is taken by itself."""

MOST_KINDS = 16
"""Kinds that are learned apart; further ones share what is known of all."""

REFRESH = 4
"""The schedule is worked out again after a part of the ends known: this part, and `ENOUGH` at least."""

DRIFT_SIGMAS = 4.5
"""Standard deviations between what was found and what was expected, from which on the past counts for less."""

RECENT = 0.99
"""What is left of the comparison of found and expected after one more ask."""

RETAINED = 0.25
"""The part of the past that is kept after a surprise."""

SPREAD = 0.05
"""The part of a gap that is left to chance: tasks created together drift apart, and the inside of gaps is seen."""

EntryT = TypeVar("EntryT", bound=PollEntry)


@define
class KindModel:
    """What is known of one kind of request."""

    worth: float
    survival: SurvivalEstimator = field(factory=SurvivalEstimator, init=False)
    progress_model: ProgressModel = field(factory=ProgressModel, init=False)
    curve: Curve | None = field(default=None, init=False)
    plan: Plan | None = field(default=None, init=False)
    _refresh_at: int = field(default=ENOUGH, init=False)
    _surplus: float = field(default=0.0, init=False)
    _variance: float = field(default=0.0, init=False)

    def asked(self, begin: float, age: float, end: float, *, finished: bool) -> None:
        """Compare what an ask at `age` found with what was expected since `begin`. An end may be predicted_end at `end`."""
        if self.curve is None:
            return
        chance = self.curve.chance(begin, age)
        if end > 0:
            self.progress_model.seen(end, begin, age, finished=finished, chance=chance)
        self._surplus = self._surplus * RECENT + finished - chance
        self._variance = self._variance * RECENT + chance * (1 - chance)

    def refresh(self) -> None:
        """Work out the schedule again, if there is enough that is new."""
        surprised = self._surplus**2 > DRIFT_SIGMAS**2 * (1 + self._variance)
        if surprised:
            self.survival.forget(RETAINED)
        if surprised or self.survival.seen >= self._refresh_at:
            seen = self.survival.seen
            self.curve = self.survival.curve()
            self.plan = best_plan(self.curve, self.worth)
            self._refresh_at = seen + max(ENOUGH, int(min(seen, MEMORY) / REFRESH))
            self._surplus = self._variance = 0.0


def _one_kind(task: PollEntry) -> Hashable:  # noqa: ARG001 # all are of one kind
    return ()


@define
class AdaptiveTiming(Generic[EntryT]):
    """Asks when a task is likely to have finished since it was last asked about.

    Attributes:
        polling: The settings.
        kind_of: The kind of a task's request, such that kinds may take different times; None for a task of unknown
            age.
    """

    polling: Polling
    kind_of: Callable[[EntryT], Hashable | None] = _one_kind
    _until_known: IntervalTiming = field(init=False)
    _all: KindModel = field(init=False)
    _only: tuple[KindModel] = field(init=False)
    _kinds: dict[Hashable, int] = field(factory=dict, init=False)
    _apart: list[KindModel] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._until_known = IntervalTiming(self.polling)
        self._all = KindModel(self.polling.poll_cost)
        self._only = (self._all,)

    def first(self, task: EntryT, now: float, random: float) -> float:
        """See `Timing.first`."""
        task.kind = self._number_of(self.kind_of(task))
        known = self._known(task)
        if known is None or known.plan is None:
            return self._until_known.first(task, now, random)
        age = max(0.0, now - task.since)
        gap = self._spread(known.plan.after(age) - age, random)
        return now + gap

    def again(self, task: EntryT, progress: float | None, now: float, random: float) -> float:
        """See `Timing.again`."""
        begin, asked = task.unfinished_at, task.due
        age = asked - task.since
        if asked > begin:
            task.unfinished_at = asked
            if task.kind is not None:
                self._outlived(task, begin - task.since, age)
        task.predicted_end = predicted_end(age, progress)
        known = self._known(task)
        if known is None or known.plan is None:
            return self._until_known.again(task, progress, now, random)
        target = known.progress_model.next_ask(task.predicted_end, age, self.polling.poll_cost)
        gap = self._spread((known.plan.after(age) if target is None else target) - age, random)
        return max(asked + gap, now + self.polling.min_interval)

    def _outlived(self, task: PollEntry, begin: float, age: float) -> None:
        for knowledge in self._learning(task):
            knowledge.survival.observe_alive(begin, age)
            knowledge.asked(begin, age, task.predicted_end, finished=False)

    def finished(self, task: EntryT, status: TaskStatus, now: float) -> None:  # noqa: ARG002 # Timing's
        """See `Timing.finished`."""
        begin, age = max(0.0, task.unfinished_at - task.since), max(0.0, task.due - task.since)
        if task.kind is None or age <= begin:
            return
        least, most = narrow(begin, age, status)
        for knowledge in self._learning(task):
            knowledge.survival.observe_alive(begin, least)
            knowledge.survival.observe_end(least, most)
            knowledge.asked(begin, age, task.predicted_end, finished=True)

    def expected_delay(self, task: EntryT, now: float) -> float:
        """See `Timing.expected_delay`."""
        known = self._known(task)
        if known is None or known.curve is None:
            return self._until_known.expected_delay(task, now)
        return known.curve.expected_delay(max(0.0, task.unfinished_at - task.since), max(0.0, now - task.since))

    def _number_of(self, kind: Hashable | None) -> int | None:
        if kind is None:
            return None
        if len(self._kinds) >= MOST_KINDS:
            return self._kinds.get(kind, -1)
        number = self._kinds.setdefault(kind, len(self._kinds))
        if len(self._kinds) > max(1, len(self._apart)):
            self._apart += [KindModel(self.polling.poll_cost) for _ in range(len(self._apart), len(self._kinds))]
        return number

    def _learning(self, task: PollEntry) -> tuple[KindModel, ...]:
        """What learns from a task: while there is one kind of request only, that is what is known of all."""
        if not self._apart:
            return self._only
        apart = self._apart_of(task)
        return self._only if apart is None else (self._all, apart)

    def _apart_of(self, task: PollEntry) -> KindModel | None:
        return self._apart[task.kind] if task.kind is not None and 0 <= task.kind < len(self._apart) else None

    def _known(self, task: PollEntry) -> KindModel | None:
        """What is known of a task like this, brought up to date."""
        if task.kind is None:
            return None
        apart = self._apart_of(task) if self._apart else None
        known = self._all if apart is None or apart.survival.seen < ENOUGH_APART else apart
        known.refresh()
        return known

    def _spread(self, gap: float, random: float) -> float:
        """A gap with jitter, within the settings' bounds."""
        gap *= 1 + SPREAD * (2 * random - 1)
        return min(self.polling.max_interval, max(self.polling.min_interval, gap))

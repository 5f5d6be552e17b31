"""The poll loop's timing rule: asks when a task is likely to have finished. Pure: no await, no clock.

For each kind of request the ends of tasks are learned (`Lifetimes`), and now and then the best schedule for what is
known is worked out (`best_plan`): close to gaps of sqrt(2c / h), where h is the rate at which tasks of an age finish
and c is `Polling.request_worth`. Until `ENOUGH` ends were seen the settings' interval holds; kinds with few ends share
what is known of all. `progress` takes over where it has proved to foretell ends (`Foretelling`), and the gateway's own
times narrow down when a task ended (`narrowed`).

A service that becomes slower or faster is noticed by what asks find, against what was expected: then the past counts
for less at once, and not only as it fades. A task of unknown age, one that was attached, is asked about at the
settings' interval, and nothing is learned from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field

from kontext_async.decisions.foretelling import Foretelling, foretold
from kontext_async.decisions.inspection import Curve, Plan, best_plan
from kontext_async.decisions.lifetimes import MEMORY, Lifetimes
from kontext_async.decisions.polling import IntervalTiming
from kontext_async.decisions.server_times import narrowed
from kontext_async.decisions.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from kontext_async.models import TaskStatus
    from kontext_async.settings import Polling

__all__ = ["LearnedTiming"]

ENOUGH = 8
"""Ends from which on there is something to go by."""

ENOUGH_APART = 40
"""Ends from which on a kind of request is taken by itself."""

MOST_KINDS = 16
"""Kinds that are learned apart; further ones share what is known of all."""

REFRESH = 4
"""The schedule is worked out again after a part of the ends known: this part, and `ENOUGH` at least."""

SURPRISE = 4.5
"""Standard deviations between what was found and what was expected, from which on the past counts for less."""

RECENT = 0.99
"""What is left of the comparison of found and expected after one more ask."""

KEPT = 0.25
"""The part of the past that is kept after a surprise."""

SPREAD = 0.05
"""The part of a gap that is left to chance: tasks created together drift apart, and the inside of gaps is seen."""

WatchedT = TypeVar("WatchedT", bound=Watched)


@define
class Knowledge:
    """What is known of one kind of request."""

    worth: float
    lifetimes: Lifetimes = field(factory=Lifetimes, init=False)
    foretelling: Foretelling = field(factory=Foretelling, init=False)
    curve: Curve | None = field(default=None, init=False)
    plan: Plan | None = field(default=None, init=False)
    _refresh_at: int = field(default=ENOUGH, init=False)
    _surplus: float = field(default=0.0, init=False)
    _variance: float = field(default=0.0, init=False)

    def asked(self, begin: float, age: float, end: float, *, finished: bool) -> None:
        """Compare what an ask at `age` found with what was expected since `begin`. An end may be foretold at `end`."""
        if self.curve is None:
            return
        chance = self.curve.chance(begin, age)
        if end > 0:
            self.foretelling.seen(end, begin, age, finished=finished, chance=chance)
        self._surplus = self._surplus * RECENT + finished - chance
        self._variance = self._variance * RECENT + chance * (1 - chance)

    def refresh(self) -> None:
        """Work out the schedule again, if there is enough that is new."""
        surprised = self._surplus**2 > SURPRISE**2 * (1 + self._variance)
        if surprised:
            self.lifetimes.forget(KEPT)
        if surprised or self.lifetimes.seen >= self._refresh_at:
            seen = self.lifetimes.seen
            self.curve = self.lifetimes.curve()
            self.plan = best_plan(self.curve, self.worth)
            self._refresh_at = seen + max(ENOUGH, int(min(seen, MEMORY) / REFRESH))
            self._surplus = self._variance = 0.0


def _one_kind(task: Watched) -> Hashable:  # noqa: ARG001 # all are of one kind
    return ()


@define
class LearnedTiming(Generic[WatchedT]):
    """Asks when a task is likely to have finished since it was last asked about.

    Attributes:
        polling: The settings.
        kind_of: The kind of a task's request, such that kinds may take different times; None for a task of unknown
            age.
    """

    polling: Polling
    kind_of: Callable[[WatchedT], Hashable | None] = _one_kind
    _until_known: IntervalTiming = field(init=False)
    _all: Knowledge = field(init=False)
    _only: tuple[Knowledge] = field(init=False)
    _kinds: dict[Hashable, int] = field(factory=dict, init=False)
    _apart: list[Knowledge] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._until_known = IntervalTiming(self.polling)
        self._all = Knowledge(self.polling.request_worth)
        self._only = (self._all,)

    def first(self, task: WatchedT, now: float, random: float) -> float:
        """See `Timing.first`."""
        task.kind = self._number_of(self.kind_of(task))
        known = self._known(task)
        if known is None or known.plan is None:
            return self._until_known.first(task, now, random)
        age = max(0.0, now - task.since)
        gap = self._spread(known.plan.after(age) - age, random)
        return now + gap

    def again(self, task: WatchedT, progress: float | None, now: float, random: float) -> float:
        """See `Timing.again`."""
        begin, asked = task.unfinished_at, task.due
        age = asked - task.since
        if asked > begin:
            task.unfinished_at = asked
            if task.kind is not None:
                self._outlived(task, begin - task.since, age)
        task.foretold = foretold(age, progress)
        known = self._known(task)
        if known is None or known.plan is None:
            return self._until_known.again(task, progress, now, random)
        target = known.foretelling.next_ask(task.foretold, age, self.polling.request_worth)
        gap = self._spread((known.plan.after(age) if target is None else target) - age, random)
        return max(asked + gap, now + self.polling.min_interval)

    def _outlived(self, task: Watched, begin: float, age: float) -> None:
        for knowledge in self._learning(task):
            knowledge.lifetimes.outlived(begin, age)
            knowledge.asked(begin, age, task.foretold, finished=False)

    def finished(self, task: WatchedT, status: TaskStatus, now: float) -> None:  # noqa: ARG002 # Timing's
        """See `Timing.finished`."""
        begin, age = max(0.0, task.unfinished_at - task.since), max(0.0, task.due - task.since)
        if task.kind is None or age <= begin:
            return
        least, most = narrowed(begin, age, status)
        for knowledge in self._learning(task):
            knowledge.lifetimes.outlived(begin, least)
            knowledge.lifetimes.ended(least, most)
            knowledge.asked(begin, age, task.foretold, finished=True)

    def accrued(self, task: WatchedT, now: float) -> float:
        """See `Timing.accrued`."""
        known = self._known(task)
        if known is None or known.curve is None:
            return self._until_known.accrued(task, now)
        return known.curve.accrued(max(0.0, task.unfinished_at - task.since), max(0.0, now - task.since))

    def _number_of(self, kind: Hashable | None) -> int | None:
        if kind is None:
            return None
        if len(self._kinds) >= MOST_KINDS:
            return self._kinds.get(kind, -1)
        number = self._kinds.setdefault(kind, len(self._kinds))
        if len(self._kinds) > max(1, len(self._apart)):
            self._apart += [Knowledge(self.polling.request_worth) for _ in range(len(self._apart), len(self._kinds))]
        return number

    def _learning(self, task: Watched) -> tuple[Knowledge, ...]:
        """What learns from a task: while there is one kind of request only, that is what is known of all."""
        if not self._apart:
            return self._only
        apart = self._apart_of(task)
        return self._only if apart is None else (self._all, apart)

    def _apart_of(self, task: Watched) -> Knowledge | None:
        return self._apart[task.kind] if task.kind is not None and 0 <= task.kind < len(self._apart) else None

    def _known(self, task: Watched) -> Knowledge | None:
        """What is known of a task like this, brought up to date."""
        if task.kind is None:
            return None
        apart = self._apart_of(task) if self._apart else None
        known = self._all if apart is None or apart.lifetimes.seen < ENOUGH_APART else apart
        known.refresh()
        return known

    def _spread(self, gap: float, random: float) -> float:
        """A gap with jitter, within the settings' bounds."""
        gap *= 1 + SPREAD * (2 * random - 1)
        return min(self.polling.max_interval, max(self.polling.min_interval, gap))

"""The timing rule of the poll loop, which polls when a task is likely to have ended. Pure: no await, no clock.

For each kind of request, `SurvivalEstimator` learns when tasks end, and from time to time `optimal_schedule` computes
the best schedule for the estimate: close to gaps of sqrt(2c / h), where h is the rate at which tasks of an age end and
c is `Polling.poll_cost`. Until `MIN_ENDS` ends have been observed, the schedule of the settings applies. Kinds with few
ends share one model of all tasks. Where `progress` has proved to predict ends, it replaces the schedule
(`ProgressModel`). The gateway's own times narrow the interval in which a task ended (`narrow`).

The rule detects a service that becomes slower or faster by comparing the results of polls with what was expected. Then
it discounts the past at once, in addition to the gradual decay. It polls a task of unknown age, one that was attached,
as the settings say, and learns nothing from it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field

from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.inspection import LifetimeDistribution, PollSchedule, optimal_schedule
from kontext_async.decisions.polling.progress_model import ProgressModel, predict_end
from kontext_async.decisions.polling.server_times import narrow
from kontext_async.decisions.polling.survival import MEMORY, SurvivalEstimator
from kontext_async.decisions.polling.timing import IntervalTiming

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from kontext_async.models import TaskStatus
    from kontext_async.settings import Polling

__all__ = ["AdaptiveTiming", "nearest_on_grid"]

MIN_ENDS = 8
"""The number of ends from which there is a schedule."""

MIN_ENDS_PER_KIND = 40
"""The number of ends from which a kind of request has its own schedule."""

MAX_KINDS = 16
"""The number of kinds that have their own model; further ones share the model of all tasks."""

REFRESH_DIVISOR = 4
"""The schedule is computed again after this fraction of the known ends (a quarter), and after `MIN_ENDS` at least."""

DRIFT_SIGMAS = 4.5
"""The standard deviations between the observed and the expected ends from which the past counts for less."""

DRIFT_DECAY = 0.99
"""The factor that each further poll applies to the comparison of observed and expected ends."""

RETAINED = 0.25
"""The part of the weight of the past that is retained after a drift."""

RECORDED_DELAY = 0.3
"""The share of a recorded duration that may be the delay of the poll that saw the end: an assumption on the safe side.
Learned schedules see an end within a tenth, and the fixed one within `Polling.interval`."""

GAP_JITTER = 0.05
"""The part of a gap that is random: tasks created together drift apart, and polls reach the inside of gaps."""

COARSEST = 1 / 8
"""The widest grid of due times, in seconds. Polls that go out together share a wake-up of the process, which costs
about as much CPU as half a request, because it finds cold caches (``python -m benchmarks --only poll_curve``)."""

EntryT = TypeVar("EntryT", bound=PollEntry)


@define
class KindModel:
    """The model of one kind of request: when its tasks end, and when to poll them.

    Attributes:
        survival: The estimator of the ages at which tasks end.
        progress_model: The record of how well progress predicts ends.
        distribution: The latest estimate; None while too few ends are known.
    """

    survival: SurvivalEstimator = field(factory=SurvivalEstimator, init=False)
    progress_model: ProgressModel = field(factory=ProgressModel, init=False)
    distribution: LifetimeDistribution | None = field(default=None, init=False)
    _schedules: dict[float, PollSchedule] = field(factory=dict, init=False)
    _refresh_at: int = field(default=MIN_ENDS, init=False)
    _surplus: float = field(default=0.0, init=False)
    _variance: float = field(default=0.0, init=False)

    def observe_poll(self, begin: float, age: float, predicted_end: float, *, ended: bool) -> None:
        """Compare the result of a poll with what the estimate and the prediction led to expect.

        Args:
            begin: The age at the poll before, which found the task unfinished.
            age: The age at this poll.
            predicted_end: The age at the end, as progress predicted it at the poll before; 0 without a prediction.
            ended: True if this poll found the task ended.
        """
        if self.distribution is None:
            return
        probability = self.distribution.end_probability(begin, age)
        if predicted_end > 0:
            self.progress_model.observe(predicted_end, begin, age, ended=ended, probability=probability)
        self._surplus = self._surplus * DRIFT_DECAY + ended - probability
        self._variance = self._variance * DRIFT_DECAY + probability * (1 - probability)

    def refresh(self) -> None:
        """Compute the schedule again if enough is new."""
        drifted = abs(self._surplus) > DRIFT_SIGMAS * math.sqrt(1 + self._variance)
        if drifted:
            self.survival.discount_past(RETAINED)
        if drifted or self.survival.ends_observed >= self._refresh_at:
            ends = self.survival.ends_observed
            self.distribution = self.survival.estimate()
            self._schedules.clear()
            self._refresh_at = ends + max(MIN_ENDS, int(min(ends, MEMORY) / REFRESH_DIVISOR))
            self._surplus = self._variance = 0.0

    def next_poll(self, age: float, poll_cost: float) -> float | None:
        """Return the age of the poll that follows one at `age` where a poll may cost so many seconds of delay.

        None while too few ends are known.
        """
        if self.distribution is None:
            return None
        schedule = self._schedules.get(poll_cost)
        if schedule is None:
            schedule = self._schedules[poll_cost] = optimal_schedule(self.distribution, poll_cost)
        return schedule.next_poll(age)


def _single_kind(task: PollEntry) -> Hashable:  # noqa: ARG001 # all are of one kind
    return ()


@define
class AdaptiveTiming(Generic[EntryT]):
    """A timing rule that polls when a task is likely to have ended since its last poll.

    Attributes:
        polling: The settings.
        kind_of: Returns the kind of a task's request: kinds may take different times. None for a task of unknown age.
    """

    polling: Polling
    kind_of: Callable[[EntryT], Hashable | None] = _single_kind
    urgency: float = field(default=1.0, init=False)
    _fallback: IntervalTiming = field(init=False)
    _overall: KindModel = field(init=False)
    _overall_only: tuple[KindModel] = field(init=False)
    _kind_numbers: dict[Hashable, int] = field(factory=dict, init=False)
    _kind_models: list[KindModel] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._fallback = IntervalTiming(self.polling)
        self._overall = KindModel()
        self._overall_only = (self._overall,)

    def learn(self, kind: Hashable, duration: float) -> None:
        """Learn from a task of an earlier session, whose end was seen `duration` seconds after its acceptance."""
        least = (1 - RECORDED_DELAY) * duration
        for model in self._models_of(self._kind_number(kind)):
            model.survival.observe_alive(0.0, least)
            model.survival.observe_end(least, duration)

    def first_poll(self, task: EntryT, now: float, random: float) -> float:
        """See `Timing.first_poll`."""
        task.kind = self._kind_number(self.kind_of(task))
        age = max(0.0, now - task.since)
        target = self._target(task, age)
        if target is None:
            return self._fallback.first_poll(task, now, random)
        return self._due_after(now, target - age, random)

    def next_poll(self, task: EntryT, progress: float | None, now: float, random: float) -> float:
        """See `Timing.next_poll`."""
        begin, polled_at = task.unfinished_at, task.due
        age = polled_at - task.since
        if polled_at > begin:
            task.unfinished_at = polled_at
            if task.kind is not None:
                self._observe_alive(task, begin - task.since, age)
        task.predicted_end = predict_end(age, progress)
        target = self._target(task, age)
        if target is None:
            return self._fallback.next_poll(task, progress, now, random)
        return max(self._due_after(polled_at, target - age, random), now + self.polling.min_interval)

    def replan(self, task: EntryT, now: float, random: float) -> float:
        """See `Timing.replan`."""
        age = max(0.0, task.unfinished_at - task.since)
        target = self._target(task, age)
        if target is None:
            return task.due
        return max(now, self._due_after(task.since + age, target - age, random))

    def _target(self, task: EntryT, age: float) -> float | None:
        """Return the age of the poll that follows one at `age`; None while the schedule is fixed."""
        model = self._refresh_model(task)
        if model is None:
            return None
        poll_cost = self.polling.poll_cost / self.urgency
        target = model.next_poll(age, poll_cost)
        if target is None:
            return None
        predicted = model.progress_model.next_poll(task.predicted_end, age, poll_cost)
        return target if predicted is None else predicted

    def _observe_alive(self, task: PollEntry, begin: float, age: float) -> None:
        for model in self._models_of(task.kind):
            model.survival.observe_alive(begin, age)
            model.observe_poll(begin, age, task.predicted_end, ended=False)

    def observe_end(self, task: EntryT, status: TaskStatus, now: float) -> None:  # noqa: ARG002 # Timing's
        """See `Timing.observe_end`."""
        begin, age = max(0.0, task.unfinished_at - task.since), max(0.0, task.due - task.since)
        if task.kind is None or age <= begin:
            return
        least, most = narrow(begin, age, status)
        for model in self._models_of(task.kind):
            model.survival.observe_alive(begin, least)
            model.survival.observe_end(least, most)
            model.observe_poll(begin, age, task.predicted_end, ended=True)

    def expected_delay(self, task: EntryT, now: float) -> float:
        """See `Timing.expected_delay`."""
        model = self._refresh_model(task)
        if model is None or model.distribution is None:
            return self._fallback.expected_delay(task, now)
        begin, age = max(0.0, task.unfinished_at - task.since), max(0.0, now - task.since)
        return model.distribution.expected_delay(begin, age)

    def _kind_number(self, kind: Hashable | None) -> int | None:
        """Return the number of a kind, and create the models of single kinds once there are two."""
        if kind is None:
            return None
        if len(self._kind_numbers) >= MAX_KINDS:
            return self._kind_numbers.get(kind, -1)
        number = self._kind_numbers.setdefault(kind, len(self._kind_numbers))
        if len(self._kind_numbers) > max(1, len(self._kind_models)):
            missing = len(self._kind_numbers) - len(self._kind_models)
            self._kind_models += [KindModel() for _ in range(missing)]
        return number

    def _models_of(self, number: int | None) -> tuple[KindModel, ...]:
        """Return the models that learn from a kind: the overall model alone while there is only one kind of request."""
        if not self._kind_models:
            return self._overall_only
        own = self._own_model(number)
        return self._overall_only if own is None else (self._overall, own)

    def _own_model(self, number: int | None) -> KindModel | None:
        return self._kind_models[number] if number is not None and 0 <= number < len(self._kind_models) else None

    def _refresh_model(self, task: PollEntry) -> KindModel | None:
        """Return the model for a task, brought up to date; None if its age is not known."""
        if task.kind is None:
            return None
        own = self._own_model(task.kind) if self._kind_models else None
        model = self._overall if own is None or own.survival.ends_observed < MIN_ENDS_PER_KIND else own
        model.refresh()
        return model

    def _due_after(self, begin: float, gap: float, random: float) -> float:
        """Return the end of a gap with jitter, within the bounds of the settings, at a point of a grid."""
        least, most = self.polling.min_interval, self.polling.max_interval
        gap = min(most, max(least, gap * (1 + GAP_JITTER * (2 * random - 1))))
        return min(begin + most, max(begin + least, nearest_on_grid(begin + gap, gap)))


def nearest_on_grid(due: float, gap: float) -> float:
    """Return the point nearest to `due` of a grid whose step is a power of two, and a quarter of the gap at most.

    It differs by an eighth of the gap at most, and not on average: the cost of a schedule is flat around its optimum.
    """
    _, exponent = math.frexp(gap)
    step = min(COARSEST, math.ldexp(1.0, exponent - 3))
    return round(due / step) * step

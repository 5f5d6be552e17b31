from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings, strategies as st

from kontext_async.decisions.polling.adaptive import ENOUGH, ENOUGH_APART, MOST_KINDS, AdaptiveTiming
from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.inspection import Curve, best_plan
from kontext_async.decisions.polling.progress_model import ProgressModel, predicted_end
from kontext_async.decisions.polling.queue import COMPARED, IntervalTiming, PollQueue, Timing
from kontext_async.decisions.polling.server_times import narrow, server_duration
from kontext_async.decisions.polling.survival import RETAINED, SurvivalEstimator
from kontext_async.models import TaskState, TaskStatus
from kontext_async.settings import Limits, Polling

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

RUNNING = TaskStatus(task_id="t", state=TaskState.IN_PROGRESS, raw_status="in_progress")
DONE = TaskStatus(task_id="t", state=TaskState.COMPLETED, raw_status="completed")

randoms = st.floats(0, 1)
ages = st.one_of(st.floats(0, 100), st.floats(-1e6, 1e12), st.sampled_from([0.0, 1e-300, 1e-9, 1e300]))


# --- a service with a virtual clock ------------------------------------------------------------------------------


@define(eq=False)
class Job(PollEntry):
    takes: float = 0.0
    asks: int = 0
    kind_name: Hashable | None = "one"


def lognormal(sigma: float, middle: float = 10.0) -> Callable[[Random], float]:
    return lambda random: middle * math.exp(random.gauss(0, sigma))


def bimodal(random: Random) -> float:
    return (55.0 if random.random() < 0.3 else 9.2) * math.exp(random.gauss(0, 0.15))


@define
class Service:
    """For each task that is seen finished, another begins; answers take no time."""

    timing: Timing[Any]
    draw: Callable[[Random], float]
    random: Random
    at_once: int = 24
    rate: float = 1e6
    status: Callable[[Job, float], TaskStatus] = lambda job, age: RUNNING
    now: float = 0.0
    queue: PollQueue[Job] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queue = PollQueue(Limits(polls_per_second=self.rate), self.timing)
        for _ in range(self.at_once):
            self.begin()

    def begin(self) -> None:
        self.queue.add(Job("t", self.now, takes=self.draw(self.random)), self.now, self.random.random())

    def run(self, finishes: int) -> list[tuple[int, float]]:
        """The asks and the delay of each of so many tasks."""
        looks: list[tuple[int, float]] = []
        while len(looks) < finishes:
            self.now = max(self.now, self.queue.wake_at())
            for job in self.queue.pop_all_due(self.now):
                self.queue.poll_done(job)
                job.asks += 1
                age = self.now - job.since
                finished = age >= job.takes
                status = DONE if finished else self.status(job, age)
                self.queue.status_received(job, status, self.now, self.random.random())
                if finished:
                    looks.append((job.asks, age - job.takes))
                    self.begin()
        return looks


def cost(looks: list[tuple[int, float]], worth: float) -> float:
    return mean(delay + worth * asks for asks, delay in looks)


def learned(draw: Callable[[Random], float], worth: float, seed: int = 1, **service: Any) -> Service:
    return Service(AdaptiveTiming(Polling(poll_cost=worth)), draw, Random(seed), **service)


def taught(*survival: float, **polling: Any) -> AdaptiveTiming[PollEntry]:
    """A timing that saw tasks end at these ages, give or take a tenth of a second."""
    timing: AdaptiveTiming[PollEntry] = AdaptiveTiming(Polling(**polling))
    for takes in survival:
        teach(timing, takes)
    return timing


def teach(timing: AdaptiveTiming[Any], takes: float, task: PollEntry | None = None, status: TaskStatus = DONE) -> None:
    task = task or PollEntry("t", 0.0)
    timing.first(task, 0.0, 0.5)
    task.due = takes - 0.1
    timing.again(task, None, takes - 0.1, 0.5)
    task.due = takes + 0.1
    timing.finished(task, status, takes + 0.1)


def first_ask(timing: AdaptiveTiming[Any], task: PollEntry | None = None) -> float:
    return timing.first(task or PollEntry("t", 0.0), 0.0, 0.5)


def around(middle: float, count: int) -> list[float]:
    return [middle * (0.9 + 0.2 * place / count) for place in range(count)]


# --- the best schedule for a known distribution ------------------------------------------------------------------


shares = st.lists(st.floats(0, 1), min_size=2, max_size=25).filter(lambda some: sum(some) > 0.1)


@given(shares, st.floats(1e-3, 10))
def test_no_schedule_on_the_grid_is_better(some: list[float], worth: float) -> None:
    grid = [place**1.3 for place in range(len(some) + 1)]
    curve = Curve.of_shares(grid, [share / sum(some) * 0.98 for share in some])
    last = len(grid) - 1
    beyond = (1 - curve.ended[last]) * (math.sqrt(2 * worth * grid[last]) + worth)
    least, planned = [0.0] * last + [beyond], [0.0] * last + [beyond]
    plan = best_plan(curve, worth)
    for a in range(last - 1, -1, -1):

        def costs(b: int, then: list[float], a: int = a) -> float:
            alive = 1 - curve.ended[a]
            return alive * (worth + curve.expected_delay(grid[a], grid[b])) + then[b]

        least[a] = min(costs(b, least) for b in range(a + 1, last + 1))
        planned[a] = costs(grid.index(plan.following[a]), planned)
    assert planned[0] == pytest.approx(least[0], rel=1e-6, abs=1e-6)


def test_where_the_rate_hardly_changes_gaps_follow_the_rule_of_theory() -> None:
    rate, worth = 0.05, 0.2
    grid = [place / 20 for place in range(2000)]
    by = [1 - math.exp(-rate * age) for age in grid]
    plan = best_plan(Curve.of_shares(grid, [b - a for a, b in pairwise(by)]), worth)
    for age in (0.0, 10.0, 40.0):
        assert plan.after(age) - age == pytest.approx(math.sqrt(2 * worth / rate), rel=0.05)


@given(shares, st.floats(0, 1e6), st.floats(0, 1e6))
def test_chances_and_delays_are_what_they_say(some: list[float], begin: float, lasting: float) -> None:
    curve = Curve.of_shares(range(len(some) + 1), [share / sum(some) for share in some])
    assert 0 <= curve.chance(begin, begin + lasting) <= 1
    assert 0 <= curve.expected_delay(begin, begin + lasting) <= lasting * (1 + 1e-6) + 1e-6
    assert curve.expected_delay(begin, begin) == 0


# --- how long tasks take -----------------------------------------------------------------------------------------


def share_by(survival: SurvivalEstimator, age: float) -> float:
    return survival.curve().by(age)[0]


@pytest.mark.parametrize("gap", [1.0, 4.0])
def test_what_is_known_to_lie_between_asks_is_found_all_the_same(gap: float) -> None:
    random, survival = Random(2), SurvivalEstimator()
    for _ in range(600):
        takes, age = random.gauss(20, 4), 0.0
        while (following := age + gap * random.uniform(0.7, 1.3)) < takes:
            survival.observe_alive(age, following)
            age = following
        survival.observe_end(age, following)
    for age in (14, 17, 20, 23, 26):
        truth = 0.5 * math.erfc(-(age - 20) / 4 / math.sqrt(2))
        assert share_by(survival, age) == pytest.approx(truth, abs=0.06)


def test_running_tasks_count_at_once() -> None:
    survival = SurvivalEstimator()
    for takes in around(10, 50):
        survival.observe_alive(0, takes - 0.5)
        survival.observe_end(takes - 0.5, takes + 0.5)
    assert share_by(survival, 12) > 0.9
    for _ in range(200):
        survival.observe_alive(0, 30)
    assert share_by(survival, 12) < 0.4


def test_what_is_old_counts_less() -> None:
    survival = SurvivalEstimator()

    def see(*lasting: float) -> None:
        for takes in lasting:
            survival.observe_alive(0, takes - 0.5)
            survival.observe_end(takes - 0.5, takes + 0.5)

    see(*around(10, 400), *around(30, 400))
    assert share_by(survival, 20) == pytest.approx(0.2, abs=0.07)
    survival.forget(0.1)
    see(*around(5, 100))
    assert share_by(survival, 7) > 0.6


def test_weights_stay_within_bounds() -> None:
    survival = SurvivalEstimator()
    for takes in around(10, 9000):
        survival.observe_alive(0, takes - 0.5)
        survival.observe_end(takes - 0.5, takes + 0.5)
    assert share_by(survival, 12) > 0.9
    assert len(survival._ends) <= RETAINED * 1.25
    assert survival._weight == 1.0


def test_what_was_forgotten_again_and_again_leaves_a_distribution() -> None:
    survival = SurvivalEstimator()
    survival.observe_end(9, 10)
    for _ in range(600):
        survival.forget(0.25)
        survival.observe_alive(0, 20)
        assert 0 <= share_by(survival, 15) < 1


@given(st.lists(st.tuples(ages, ages, st.booleans()), max_size=40), ages)
def test_any_ages_make_a_distribution(seen: list[tuple[float, float, bool]], age: float) -> None:
    survival = SurvivalEstimator()
    survival.observe_end(1, 2)
    for begin, end, finished in seen:
        (survival.observe_end if finished else survival.observe_alive)(begin, end)
    curve = survival.curve()
    assert all(0 <= a <= b <= 1 + 1e-9 for a, b in pairwise(curve.ended))
    assert all(0 <= a < b for a, b in pairwise(curve.ages))
    plan = best_plan(curve, 0.1)
    assert math.isfinite(plan.after(abs(age)))
    assert plan.after(abs(age)) >= abs(age)


# --- when to ask -------------------------------------------------------------------------------------------------


pollings = st.builds(
    lambda low, factor, worth: Polling(min_interval=low, max_interval=low * factor, poll_cost=worth),
    st.floats(0.005, 5),
    st.floats(1, 100),
    st.floats(1e-3, 100),
)


@given(pollings, randoms, st.integers(0, 7))
def test_until_something_is_known_the_interval_holds(polling: Polling, random: float, seen: int) -> None:
    timing, fixed = AdaptiveTiming[PollEntry](polling), IntervalTiming(polling)
    for takes in around(10, 7)[:seen]:
        teach(timing, takes)
    task = PollEntry("t", 3.0)
    assert timing.first(task, 3.5, random) == fixed.first(task, 3.5, random)
    task.due = task.due = 7.0
    assert timing.again(task, None, 7.2, random) == fixed.again(task, None, 7.2, random)
    assert timing.expected_delay(task, 9.0) == fixed.expected_delay(task, 9.0) == 2.0


@settings(max_examples=50)
@given(pollings, st.lists(st.tuples(ages, ages, st.booleans(), st.floats(0, 1)), max_size=30), ages, ages, randoms)
def test_gaps_stay_within_their_bounds(
    polling: Polling, history: list[tuple[float, float, bool, float]], since: float, asked: float, random: float
) -> None:
    timing = AdaptiveTiming[PollEntry](polling)
    for takes in around(10, ENOUGH):
        teach(timing, takes)
    for accepted, at, finished, progress in history:
        task = PollEntry("t", accepted)
        timing.first(task, accepted, random)
        task.due = at
        if finished:
            timing.finished(task, DONE, at)
        else:
            timing.again(task, progress, at, random)
    for task in (PollEntry("t", since), PollEntry("t", asked)):
        small = 1e-9 + 1e-12 * abs(asked)
        due = timing.first(task, asked, random)
        assert asked <= due <= asked + polling.max_interval + small
        task.due = asked
        due = timing.again(task, None, asked, random)
        assert asked + polling.min_interval - small <= due <= asked + polling.max_interval + small
        assert timing.expected_delay(task, asked + 1) >= 0


def test_the_same_chance_gives_the_same_asks() -> None:
    runs = [learned(bimodal, 0.2, seed=5).run(150) for _ in range(2)]
    assert runs[0] == runs[1]


def test_tasks_that_all_take_the_same_are_asked_about_then() -> None:
    assert 9.5 < first_ask(taught(*[10.0] * 50)) < 10.8


def test_gaps_past_everything_that_was_seen_grow_slowly() -> None:
    timing = taught(*around(10, 60), poll_cost=0.1)
    task = PollEntry("t", 0.0)
    timing.first(task, 0.0, 0.5)
    for age in (40.0, 60.0, 90.0):
        task.unfinished_at = task.due = age
        assert timing.again(task, None, age, 0.5) - age < 1.1 * math.sqrt(2 * 0.1 * age)


def test_a_late_answer_is_not_followed_by_a_hurried_ask() -> None:
    timing = taught(*around(10, 50))
    task = PollEntry("t", 0.0)
    timing.first(task, 0.0, 0.5)
    task.due = 10.0
    assert timing.again(task, None, 13.0, 0.5) == pytest.approx(13.25)


# --- kinds of request --------------------------------------------------------------------------------------------


def by_name() -> AdaptiveTiming[Job]:
    return AdaptiveTiming(Polling(), lambda job: job.kind_name)


def job(kind: Hashable | None, since: float = 0.0) -> Job:
    return Job("t", since, kind_name=kind)


def test_kinds_share_what_is_known_until_each_has_enough() -> None:
    timing = by_name()
    for takes in around(10, ENOUGH_APART):
        teach(timing, takes, job("text"))
    together = first_ask(timing, job("image"))
    assert 8 < together < 11
    for takes in around(30, ENOUGH_APART):
        teach(timing, takes, job("image"))
    assert 10 < first_ask(timing, job("image")) <= 15  # max_interval
    for takes in around(10, ENOUGH_APART):
        teach(timing, takes, job("text"))
    assert 8 < first_ask(timing, job("text")) < 10
    task = job("image")
    timing.first(task, 0.0, 0.5)
    task.due = 15.0
    assert timing.again(task, None, 15.0, 0.5) > 25


def test_there_is_no_end_of_kinds() -> None:
    timing = by_name()
    for number in range(3 * MOST_KINDS):
        teach(timing, 10.0, job(number))
    assert len(timing._apart) == MOST_KINDS
    assert 9 < first_ask(timing, job("another")) < 11


def test_attached_tasks_are_asked_about_at_the_interval_and_teach_nothing() -> None:
    timing = by_name()
    for takes in around(10, 50):
        teach(timing, takes, job("text"))
    before = first_ask(timing, job("text"))
    for _ in range(100):
        teach(timing, 1.0, job(None))
    assert first_ask(timing, job("text")) == before
    assert first_ask(timing, job(None)) == 1.0
    task = job(None)
    timing.first(task, 0.0, 0.5)
    assert timing.again(task, None, 50.0, 0.5) == 51.0


# --- progress ----------------------------------------------------------------------------------------------------


def with_progress(noise: float, seed: int = 1) -> tuple[float, float]:
    random = Random(seed)

    def status(job: Job, age: float) -> TaskStatus:
        return evolve(RUNNING, progress=min(1.0, age / job.takes * (1 + noise * random.uniform(-1, 1))))

    service = learned(lognormal(0.5), 0.25, status=status)
    service.run(150)
    looks = service.run(300)
    return mean(delay for _, delay in looks), mean(asks for asks, _ in looks)


def test_progress_that_is_linear_saves_requests_and_delay() -> None:
    delay, asks = with_progress(0.0)
    assert delay < 0.7
    assert asks < 2.5


def test_progress_that_says_nothing_does_no_harm() -> None:
    random = Random(3)
    service = learned(
        lognormal(0.5), 0.25, status=lambda _, __: evolve(RUNNING, progress=random.choice([None, random.random()]))
    )
    service.run(200)
    plain = learned(lognormal(0.5), 0.25)
    plain.run(200)
    assert cost(service.run(600), 0.25) < 1.1 * cost(plain.run(600), 0.25)


@pytest.mark.parametrize("progress", [None, 0.0, 0.04, 1.0, 1.5, -1.0, math.nan])
def test_a_progress_without_meaning_foretells_nothing(progress: float | None) -> None:
    assert predicted_end(10.0, progress) == 0.0
    assert ProgressModel().next_ask(predicted_end(10.0, progress), 10.0, 0.1) is None


def test_progress_is_used_once_it_is_proved_and_no_longer_than_that() -> None:
    record = ProgressModel()
    assert record.next_ask(10.0, 5.0, 0.1) is None
    for _ in range(10):
        record.seen(10.0, 5.0, 9.0, finished=False, chance=0.5)
        record.seen(10.0, 9.0, 10.5, finished=True, chance=0.3)
    due = record.next_ask(10.0, 5.0, 0.1)
    assert due is not None
    assert 9 < due < 11
    for _ in range(20):
        record.seen(10.0, 5.0, 20.0, finished=False, chance=0.3)
    assert record.next_ask(10.0, 5.0, 0.1) is None


# --- the gateway's own times -------------------------------------------------------------------------------------

CREATED = datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC)


def completed(at: Any, created: datetime | None = CREATED) -> TaskStatus:
    return evolve(DONE, created_at=created, metadata={"completed_at": at})


def test_times_in_seconds_are_cut_off_and_those_in_milliseconds_are_not() -> None:
    begin = CREATED.timestamp()
    assert server_duration(completed(int(begin) + 9)) == (8, 10)
    assert server_duration(completed((int(begin) + 9) * 1000 + 500)) == pytest.approx((8.5, 9.501))
    precise = CREATED + timedelta(milliseconds=250)
    assert server_duration(completed((int(begin) + 9) * 1000, precise)) == pytest.approx((8.749, 8.751))


@pytest.mark.parametrize(
    "at",
    [None, "9", True, math.nan, math.inf, -5, 0, 10**400, 1e300, [], CREATED.timestamp() - 100],
    ids=str,
)
def test_absurd_times_are_passed_over(at: Any) -> None:
    assert narrow(3.0, 9.0, completed(at)) == (3.0, 9.0)


def test_without_a_beginning_there_is_no_duration() -> None:
    assert narrow(3.0, 9.0, completed(CREATED.timestamp() + 5, None)) == (3.0, 9.0)


def test_what_was_seen_here_counts_where_the_gateway_contradicts_it() -> None:
    assert narrow(3.0, 9.0, completed(CREATED.timestamp() + 5)) == (3.75, 6.0)
    assert narrow(3.0, 9.0, completed(CREATED.timestamp() + 60)) == (3.0, 9.0)
    assert narrow(3.0, 9.0, completed(CREATED.timestamp() + 1)) == (3.0, 9.0)


def test_the_gateways_times_tell_what_a_long_gap_hides() -> None:
    timing = taught()
    for _ in range(60):
        task = PollEntry("t", 0.0)
        timing.first(task, 0.0, 0.5)
        task.due = 14.0
        timing.finished(task, completed(CREATED.timestamp() + 6.5, CREATED + timedelta(microseconds=1)), 14.0)
    assert 6 < first_ask(timing) < 7.5


# --- more due than may be asked about ----------------------------------------------------------------------------


def test_under_the_cap_the_largest_expected_delay_comes_first() -> None:
    timing = taught(*around(10, 60))
    plan: PollQueue[PollEntry] = PollQueue(Limits(polls_per_second=1), timing)
    likely, unlikely, young = PollEntry("likely", 0.0), PollEntry("unlikely", 6.0), PollEntry("young", 8.0)
    for task in (young, unlikely, likely):
        plan.add(task, task.since, 0.5)
        plan._later.put(task, 10.0 + len(task.task_id) / 1000)
    assert [plan.pop_all_due(12.0 + second)[0].task_id for second in range(2)] == ["likely", "unlikely"]


def test_with_many_more_due_than_allowed_everybody_has_a_turn() -> None:
    plan: PollQueue[PollEntry] = PollQueue(Limits(polls_per_second=1000), IntervalTiming(Polling()))
    tasks = [PollEntry(str(number), 0.0) for number in range(10 * COMPARED)]
    for task in tasks:
        plan.add(task, 0.0, 0.5)
    now, asked = 2.0, set[str]()
    while len(asked) < len(tasks):
        now = max(now, plan.wake_at())
        for task in plan.pop_all_due(now):
            plan.poll_done(task)
            plan.remove(task)
            asked.add(task.task_id)
    assert now < 3
    assert plan.wake_at() == math.inf


def test_a_hurried_task_goes_before_all_that_wait() -> None:
    plan: PollQueue[PollEntry] = PollQueue(Limits(polls_per_second=1), IntervalTiming(Polling()))
    tasks = [PollEntry(str(number), 0.0) for number in range(50)]
    for task in tasks:
        plan.add(task, 0.0, 0.5)
    plan.pop_all_due(5.0)
    plan.expedite(tasks[40], 5.0)
    assert plan.pop_all_due(6.0) == [tasks[40]]


def test_under_the_cap_delays_are_shorter_than_in_turn() -> None:
    delays = []
    for timing in (AdaptiveTiming[Job](Polling()), IntervalTiming(Polling(initial_delay=0.25, interval=0.25))):
        service = Service(timing, lognormal(0.5), Random(1), at_once=400, rate=100)
        service.run(700)
        delays.append(mean(delay for _, delay in service.run(1000)))
    assert delays[0] <= 0.8 * delays[1]


# --- against the optimum, and a service that changes -------------------------------------------------------------

AT_A_TENTH = {"lognormal 0.25": (0.493, 2.43, 5.66), "lognormal 0.5": (0.253, 4.34, 6.2), "bimodal": (0.266, 4.4, 11.9)}
"""What a request is worth at a mean delay of a tenth of the median; the optimum's requests; a fixed interval's."""


@pytest.mark.parametrize(
    ("name", "to_optimum", "to_fixed"),
    [
        ("lognormal 0.25", 1.12, 0.6),
        ("lognormal 0.5", 1.12, 0.8),
        ("bimodal", 1.3, 0.6),
    ],
)
def test_the_learned_rule_is_close_to_the_optimum(name: str, to_optimum: float, to_fixed: float) -> None:
    draw = {"lognormal 0.25": lognormal(0.25), "lognormal 0.5": lognormal(0.5), "bimodal": bimodal}[name]
    worth, optimum, fixed = AT_A_TENTH[name]
    costs = []
    for seed in range(3):
        service = learned(draw, worth, seed)
        service.run(300)
        costs.append(cost(service.run(700), worth))
    # where both are on the frontier, a part of the cost too much is that part of the requests too many, and more
    requests = (median(costs) - 1.0) / worth
    assert requests <= to_optimum * optimum
    assert requests <= to_fixed * fixed


@pytest.mark.parametrize("draw", [lognormal(0.25), lognormal(1.0), bimodal])
def test_nothing_is_lost_while_it_learns(draw: Callable[[Random], float]) -> None:
    fixed = Service(IntervalTiming(Polling()), draw, Random(4)).run(100)
    assert cost(learned(draw, 0.3, 4).run(100), 0.3) <= 1.02 * cost(fixed, 0.3)


def test_two_humps_do_not_lead_into_long_gaps() -> None:
    service = learned(bimodal, 0.3, 2)
    service.run(300)
    delays = sorted(delay for _, delay in service.run(500))
    assert delays[int(0.95 * len(delays))] < 5
    assert mean(delays) < 1.5


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_service_that_becomes_slower_or_faster_is_followed(factor: float) -> None:
    speed = 1.0
    service = learned(lambda random: speed * lognormal(0.5)(random), 0.3)
    service.run(400)
    speed = factor
    service.run(150)
    settled = learned(lambda random: factor * lognormal(0.5)(random), 0.3)
    settled.run(400)
    assert cost(service.run(250), 0.3) < 1.25 * cost(settled.run(400), 0.3)


def test_a_front_of_tasks_older_than_any_seen_slows_the_asks_at_once() -> None:
    takes = 10.0
    service = learned(lambda _: takes, 0.3)
    service.run(200)
    takes = 1e9
    service.run(24)
    asks: list[float] = []
    for _ in range(400):
        service.now = max(service.now, service.queue.wake_at())
        for each in service.queue.pop_all_due(service.now):
            asks.append(service.now)
            service.queue.poll_done(each)
            service.queue.status_received(each, RUNNING, service.now, service.random.random())
    assert (asks[-1] - asks[-101]) / 100 > 0.1

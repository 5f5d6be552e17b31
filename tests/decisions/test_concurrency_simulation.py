"""The limit in simulation: one session on an account of any kind, and up to 16 that share one."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.suite.pacing_simulation import Account, Plan, SimulatedSession, Simulation, constant, lognormal

if TYPE_CHECKING:
    from collections.abc import Sequence

EIGHT_SECONDS = lognormal(8.0, 0.5)
SLOTS = 24
ENDLESS = Plan(jobs=float("inf"), ceiling=100)


def check(session: SimulatedSession) -> None:
    limit = session.rule
    assert 1 <= limit.limit <= limit.ceiling
    assert 0 <= limit.accepted_in_flight <= limit.in_flight


class TestOneSession:
    """Tasks take 8 s on average, and their ends are detected up to 1 s later: 0.93 is the best utilization."""

    @staticmethod
    def simulate(ceiling: int, jobs: int, *, ceilings: Any = (), seed: int = 7, **account: Any) -> Simulation:
        given = {"round_trip": (0.05, 0.3), "detection": (0.0, 1.0), **account}
        plan = Plan(jobs=jobs, ceiling=ceiling, ceilings=ceilings)
        run = Simulation(Account(service_time=EIGHT_SECONDS, **given), [plan], seed=seed, on_event=check).run()
        (session,) = run.sessions
        assert session.rule.in_flight == 0, "a slot was not released"
        assert not session.waiting, "a request was not submitted"
        assert not session.returning
        return run

    @staticmethod
    def utilization(run: Simulation, of: float) -> float:
        (session,) = run.sessions
        return session.busy / session.saturated / of

    @pytest.mark.parametrize("retry_after", [None, 1.0])
    @pytest.mark.parametrize(
        ("slots", "ceiling", "jobs", "utilization", "throttled"),
        [
            (1, 24, 60, 0.85, 45),
            (2, 24, 120, 0.75, 50),
            (5, 24, 300, 0.80, 45),
            (24, 24, 500, 0.88, 0),
            (24, 500, 1000, 0.82, 50),
            (100, 1000, 3000, 0.85, 350),
            (500, 1000, 5000, 0.84, 400),
        ],
    )
    def test_it_finds_the_slots_below_a_high_ceiling(  # a table
        self, slots: int, ceiling: int, jobs: int, utilization: float, throttled: int, retry_after: float | None
    ) -> None:
        run = self.simulate(ceiling, jobs, slots=slots, retry_after=retry_after)
        assert self.utilization(run, slots) >= utilization
        assert run.sessions[0].throttled <= throttled

    def test_the_limit_falls_with_the_slots(self) -> None:
        run = self.simulate(1000, 2500, slots=100, later=(60.0, 30.0))
        assert self.utilization(run, 30) >= 0.85
        assert run.sessions[0].rule.limit < 40

    def test_the_limit_rises_with_the_slots(self) -> None:
        run = self.simulate(1000, 2500, slots=30, later=(60.0, 100.0))
        assert run.sessions[0].saturated < 2500 * 8 / 100 * 1.7

    @pytest.mark.parametrize("round_trip", [(0.02, 0.05), (0.05, 0.3), (0.5, 3.0)])
    @pytest.mark.parametrize("retry_after", [None, 1.0])
    def test_random_throttling_leaves_most_of_hundreds_of_slots(
        self, round_trip: tuple[float, float], retry_after: float | None
    ) -> None:
        run = self.simulate(300, 5000, throttled_share=0.05, round_trip=round_trip, retry_after=retry_after)
        assert self.utilization(run, 300) >= 0.6
        assert run.throttled_percent < 7

    def test_random_throttling_beside_a_full_account_does_no_harm(self) -> None:
        assert self.utilization(self.simulate(1000, 3000, slots=100, throttled_share=0.05), 100) >= 0.75

    def test_a_rate_limit_on_create_requests_leaves_a_good_part_of_the_rate(self) -> None:
        run = self.simulate(100, 800, creates_per_second=5.0, retry_after=1.0)
        assert self.utilization(run, 5 * 8) >= 0.55

    def test_a_ceiling_below_the_slots_is_no_reason_to_forget_what_was_found(self) -> None:
        changes = ((30.0, 1000), (90.0, 20), (120.0, 1000))
        runs = [self.simulate(24, 2500, slots=100, ceilings=changes, seed=seed) for seed in range(5)]
        steady = [self.simulate(1000, 2500, slots=100, seed=seed) for seed in range(5)]
        throttled, expected = (median(run.sessions[0].throttled for run in some) for some in (runs, steady))
        assert throttled <= 1.2 * expected + 30, "the second rise starts from what the first one found"

    def test_a_ceiling_that_moves_below_the_slots_is_filled_at_once_and_throttles_nothing(self) -> None:
        run = self.simulate(20, 1500, slots=100, ceilings=((30.0, 90), (60.0, 40), (90.0, 90)))
        assert run.sessions[0].throttled == 0
        assert run.sessions[0].saturated < 190, "90 s under 20, 90 and 40, and the other 980 tasks of 8.5 s under 90"

    def test_tasks_of_a_minute_find_new_slots_within_minutes(self) -> None:
        account = Account(service_time=constant(60.0), slots=SLOTS, later=(600.0, 100.0))
        run = Simulation(account, [ENDLESS], until=900.0, window=(840.0, 900.0)).run()
        assert run.sessions[0].slot_seconds / 60 >= 80

    def test_a_full_account_gets_few_requests(self) -> None:
        account = Account(service_time=constant(600.0), slots=SLOTS, old_tasks=SLOTS)
        run = Simulation(account, [ENDLESS], until=590.0, window=(10.0, 590.0)).run()
        assert 580 / 2.2 <= run.sessions[0].sent <= 580, "one each second or two"
        assert run.sessions[0].throttled >= run.sessions[0].sent - 1


@pytest.mark.parametrize("retry_after", [None, 1.0])
class TestSharedAccount:
    """The account has 24 slots, and no session knows of the others."""

    @staticmethod
    def simulate(
        plans: Sequence[Plan],
        seconds: float,
        retry_after: float | None,
        *,
        seeds: int = 5,
        sigma: float = 0.0,
        **given: Any,
    ) -> list[Simulation]:
        times = lognormal(seconds, sigma) if sigma else constant(seconds)
        options = {"detection": (0.01, 0.01 + seconds / 8), "old_tasks": given.pop("old_tasks", 0)}
        account = Account(service_time=times, slots=SLOTS, retry_after=retry_after, **options)
        create = partial(Simulation, account, plans, on_event=check, **given)
        return [create(seed=seed).run() for seed in range(seeds)]

    @pytest.mark.parametrize(
        ("sessions", "tasks", "seconds", "old_tasks", "ideal"),
        [(2, 30, 1.0, 0, 3.0), (2, 30, 8.0, 0, 24.0), (1, 48, 8.0, 24, 24.0), (4, 60, 1.0, 0, 10.0)],
    )
    def test_batches_end_soon(  # a table
        self, sessions: int, tasks: int, seconds: float, old_tasks: int, ideal: float, retry_after: float | None
    ) -> None:
        runs = self.simulate([Plan(jobs=tasks)] * sessions, seconds, retry_after, seeds=20, old_tasks=old_tasks)
        assert median(run.ended for run in runs) / ideal <= 1.35

    @pytest.mark.parametrize("sigma", [0.0, 0.3])
    @pytest.mark.parametrize(("sessions", "throttled"), [(1, 3), (2, 4), (4, 6), (8, 20), (16, 40)])
    def test_few_requests_are_throttled_in_the_steady_state(
        self, sessions: int, throttled: float, sigma: float, retry_after: float | None
    ) -> None:
        runs = self.simulate([ENDLESS] * sessions, 1.0, retry_after, sigma=sigma, until=120.0, window=(60.0, 120.0))
        assert median(run.throttled_percent for run in runs) <= throttled * (1.0 if retry_after is None else 1.5)
        for run in runs:
            assert sum(session.slot_seconds for session in run.sessions) / 60 / SLOTS >= 0.7
            assert all(session.slot_seconds > 0 for session in run.sessions), "no session starves"

    @pytest.mark.parametrize(("seconds", "until"), [(1.0, 120.0), (8.0, 480.0)])
    @pytest.mark.parametrize("sigma", [0.0, 0.3])
    def test_sessions_that_come_later_get_their_share(
        self, seconds: float, until: float, sigma: float, retry_after: float | None
    ) -> None:
        late = Plan(jobs=float("inf"), start=5 * seconds, ceiling=100)
        options: dict[str, Any] = {"until": until, "window": (until / 2, until)}
        runs = self.simulate([ENDLESS, late, late, late], seconds, retry_after, seeds=15, sigma=sigma, **options)
        assert median(run.fairness for run in runs) >= (0.9 if retry_after is None else 0.85)

    def test_a_session_finds_the_slots_that_another_one_leaves(self, retry_after: float | None) -> None:
        plans = [Plan(jobs=120), Plan(jobs=float("inf"), ceiling=100)]
        for run in self.simulate(plans, 1.0, retry_after, until=40.0, window=(30.0, 40.0)):
            assert run.sessions[1].slot_seconds / 10 >= 0.65 * SLOTS

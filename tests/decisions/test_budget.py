"""The budget by itself: no loop, no clock, no database."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kontext_async import KontextRequest
from kontext_async.decisions.budget import Budget, PriceKind, Refusal, Reservation, price_kind

if TYPE_CHECKING:
    from collections.abc import Callable

PRO = ("flux_kontext_pro", 0)
MAX = ("flux_kontext_max", 0)
CENTS = Decimal("0.04")


def budget_of(limit: str | None, **prices: Decimal) -> Budget:
    kinds = {"pro": PRO, "max": MAX}
    return Budget(
        limit=None if limit is None else Decimal(limit), prices={kinds[name]: each for name, each in prices.items()}
    )


def reserve(budget: Budget, kind: PriceKind = PRO) -> Reservation:
    reservation = budget.reserve(kind)
    assert isinstance(reservation, Reservation), reservation
    return reservation


def test_the_model_and_the_number_of_images_set_the_price() -> None:
    request = KontextRequest("a fox", model="flux_kontext_max", input_images=["https://host/a.png"])
    assert price_kind(request) == ("flux_kontext_max", 1)


def test_a_budget_without_a_limit_grants_everything_and_counts_it() -> None:
    budget = budget_of(None)
    first, second = reserve(budget), reserve(budget, MAX)
    assert (first.amount, second.amount) == (None, None)
    first.settle(Decimal(1000))
    assert budget.committed == 1000
    assert reserve(budget).amount == 1000


def test_requests_in_flight_count_with_their_price() -> None:
    budget = budget_of("0.10", pro=CENTS)
    first, second = reserve(budget), reserve(budget)
    assert (first.amount, budget.committed, budget.spent) == (CENTS, Decimal("0.08"), Decimal(0))
    assert budget.reserve(PRO) is Refusal.WAIT
    first.settle(Decimal("0.01"))
    third = reserve(budget)
    third.settle(CENTS)
    second.release()
    assert budget.committed == budget.spent == Decimal("0.05")


def test_an_uncertain_request_counts_for_good() -> None:
    budget = budget_of("0.10", pro=CENTS)
    reserve(budget).leave_uncertain()
    assert (budget.committed, budget.spent) == (CENTS, Decimal(0))
    reserve(budget).settle(CENTS)
    assert budget.reserve(PRO) is Refusal.EXHAUSTED


def test_an_amount_that_fits_exactly_is_granted() -> None:
    budget = budget_of("0.12", pro=CENTS)
    assert [reserve(budget).amount for _ in range(3)] == [CENTS] * 3
    assert budget.reserve(PRO) is Refusal.WAIT


def test_a_cheaper_kind_may_still_fit_where_a_dearer_one_does_not() -> None:
    budget = budget_of("0.10", pro=CENTS, max=Decimal("0.08"))
    reserve(budget)
    assert budget.reserve(MAX) is Refusal.WAIT
    assert reserve(budget).amount == CENTS


def test_an_unknown_price_is_learned_from_a_single_request() -> None:
    budget = budget_of("1")
    first = reserve(budget)
    assert first.amount is None
    assert budget.reserve(PRO) is Refusal.WAIT
    first.settle(CENTS)
    assert reserve(budget).amount == CENTS
    assert reserve(budget).amount == CENTS


def test_nothing_else_is_granted_while_a_price_is_being_learned() -> None:
    budget = budget_of("0.10", max=Decimal("0.08"))
    learning = reserve(budget)
    assert budget.reserve(MAX) is Refusal.WAIT
    learning.settle(CENTS)
    assert budget.reserve(MAX) is Refusal.EXHAUSTED
    assert reserve(budget).amount == CENTS


def test_a_price_that_nobody_learns_any_more_keeps_nobody_waiting() -> None:
    budget = budget_of("1", max=Decimal("0.08"))
    reserve(budget).release()
    assert [reserve(budget, MAX).amount for _ in range(2)] == [Decimal("0.08")] * 2


def test_an_unknown_price_waits_for_requests_of_other_kinds() -> None:
    budget = budget_of("1", max=Decimal("0.08"))
    other = reserve(budget, MAX)
    assert budget.reserve(PRO) is Refusal.WAIT
    other.release()
    assert reserve(budget).amount is None


def test_a_request_of_an_unknown_price_needs_something_left_of_the_limit() -> None:
    budget = budget_of("0.08", max=Decimal("0.08"))
    reserve(budget, MAX).settle(Decimal("0.08"))
    assert budget.reserve(PRO) is Refusal.EXHAUSTED


def test_an_estimate_that_comes_while_a_price_is_being_learned_lets_others_go() -> None:
    budget = budget_of("1")
    reserve(budget)
    budget.record_price(PRO, CENTS)
    assert reserve(budget).amount == CENTS
    assert budget.committed == 2 * CENTS


def test_the_highest_price_of_a_kind_counts() -> None:
    budget = budget_of("1", pro=CENTS)
    first, second = reserve(budget), reserve(budget)
    first.settle(Decimal("0.30"))
    assert budget.committed == Decimal("0.60"), "the second may cost as much"
    second.settle(CENTS)
    assert reserve(budget).amount == Decimal("0.30")


@pytest.mark.parametrize("cost", [None, Decimal(-1), Decimal("NaN"), Decimal("Infinity"), Decimal("1E+40")])
def test_a_price_that_is_never_reported_ends_submitting(cost: Decimal | None) -> None:
    budget = budget_of("1")
    reserve(budget).settle(cost)
    assert budget.reserve(PRO) is Refusal.UNKNOWN
    assert budget.unpriced == {PRO: 1}


def test_an_unreported_price_is_waited_for_while_a_request_of_its_kind_may_report_it() -> None:
    budget = budget_of("1")
    budget.unpriced[PRO] = 2
    first, second = budget.resume(PRO), budget.resume(PRO)
    first.settle(None)
    assert budget.reserve(PRO) is Refusal.WAIT
    second.settle(CENTS)
    assert reserve(budget).amount == CENTS
    assert budget.committed == 3 * CENTS


def test_an_unreported_cost_counts_with_the_estimated_price() -> None:
    budget = budget_of("0.10", pro=CENTS)
    reserve(budget).settle(None)
    assert budget.committed == CENTS
    assert reserve(budget).amount == CENTS


@pytest.mark.parametrize("price", [None, Decimal(-1), Decimal("NaN"), Decimal("sNaN"), Decimal("1E+40")])
def test_a_price_that_makes_no_sense_is_not_known(price: Decimal | None) -> None:
    budget = budget_of("1")
    budget.record_price(PRO, price)
    assert budget.prices == {}


def test_another_currency_makes_the_limit_useless() -> None:
    budget = budget_of("1", pro=CENTS)
    budget.record_currency("usd")
    reserve(budget)
    budget.record_currency("EUR")
    budget.record_currency("JPY")
    assert budget.foreign_currency == "EUR"
    assert budget.reserve(PRO) is Refusal.UNKNOWN


def test_another_currency_does_not_matter_without_a_limit() -> None:
    budget = budget_of(None)
    budget.record_currency("EUR")
    assert reserve(budget).is_open


ENDS: dict[str, Callable[[Reservation], None]] = {
    "settle": lambda reservation: reservation.settle(CENTS),
    "release": lambda reservation: reservation.release(),
    "leave_uncertain": lambda reservation: reservation.leave_uncertain(),
}


@pytest.mark.parametrize("second", ["settle", "leave_uncertain"])
@pytest.mark.parametrize("first", ENDS)
def test_a_second_end_is_an_error_and_counts_nothing(first: str, second: str) -> None:
    budget = budget_of("1", pro=CENTS)
    reservation = reserve(budget)
    ENDS[first](reservation)
    before = budget.committed
    with pytest.raises(RuntimeError, match="has ended before"):
        ENDS[second](reservation)
    assert (budget.committed, reservation.is_open) == (before, False)


@pytest.mark.parametrize("first", ENDS)
def test_a_release_after_the_end_does_nothing(first: str) -> None:
    budget = budget_of("1", pro=CENTS)
    reservation = reserve(budget)
    ENDS[first](reservation)
    before = budget.committed
    reservation.release()
    assert budget.committed == before


def test_unpriced_requests_of_earlier_runs_count_until_they_are_resumed_and_settled() -> None:
    budget = Budget(limit=Decimal("0.10"), prices={PRO: CENTS}, unpriced=Counter({PRO: 2}))
    assert budget.reserve(PRO) is Refusal.EXHAUSTED
    resumed = budget.resume(PRO)
    assert (budget.committed, resumed.amount) == (2 * CENTS, CENTS)
    assert budget.reserve(PRO) is Refusal.WAIT
    resumed.settle(Decimal("0.01"))
    assert reserve(budget).amount == CENTS


def test_a_paid_task_is_resumed_although_the_limit_is_exhausted() -> None:
    budget = Budget(limit=Decimal("0.01"), spent=Decimal(5), prices={PRO: CENTS})
    budget.resume(PRO).settle(CENTS)
    assert budget.spent == Decimal("5.04")


def test_a_paid_task_that_was_not_counted_before_counts_once_it_is_resumed() -> None:
    budget = budget_of("1", pro=CENTS)
    resumed = budget.resume(PRO)
    assert budget.committed == CENTS
    resumed.settle(CENTS)
    assert budget.committed == CENTS


def test_the_task_of_another_worker_moves_here_when_it_is_resumed() -> None:
    budget = budget_of("0.20", pro=CENTS)
    budget.record_elsewhere(Decimal("0.12"), in_flight=1)
    resumed = budget.resume(PRO, reserved=CENTS)
    assert (budget.elsewhere, budget.own, budget.in_flight_elsewhere) == (Decimal("0.08"), CENTS, 0)
    resumed.settle(Decimal("0.01"))
    assert budget.committed == Decimal("0.09")


def test_what_is_committed_elsewhere_counts_towards_the_limit() -> None:
    budget = budget_of("0.20", pro=CENTS)
    budget.record_elsewhere(Decimal("0.16"), in_flight=2)
    mine = reserve(budget)
    assert budget.reserve(PRO) is Refusal.WAIT
    mine.settle(CENTS)
    assert budget.reserve(PRO) is Refusal.WAIT, "the others' may turn out cheaper"
    budget.record_elsewhere(Decimal("0.16"), in_flight=0)
    assert budget.reserve(PRO) is Refusal.EXHAUSTED
    budget.record_elsewhere(Decimal("0.10"), in_flight=0)
    assert reserve(budget).amount == CENTS


def test_an_unknown_price_waits_for_requests_of_other_workers() -> None:
    budget = budget_of("1")
    budget.record_elsewhere(CENTS, in_flight=1)
    assert budget.reserve(PRO) is Refusal.WAIT
    budget.record_elsewhere(CENTS, in_flight=0)
    assert reserve(budget).amount is None


def test_a_total_of_all_workers_is_split_into_own_and_elsewhere() -> None:
    budget = budget_of("1", pro=CENTS)
    reserve(budget)
    reserve(budget).settle(CENTS)
    budget.record_total(Decimal("0.50"), in_flight=4)
    assert (budget.own, budget.elsewhere, budget.in_flight_elsewhere) == (Decimal("0.08"), Decimal("0.42"), 3)
    budget.record_total(Decimal("0.04"), in_flight=0)
    assert (budget.committed, budget.in_flight_elsewhere) == (Decimal("0.08"), 0), "the database may lag behind"


COSTS = st.decimals(min_value="0.01", max_value="0.10", places=2)
HIGHEST = Decimal("0.10")
LIMITS = st.decimals(min_value="0.01", max_value="0.60", places=2)
KINDS = st.sampled_from([PRO, MAX])


class BudgetMachine(RuleBasedStateMachine):
    """Any interleaving of requests whose costs are at most the highest price seen."""

    @initialize(limit=LIMITS)
    def begin(self, limit: Decimal) -> None:
        self.budget = Budget(limit=limit, prices={PRO: HIGHEST, MAX: HIGHEST})
        self.limit = limit
        self.flying: list[Reservation] = []
        self.billed = Decimal(0)

    @rule(kind=KINDS)
    def reserve(self, kind: PriceKind) -> None:
        before = self.budget.committed
        reservation = self.budget.reserve(kind)
        if isinstance(reservation, Reservation):
            self.flying.append(reservation)
            return
        assert self.budget.committed == before
        assert before + HIGHEST > self.limit
        assert (reservation is Refusal.WAIT) is bool(self.flying)

    def take(self, data: st.DataObject) -> Reservation:
        return self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), cost=COSTS)
    def settle(self, data: st.DataObject, cost: Decimal) -> None:
        self.take(data).settle(cost)
        self.billed += cost

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), cost=COSTS)
    def settle_unreported(self, data: st.DataObject, cost: Decimal) -> None:
        self.take(data).settle(None)
        self.billed += cost

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.take(data).release()

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), cost=st.just(Decimal(0)) | COSTS)
    def leave_uncertain(self, data: st.DataObject, cost: Decimal) -> None:
        self.take(data).leave_uncertain()
        self.billed += cost

    @invariant()
    def the_limit_holds(self) -> None:
        assert self.billed <= self.budget.committed <= self.limit
        assert self.budget.in_flight.total() == len(self.flying)


TestBudgetMachine = BudgetMachine.TestCase


class LearningMachine(RuleBasedStateMachine):
    """Prices are unknown: only the one request that shows a price can pass the limit."""

    @initialize(limit=LIMITS, pro=COSTS, dear=COSTS)
    def begin(self, limit: Decimal, pro: Decimal, dear: Decimal) -> None:
        self.budget = Budget(limit=limit)
        self.limit = limit
        self.costs = {PRO: pro, MAX: dear}
        self.flying: list[Reservation] = []
        self.billed = Decimal(0)
        self.allowed = limit

    @rule(kind=KINDS)
    def reserve(self, kind: PriceKind) -> None:
        reservation = self.budget.reserve(kind)
        if isinstance(reservation, Reservation):
            self.flying.append(reservation)
            if reservation.amount is None:
                assert self.billed < self.limit
                self.allowed = max(self.limit, self.billed + self.costs[kind])

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), billed=st.booleans())
    def end(self, data: st.DataObject, *, billed: bool) -> None:
        reservation = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        if billed:
            reservation.settle(self.costs[reservation.kind])
            self.billed += self.costs[reservation.kind]
        else:
            reservation.release()

    @invariant()
    def only_the_first_of_a_kind_can_pass_the_limit(self) -> None:
        assert self.billed <= self.allowed
        alone = any(each.amount is None and each.kind not in self.budget.prices for each in self.flying)
        assert not alone or len(self.flying) == 1


TestLearningMachine = LearningMachine.TestCase


@define
class Ledger:
    """The database that several workers share: what each has spent, and what is reserved for its requests."""

    limit: Decimal
    spent: Decimal = Decimal(0)
    reserved: dict[Reservation, Decimal | None] = field(factory=dict)
    uncertain: Decimal = Decimal(0)

    @property
    def committed(self) -> Decimal:
        return self.spent + self.uncertain + sum((each or Decimal(0) for each in self.reserved.values()), Decimal(0))

    def write_intent(self, reservation: Reservation) -> bool:
        if reservation.amount is None:
            fits = None not in self.reserved.values() and self.committed < self.limit
        else:
            fits = self.committed + reservation.amount <= self.limit
        if fits:
            self.reserved[reservation] = reservation.amount
        return fits


class SharedBudgetMachine(RuleBasedStateMachine):
    """Two workers, each with a budget of its own, and a database that has the last word."""

    @initialize(limit=LIMITS, known=st.booleans(), cost=COSTS)
    def begin(self, limit: Decimal, cost: Decimal, *, known: bool) -> None:
        self.ledger = Ledger(limit)
        self.cost = cost
        self.budgets = [Budget(limit=limit, prices={PRO: cost} if known else {}) for _ in range(2)]
        self.planned: list[list[Reservation]] = [[], []]
        self.flying: list[list[Reservation]] = [[], []]
        self.billed = Decimal(0)
        self.unpriced = Decimal(0)

    workers = st.integers(0, 1)

    def read_total(self, worker: int) -> None:
        self.budgets[worker].record_total(self.ledger.committed, in_flight=len(self.ledger.reserved))

    @rule(worker=workers)
    def reserve(self, worker: int) -> None:
        reservation = self.budgets[worker].reserve(PRO)
        if isinstance(reservation, Reservation):
            self.planned[worker].append(reservation)

    @rule(worker=workers)
    def read(self, worker: int) -> None:
        self.read_total(worker)

    @rule(worker=workers)
    def write_intent(self, worker: int) -> None:
        if not self.planned[worker]:
            return
        reservation = self.planned[worker].pop(0)
        if self.ledger.write_intent(reservation):
            self.flying[worker].append(reservation)
            if reservation.amount is None:
                self.unpriced = self.cost
            return
        reservation.release()
        self.read_total(worker)
        assert not isinstance(self.budgets[worker].reserve(PRO), Reservation), "it would be refused again"

    @rule(worker=workers, end=st.sampled_from(["settle", "cheap", "release", "uncertain"]))
    def end_request(self, worker: int, end: str) -> None:
        if not self.flying[worker]:
            return
        reservation = self.flying[worker].pop(0)
        self.ledger.reserved.pop(reservation)
        if end == "release":
            reservation.release()
        elif end == "uncertain":
            reservation.leave_uncertain()
            self.ledger.uncertain += self.cost
            self.billed += self.cost
        else:
            cost = self.cost if end == "settle" else Decimal("0.01")
            reservation.settle(cost)
            self.budgets[worker].record_price(PRO, self.cost)
            self.ledger.spent += cost
            self.billed += cost

    @rule()
    def finish_everything(self) -> None:
        """Nothing is left waiting: once all requests have ended, each worker is granted or knows that it is not."""
        for worker in range(2):
            while self.planned[worker]:
                self.planned[worker].pop().release()
            while self.flying[worker]:
                self.end_request(worker, "settle")
        for worker, budget in enumerate(self.budgets):
            self.read_total(worker)
            reservation = budget.reserve(PRO)
            assert reservation is not Refusal.WAIT
            if isinstance(reservation, Reservation):
                reservation.release()
            else:
                assert self.ledger.committed + self.cost > self.ledger.limit

    @invariant()
    def the_limit_holds_for_all_together(self) -> None:
        assert self.billed <= self.ledger.limit + self.unpriced
        if not self.unpriced:
            assert self.ledger.committed <= self.ledger.limit


TestSharedBudgetMachine = SharedBudgetMachine.TestCase

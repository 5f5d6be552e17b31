"""The budget decides without I/O whether one more request may be submitted."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, strategies as st

from kontext_async.bulk.budget import Admission, Budget

KIND = ("flux_kontext_pro", 0)
CENTS = Decimal("0.04")


def test_a_budget_without_a_limit_admits_every_request() -> None:
    assert Budget(spent=Decimal(1000)).admit(KIND) is Admission.GRANTED


def test_requests_in_flight_count_with_their_price() -> None:
    budget = Budget(limit=Decimal("0.10"), prices={KIND: CENTS})
    assert [budget.admit(KIND) for _ in range(3)] == [Admission.GRANTED, Admission.GRANTED, Admission.WAIT]
    budget.paid(KIND, Decimal("0.01"))
    assert budget.admit(KIND) is Admission.GRANTED, "it was cheaper"
    budget.paid(KIND, CENTS)
    budget.unpaid(KIND)
    assert budget.committed == Decimal("0.05")
    assert [budget.admit(KIND), budget.admit(KIND)] == [Admission.GRANTED, Admission.WAIT]
    budget.uncertain(KIND)
    assert budget.committed == Decimal("0.09"), "it may be charged"
    assert budget.admit(KIND) is Admission.EXHAUSTED


def test_an_unknown_price_is_learned_from_a_single_request() -> None:
    budget = Budget(limit=Decimal(1))
    assert [budget.admit(KIND), budget.admit(KIND)] == [Admission.GRANTED, Admission.WAIT]
    budget.paid(KIND, CENTS)
    assert budget.admit(KIND) is Admission.GRANTED


def test_a_price_that_is_never_reported_ends_submitting() -> None:
    budget = Budget(limit=Decimal(1))
    budget.admit(KIND)
    budget.paid(KIND, None)
    assert budget.admit(KIND) is Admission.UNKNOWN


def test_unpriced_requests_of_earlier_runs_count_towards_the_limit() -> None:
    budget = Budget(limit=Decimal("0.10"), prices={KIND: CENTS})
    budget.owed[KIND] = 2
    assert budget.admit(KIND) is Admission.EXHAUSTED
    budget.take_up(KIND)
    assert budget.admit(KIND) is Admission.WAIT


@given(
    st.decimals(min_value="0.01", max_value=2, places=2),
    st.lists(st.decimals(min_value="0.01", max_value="0.10", places=2), max_size=60),
    st.integers(min_value=1, max_value=8),
)
def test_the_limit_is_never_exceeded(limit: Decimal, costs: list[Decimal], together: int) -> None:
    budget = Budget(limit=limit, prices={KIND: Decimal("0.10")})
    flying: list[Decimal] = []
    for cost in costs:
        if budget.admit(KIND) is Admission.GRANTED:
            flying.append(cost)
        while len(flying) >= together:
            budget.paid(KIND, flying.pop())
    assert budget.spent + sum(flying) <= limit

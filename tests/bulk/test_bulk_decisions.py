"""What is decided without a loop: budgets, states, and names."""

from __future__ import annotations

from decimal import Decimal
from pathlib import PurePosixPath

import pytest
from hypothesis import given, strategies as st

from kontext_async import (
    ConfigurationError,
    DownloadFailed,
    GatewayUnavailable,
    InvalidRequest,
    KontextError,
    RequestRejected,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
)
from kontext_async.bulk.budget import Admission, Budget
from kontext_async.bulk.names import DEFAULT_TEMPLATE, EXAMPLE, OWN, NameTemplate, slug
from kontext_async.bulk.states import Action, Policy, State, state_after

KIND = ("flux_kontext_pro", 0)
CENTS = Decimal("0.04")


def test_without_a_limit_everything_is_admitted() -> None:
    assert Budget(spent=Decimal(1000)).admit(KIND) is Admission.GRANTED


def test_what_is_in_flight_counts_with_its_price() -> None:
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


def test_an_unknown_price_is_learned_from_one() -> None:
    budget = Budget(limit=Decimal(1))
    assert [budget.admit(KIND), budget.admit(KIND)] == [Admission.GRANTED, Admission.WAIT]
    budget.paid(KIND, CENTS)
    assert budget.admit(KIND) is Admission.GRANTED


def test_a_price_that_is_never_said_ends_it() -> None:
    budget = Budget(limit=Decimal(1))
    budget.admit(KIND)
    budget.paid(KIND, None)
    assert budget.admit(KIND) is Admission.UNKNOWN


def test_what_is_owed_from_earlier_counts() -> None:
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
def test_the_limit_is_never_passed(limit: Decimal, costs: list[Decimal], together: int) -> None:
    budget = Budget(limit=limit, prices={KIND: Decimal("0.10")})
    flying: list[Decimal] = []
    for cost in costs:
        if budget.admit(KIND) is Admission.GRANTED:
            flying.append(cost)
        while len(flying) >= together:
            budget.paid(KIND, flying.pop())
    assert budget.spent + sum(flying) <= limit


UNCERTAIN = SubmissionUncertain(request=None, fingerprint="f", seen="nothing")


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (UNCERTAIN, State.INTENT, State.INTENT),
        (GatewayUnavailable("no"), State.INTENT, State.INTENT),
        (GatewayUnavailable("no"), State.PLANNED, State.PLANNED),
        (RequestRejected("no"), State.PLANNED, State.FAILED),
        (InvalidRequest("a", "b", "c"), State.PLANNED, State.FAILED),
        (TaskFailed(task_id="t", code=None, message="no"), State.ACCEPTED, State.FAILED),
        (TaskNotFound("no"), State.ACCEPTED, State.EXPIRED),
        (TaskNotFound("no"), State.FINISHED, State.EXPIRED),
        (TaskTimeout(task_id="t", waited=1, last_status=None), State.ACCEPTED, State.ACCEPTED),
        (DownloadFailed(url="u", reason="r"), State.FINISHED, State.FINISHED),
    ],
)
def test_where_a_request_stands_after_an_error(error: KontextError, before: State, after: State) -> None:
    assert state_after(error, before) is after


def test_what_is_done_with_each_state() -> None:
    plain, again = Policy(), Policy(resend_uncertain=True, retry_failed=True)
    table = {
        State.PLANNED: (Action.SUBMIT, Action.SUBMIT),
        State.INTENT: (Action.LIST, Action.SUBMIT),
        State.ACCEPTED: (Action.FETCH, Action.FETCH),
        State.FINISHED: (Action.FETCH, Action.FETCH),
        State.SAVED: (Action.FETCH, Action.FETCH),
        State.FAILED: (Action.LIST, Action.SUBMIT),
        State.EXPIRED: (Action.LIST, Action.SUBMIT),
    }
    assert {
        state: (plain.action(state, files_present=False), again.action(state, files_present=False)) for state in State
    } == table
    assert plain.action(State.SAVED, files_present=True) is Action.SKIP


@given(st.text(max_size=300), st.text(max_size=100), st.sampled_from([DEFAULT_TEMPLATE, "{slug}", "{task_id}.{ext}"]))
def test_names_stay_within_the_directory(prompt: str, task_id: str, template: str) -> None:
    name = NameTemplate(template).fill({**EXAMPLE, "slug": slug(prompt), "task_id": task_id})
    path = PurePosixPath(name)
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert len(path.parts) <= 1
    assert name.isascii()
    assert not name.startswith(".")
    assert name not in OWN


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{model}/{index:03d}.{ext}", "model/000.jpg"),
        ("a\\b/{slug}", "a/b/picture"),
        ("index.html{ext:.0}", "_index.html"),
        ("con.{ext}", "_con.jpg"),
        ("{seed}{slug!s:.3}.{ext}", "nonepic.jpg"),
        ("{slug}" * 40 + ".{ext}", "picture" * 16 + "pict.jpg"),
    ],
)
def test_templates(template: str, name: str) -> None:
    assert NameTemplate(template).fill(EXAMPLE) == name


@pytest.mark.parametrize(
    "template",
    [
        "",
        "/etc/{slug}",
        "../{slug}",
        "a/../../{slug}",
        "fixed.jpg",
        "{prompt}",
        "{slug.__class__}",
        "{slug[0]}",
        "{",
        "{0}",
    ],
)
def test_templates_that_are_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="name template"):
        NameTemplate(template)

from __future__ import annotations

from itertools import product

import pytest

from kontext_async.decisions.submission import (
    CONSEQUENCES,
    TRANSITIONS,
    Consequence,
    Interruption,
    Phase,
    Step,
    advance,
    consequence_of,
)

LEGAL_STEPS = [
    (Phase.QUEUED, Step.CONNECT, Phase.CONNECTING),
    (Phase.CONNECTING, Step.SEND, Phase.SENDING),
    (Phase.CONNECTING, Step.END_ATTEMPT, Phase.QUEUED),
    (Phase.QUEUED, Step.END_ATTEMPT, Phase.QUEUED),
    (Phase.SENDING, Step.END_ATTEMPT, Phase.QUEUED),
    (Phase.SENDING, Step.ACCEPT, Phase.ACCEPTED),
]

ILLEGAL_STEPS = [
    (Phase.QUEUED, Step.SEND),
    (Phase.QUEUED, Step.ACCEPT),
    (Phase.CONNECTING, Step.CONNECT),
    (Phase.CONNECTING, Step.ACCEPT),
    (Phase.SENDING, Step.CONNECT),
    (Phase.ACCEPTED, Step.CONNECT),
    (Phase.SENDING, Step.SEND),
    (Phase.ACCEPTED, Step.SEND),
    (Phase.ACCEPTED, Step.END_ATTEMPT),
    (Phase.ACCEPTED, Step.ACCEPT),
]


@pytest.mark.parametrize(("phase", "step", "following"), LEGAL_STEPS)
def test_a_legal_step_leads_to_the_following_phase(phase: Phase, step: Step, following: Phase) -> None:
    assert advance(phase, step) is following


@pytest.mark.parametrize(("phase", "step"), ILLEGAL_STEPS)
def test_an_illegal_step_raises_key_error(phase: Phase, step: Step) -> None:
    with pytest.raises(KeyError):
        advance(phase, step)


def test_the_examples_cover_every_pair_of_phase_and_step() -> None:
    legal = {(phase, step) for phase, step, _ in LEGAL_STEPS}
    assert legal == set(TRANSITIONS)
    assert legal.isdisjoint(ILLEGAL_STEPS)
    assert legal | set(ILLEGAL_STEPS) == set(product(Phase, Step))


def test_every_phase_is_reached_from_queued() -> None:
    reached, frontier = {Phase.QUEUED}, [Phase.QUEUED]
    while frontier:
        phase = frontier.pop()
        found = {after for (before, _), after in TRANSITIONS.items() if before is phase} - reached
        reached |= found
        frontier += found
    assert reached == set(Phase)


def test_an_accepted_submission_stays_accepted() -> None:
    assert not [step for phase, step in TRANSITIONS if phase is Phase.ACCEPTED]


@pytest.mark.parametrize(
    ("phase", "interruption", "consequence"),
    [
        (Phase.QUEUED, Interruption.CANCELLED, Consequence.NOTHING_SENT),
        (Phase.QUEUED, Interruption.DEADLINE, Consequence.NOTHING_SENT),
        (Phase.QUEUED, Interruption.CLOSED, Consequence.SESSION_CLOSED),
        (Phase.CONNECTING, Interruption.CANCELLED, Consequence.NOTHING_SENT),
        (Phase.CONNECTING, Interruption.DEADLINE, Consequence.NOTHING_SENT),
        (Phase.CONNECTING, Interruption.CLOSED, Consequence.SESSION_CLOSED),
        (Phase.SENDING, Interruption.CANCELLED, Consequence.AWAIT_RESPONSE),
        (Phase.SENDING, Interruption.DEADLINE, Consequence.UNCERTAIN),
        (Phase.SENDING, Interruption.CLOSED, Consequence.AWAIT_RESPONSE),
        (Phase.ACCEPTED, Interruption.CANCELLED, Consequence.ABANDONED),
        (Phase.ACCEPTED, Interruption.DEADLINE, Consequence.TASK_TIMEOUT),
        (Phase.ACCEPTED, Interruption.CLOSED, Consequence.SESSION_CLOSED),
    ],
)
def test_each_interruption_has_its_consequence(
    phase: Phase, interruption: Interruption, consequence: Consequence
) -> None:
    assert consequence_of(phase, interruption) is consequence


def test_the_consequences_are_total_over_phases_and_interruptions() -> None:
    assert set(CONSEQUENCES) == set(product(Phase, Interruption))


def test_every_consequence_occurs() -> None:
    assert set(CONSEQUENCES.values()) == set(Consequence)


def test_only_a_request_that_may_be_out_is_uncertain() -> None:
    uncertain = {phase for (phase, _), consequence in CONSEQUENCES.items() if consequence is Consequence.UNCERTAIN}
    assert uncertain == {Phase.SENDING}

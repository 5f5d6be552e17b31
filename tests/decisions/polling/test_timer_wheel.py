from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kontext_async.decisions.polling.entry import Place, PollEntry
from kontext_async.decisions.polling.timer_wheel import TimerWheel

if TYPE_CHECKING:
    from unittest import TestCase

times = st.floats(0, 1e6)


def task(name: str = "t") -> PollEntry:
    return PollEntry(name, 0.0)


@pytest.mark.parametrize(("requested", "step"), [(1.0, 1.0), (0.9, 0.5), (1 / 128, 1 / 128), (0.01, 1 / 128)])
def test_the_step_is_a_power_of_two_and_no_longer_than_requested(requested: float, step: float) -> None:
    assert TimerWheel[PollEntry](requested).step == step


@given(times)
def test_a_due_time_goes_to_the_next_point_of_the_grid(due: float) -> None:
    wheel = TimerWheel[PollEntry](1 / 128)
    wheel.put(waiting := task(), due)
    assert waiting.due - wheel.step < due <= waiting.due
    assert waiting.due == wheel.round_up(due) == wheel.round_up(waiting.due) == wheel.first_due()


def test_an_infinite_time_is_its_own_grid_point() -> None:
    assert TimerWheel[PollEntry](0.01).round_up(math.inf) == math.inf


def test_an_empty_wheel_is_never_due() -> None:
    wheel = TimerWheel[PollEntry](1.0)
    assert wheel.first_due() == math.inf
    assert not wheel.pop(1e9)


def test_tasks_that_are_due_together_are_popped_in_the_order_in_which_they_were_put() -> None:
    wheel = TimerWheel[PollEntry](1.0)
    tasks = [task(str(number)) for number in range(5)]
    for number, each in enumerate(tasks):
        wheel.put(each, 3.1 + number / 10)
    assert len({id(each.due) for each in tasks}) == 1, "one number object serves all"
    assert list(wheel.pop(3.9)) == []
    assert list(wheel.pop(4.0)) == tasks


@pytest.mark.parametrize("place", [place for place in Place if place is not Place.SCHEDULED])
def test_a_task_that_moved_to_another_place_is_not_popped(place: Place) -> None:
    wheel = TimerWheel[PollEntry](1.0)
    wheel.put(gone := task(), 2.0)
    wheel.put(moved := task(), 2.0)
    gone.place = place
    wheel.put(moved, 5.0)
    assert wheel.first_due() == 5.0
    assert list(wheel.pop(4.0)) == []
    assert list(wheel.pop(5.0)) == [moved]


class TimerWheelMachine(RuleBasedStateMachine):
    """Tasks are put, put again, moved to another place and popped, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel = TimerWheel[PollEntry](1 / 4)
        self.now = 0.0
        self.waiting: list[PollEntry] = []

    @rule(after=st.floats(0, 10))
    def put(self, after: float) -> None:
        self.waiting.append(task())
        self.wheel.put(self.waiting[-1], self.now + after)

    @rule(data=st.data(), after=st.floats(0, 10))
    def put_again(self, data: st.DataObject, after: float) -> None:
        if self.waiting:
            self.wheel.put(data.draw(st.sampled_from(self.waiting)), self.now + after)

    @rule(data=st.data())
    def move_elsewhere(self, data: st.DataObject) -> None:
        if self.waiting:
            gone = data.draw(st.sampled_from(self.waiting))
            gone.place = Place.IDLE
            self.waiting.remove(gone)

    @rule(seconds=st.floats(0, 5))
    def pop(self, seconds: float) -> None:
        self.now += seconds
        due = [each for each in self.waiting if each.due <= self.now]
        popped = list(self.wheel.pop(self.now))
        assert {id(each) for each in popped} == {id(each) for each in due}
        assert [each.due for each in popped] == sorted(each.due for each in popped)
        assert len(popped) == len(due), "each task is popped once"
        for each in due:
            assert each.place is Place.DUE
            self.waiting.remove(each)

    @invariant()
    def first_due_is_the_earliest_time(self) -> None:
        assert self.wheel.first_due() == min((each.due for each in self.waiting), default=math.inf)


TestTimerWheelMachine: type[TestCase] = TimerWheelMachine.TestCase

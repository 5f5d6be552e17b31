from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from polling_support import DONE, trained_timing

from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.server_times import narrow, server_duration

if TYPE_CHECKING:
    from kontext_async.models import TaskStatus

CREATED = datetime(2026, 1, 9, 13, 33, 30, tzinfo=UTC)


def status_completed_at(at: Any, created: datetime | None = CREATED) -> TaskStatus:
    return evolve(DONE, created_at=created, metadata={"completed_at": at})


def test_times_in_seconds_are_truncated_and_those_in_milliseconds_are_not() -> None:
    begin = CREATED.timestamp()
    assert server_duration(status_completed_at(int(begin) + 9)) == (8, 10)
    assert server_duration(status_completed_at((int(begin) + 9) * 1000 + 500)) == pytest.approx((8.5, 9.501))
    precise = CREATED + timedelta(milliseconds=250)
    assert server_duration(status_completed_at((int(begin) + 9) * 1000, precise)) == pytest.approx((8.749, 8.751))


@pytest.mark.parametrize(
    "at",
    [None, "9", True, math.nan, math.inf, -5, 0, 10**400, 1e300, [], CREATED.timestamp() - 100],
    ids=str,
)
def test_absurd_times_are_ignored(at: Any) -> None:
    assert narrow(3.0, 9.0, status_completed_at(at)) == (3.0, 9.0)


def test_without_a_creation_time_the_interval_stays_as_it_is() -> None:
    assert narrow(3.0, 9.0, status_completed_at(CREATED.timestamp() + 5, None)) == (3.0, 9.0)


def test_the_local_observation_counts_where_the_gateway_contradicts_it() -> None:
    assert narrow(3.0, 9.0, status_completed_at(CREATED.timestamp() + 5)) == (3.75, 6.0)
    assert narrow(3.0, 9.0, status_completed_at(CREATED.timestamp() + 60)) == (3.0, 9.0)
    assert narrow(3.0, 9.0, status_completed_at(CREATED.timestamp() + 1)) == (3.0, 9.0)


def test_the_gateways_times_reveal_an_end_inside_a_long_gap() -> None:
    timing = trained_timing()
    created = CREATED + timedelta(microseconds=1)
    for _ in range(60):
        task = PollEntry("t", 0.0)
        timing.first_poll(task, 0.0, 0.5)
        task.due = 14.0
        timing.observe_end(task, status_completed_at(CREATED.timestamp() + 6.5, created), 14.0)
    assert 6 < timing.first_poll(PollEntry("t", 0.0), 0.0, 0.5) < 7.5

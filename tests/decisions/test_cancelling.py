"""The steps by which a task is cancelled: each row of the table in `decisions.cancelling`."""

from __future__ import annotations

from typing import Any

import pytest

from kontext_async.decisions.cancelling import CancelProgress, CancelStep


@pytest.fixture
def progress() -> CancelProgress:
    return CancelProgress(not_found_until=10.0, is_known=True)


def test_a_cancel_request_is_sent_first(progress: CancelProgress) -> None:
    assert progress.next_step() is CancelStep.SEND


@pytest.mark.parametrize("is_taken", [True, False, None])
def test_nothing_is_sent_once_the_task_has_ended(progress: CancelProgress, is_taken: Any) -> None:
    progress.record_reply(is_taken=is_taken)
    progress.record_status(is_terminal=True)
    assert progress.next_step() is CancelStep.END


@pytest.mark.parametrize(
    ("is_taken", "is_terminal", "expected"),
    [
        (True, False, CancelStep.POLL),
        (True, None, CancelStep.POLL),
        (False, False, CancelStep.END),
        (False, None, CancelStep.POLL),
        (None, False, CancelStep.SEND),
        (None, None, CancelStep.SEND),
    ],
)
def test_an_unfinished_task_is_polled_or_cancelled_again(
    progress: CancelProgress, is_taken: Any, is_terminal: Any, expected: CancelStep
) -> None:
    progress.record_reply(is_taken=is_taken)
    progress.record_status(is_terminal=is_terminal)
    assert progress.next_step() is expected


def test_a_refusal_by_a_server_that_does_not_know_the_task_says_nothing(progress: CancelProgress) -> None:
    progress.record_reply(is_taken=False)
    progress.record_not_found()
    assert progress.next_step() is CancelStep.SEND


def test_a_cancel_request_that_was_taken_is_not_repeated_if_the_status_is_not_found(progress: CancelProgress) -> None:
    progress.record_reply(is_taken=True)
    progress.record_not_found()
    assert progress.next_step() is CancelStep.POLL


class TestATaskThatNoStatusHasShownYet:
    @pytest.fixture
    def progress(self) -> CancelProgress:
        return CancelProgress(not_found_until=10.0, is_known=False)

    @pytest.mark.parametrize("is_terminal", [False, None])
    def test_a_refusal_says_nothing(self, progress: CancelProgress, is_terminal: Any) -> None:
        progress.record_reply(is_taken=False)
        progress.record_status(is_terminal=is_terminal)
        assert progress.next_step() is CancelStep.SEND

    def test_a_refusal_counts_once_a_status_has_shown_it(self, progress: CancelProgress) -> None:
        progress.record_reply(is_taken=False)
        progress.record_status(is_terminal=False)
        progress.record_reply(is_taken=False)
        progress.record_status(is_terminal=False)
        assert progress.next_step() is CancelStep.END

    def test_a_request_that_was_taken_is_not_repeated(self, progress: CancelProgress) -> None:
        progress.record_reply(is_taken=True)
        progress.record_status(is_terminal=False)
        assert progress.next_step() is CancelStep.POLL


def test_a_refusal_says_nothing_after_a_status_request_that_did_not_find_the_task(progress: CancelProgress) -> None:
    progress.record_reply(is_taken=None)
    progress.record_not_found()
    progress.record_reply(is_taken=False)
    progress.record_status(is_terminal=False)
    assert progress.next_step() is CancelStep.SEND

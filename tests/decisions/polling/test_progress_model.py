from __future__ import annotations

import math

import pytest

from kontext_async.decisions.polling.progress_model import ProgressModel, predict_end


def test_progress_predicts_the_end_as_if_it_were_linear() -> None:
    assert predict_end(3.0, 0.25) == 12.0


@pytest.mark.parametrize("progress", [None, 0.0, 0.04, 1.0, 1.5, -1.0, math.nan])
def test_a_meaningless_progress_predicts_no_end(progress: float | None) -> None:
    assert predict_end(10.0, progress) == 0.0
    assert ProgressModel().next_poll(predict_end(10.0, progress), 10.0, 0.1) is None


def test_progress_is_used_while_it_predicts_well_and_no_longer() -> None:
    model = ProgressModel()
    assert model.next_poll(10.0, 5.0, 0.1) is None
    for _ in range(10):
        model.observe(10.0, 5.0, 9.0, ended=False, probability=0.5)
        model.observe(10.0, 9.0, 10.5, ended=True, probability=0.3)
    age = model.next_poll(10.0, 5.0, 0.1)
    assert age is not None
    assert 9 < age < 11
    for _ in range(20):
        model.observe(10.0, 5.0, 20.0, ended=False, probability=0.3)
    assert model.next_poll(10.0, 5.0, 0.1) is None

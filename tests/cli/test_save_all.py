"""The names of the images that `generate` saves, and the counts of outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import make_generation
from hypothesis import given, strategies as st

from kontext_async import (
    AuthenticationFailed,
    KontextError,
    KontextRequest,
    Outcome,
    PermissionDenied,
    SubmissionUncertain,
    TaskFailed,
)
from kontext_async.bulk.filenames import slug
from kontext_async.cli.exit_codes import ExitCode
from kontext_async.cli.save_all import OutcomeCounts, image_name

FAILED = TaskFailed(task_id="id", code=None, message="no")
REFUSED = AuthenticationFailed("refused", status=401)
EMPTY = PermissionDenied("no balance", status=402)
UNCERTAIN = SubmissionUncertain(request=None, fingerprint="e" * 64, seen="nothing")


@given(st.text(max_size=200), st.text(min_size=1, max_size=200))
def test_image_names_are_safe_for_any_prompt_and_task_id(prompt: str, task_id: str) -> None:
    request = KontextRequest(prompt) if prompt.strip() else None
    generation = make_generation(task_id)
    name = image_name(Outcome(index=7, request=request, generation=generation), generation)
    assert name == Path(name).name
    assert len(name.encode()) <= 255 - len(".jpeg")
    assert name.isprintable()
    assert not set(name) & set(r'\/:*?"<>|. ')


def test_slug_is_the_start_of_the_prompt() -> None:
    assert slug("A fox's «den», in Zürich!") == "a-foxs-den-in-zurich"
    assert slug("狐") == "狐"
    assert len(slug("word " * 100)) <= 48


def test_task_ids_that_look_alike_when_cleaned_keep_different_names() -> None:
    def name_of(task_id: str) -> str:
        return image_name(Outcome(index=0, request=None), make_generation(task_id))

    assert name_of("a/b") != name_of("a_b") != name_of("a.b")
    assert name_of("../../etc").startswith("image-______etc-")


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((None,), ExitCode.DONE),
        ((None, FAILED), ExitCode.FAILED),
        ((FAILED, REFUSED, None), ExitCode.KEY_OR_BALANCE),
        ((EMPTY, FAILED), ExitCode.KEY_OR_BALANCE),
        ((REFUSED, UNCERTAIN, FAILED), ExitCode.UNCERTAIN),
    ],
)
def test_exit_code_is_that_of_the_gravest_outcome(errors: tuple[KontextError | None, ...], code: ExitCode) -> None:
    counts = OutcomeCounts()
    for error in errors:
        counts.add(error)
    assert counts.exit_code is code

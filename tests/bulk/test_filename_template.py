"""Filename templates: names stay inside the directory and are valid on every file system."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given, strategies as st

from kontext_async import ConfigurationError
from kontext_async.bulk.names import DEFAULT_TEMPLATE, EXAMPLE, OWN, NameTemplate, slug


@given(st.text(max_size=300), st.text(max_size=100), st.sampled_from([DEFAULT_TEMPLATE, "{slug}", "{task_id}.{ext}"]))
def test_names_stay_inside_the_directory(prompt: str, task_id: str, template: str) -> None:
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
        ("a\\b/{slug}", "a/b/image"),
        ("index.html{ext:.0}", "_index.html"),
        ("con.{ext}", "_con.jpg"),
        ("{seed}{slug!s:.3}.{ext}", "noneima.jpg"),
        ("{slug}" * 40 + ".{ext}", "image" * 23 + "i.jpg"),
    ],
)
def test_a_template_renders_a_safe_name(template: str, name: str) -> None:
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
def test_an_invalid_template_is_rejected(template: str) -> None:
    with pytest.raises(ConfigurationError, match="filename template"):
        NameTemplate(template)

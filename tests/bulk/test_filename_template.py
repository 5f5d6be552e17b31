"""Filename templates: names stay inside the directory and are valid on every file system."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given, strategies as st

from kontext_async import ConfigurationError
from kontext_async.bulk.filenames import DEFAULT_TEMPLATE, EXAMPLE, OWN, PART_BYTES, RESERVED, FilenameTemplate, slug


@given(st.text(max_size=300), st.text(max_size=100), st.sampled_from([DEFAULT_TEMPLATE, "{slug}", "{task_id}.{ext}"]))
def test_names_stay_inside_the_directory(prompt: str, task_id: str, template: str) -> None:
    name = FilenameTemplate(template).render({**EXAMPLE, "slug": slug(prompt), "task_id": task_id})
    path = PurePosixPath(name)
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert len(path.parts) <= 1
    assert len(name.encode()) <= PART_BYTES
    assert name == unicodedata.normalize("NFC", name)
    assert set(name) & set('<>:"/\\|?*\0\r\n\u202e') == set()
    assert not name.startswith(".")
    assert not OWN.fullmatch(name)
    assert not RESERVED.fullmatch(name)


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
    assert FilenameTemplate(template).render(EXAMPLE) == name


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("狐", "狐"),
        ("Рыжая лиса, снег!", "рыжая-лиса-снег"),
        ("ثعلب أحمر", "ثعلب-أحمر"),
        ("東京、夜 の 狐", "東京-夜-の-狐"),
        ("लोमड़ी", "लोमड़ी"),
        ("빨간 여우", "빨간-여우"),
        ("Café à la crème", "cafe-a-la-creme"),
        ("Straße", "straße"),
        ("the fox\u2019s tail", "the-foxs-tail"),
        ("🦊", "image"),
        ("🦊\ufe0f fox", "fox"),
        ("\u3164", "image"),
        ("\u202efox", "fox"),
        ("狐" * 100, "狐" * 32),
    ],
)
def test_the_name_of_a_prompt_is_readable_in_its_own_script(prompt: str, name: str) -> None:
    assert slug(prompt) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "name", ["journal.sqlite", "run.json", "Journal.SQLite-wal", "index-2.html", "com¹", "NUL.txt"]
)
def test_an_image_takes_no_name_of_the_run_or_of_windows(name: str) -> None:
    assert FilenameTemplate("{slug}").render({**EXAMPLE, "slug": name}) == f"_{name}"


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
        FilenameTemplate(template)

"""Every document, module, file and benchmark that a docstring or a document names exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from package_syntax import PACKAGE, REPOSITORY, ROOT, modules_of

from kontext_async import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS = sorted(
    path
    for path in (*REPOSITORY.glob("*.md"), *PACKAGE.rglob("*.md"), *(REPOSITORY / ".github").rglob("*.md"))
    if path.is_file()
)
SOURCES = sorted(
    path
    for folder in ("benchmarks", ROOT, "tests")
    for path in (REPOSITORY / folder).rglob("*.py")
    if path != Path(__file__)
)
WINGS = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
MODULES = modules_of(PACKAGE)

NAMED_DOCUMENT = re.compile(r"\b([A-Z][A-Z_-]+\.md)\b")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
DOTTED = re.compile(r"`+((?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*)(?:\(\))?`+")
FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")
RUN_MODULE = re.compile(r"python -m (benchmarks(?:\.[a-z_]+)*)")
BENCHMARK = re.compile(r"--only ([a-z_]+)")
DEFAULT = re.compile(r"^\| `([A-Z]\w+)\.(\w+)` \| (no limit|[\d.]+)", re.MULTILINE)
"""A row of a table of settings: its class, its field, and its default."""


def texts() -> Iterator[tuple[str, str]]:
    for path in (*DOCUMENTS, *SOURCES):
        yield str(path.relative_to(REPOSITORY)), path.read_text("utf-8")


def resolve(name: str) -> bool:
    """Return True if a dotted name is a module of the package, or an attribute of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if module in MODULES:
            value: object = importlib.import_module(module)
            for attribute in parts[length:]:
                if not hasattr(value, attribute):
                    return attribute in getattr(value, "__annotations__", {})
                value = getattr(value, attribute)
            return True
    return False


def is_file(name: str, document: str) -> bool:
    """Return True if a path exists beside the document, in the package, or in the repository."""
    return any((place / name).exists() for place in ((REPOSITORY / document).parent, PACKAGE, REPOSITORY))


def missing(document: str, text: str) -> Iterator[str]:
    """Yield whatever a text names and does not exist."""
    names = {path.name for path in DOCUMENTS}
    yield from (name for name in NAMED_DOCUMENT.findall(text) if name not in names)
    for name in DOTTED.findall(text):
        first = name.split(".")[0]
        full = name if first == ROOT else f"{ROOT}.{name}"
        if first in {ROOT, *WINGS} and not name.endswith((".py", ".md")) and not resolve(full):
            yield name
    for module in RUN_MODULE.findall(text):
        if importlib.util.find_spec(module) is None:
            yield f"python -m {module}"
    if document.endswith(".md"):
        yield from (link for link in LINK.findall(text) if not (REPOSITORY / document).parent.joinpath(link).exists())
        yield from (name for name in FILE.findall(text) if "." in name and not is_file(name, document))


def test_everything_that_a_text_names_exists() -> None:
    assert [f"{document}: {name}" for document, text in texts() for name in missing(document, text)] == []


def test_every_benchmark_that_a_text_names_exists() -> None:
    from benchmarks.runner import BENCHMARKS

    named = {name for _, text in texts() for name in BENCHMARK.findall(text)}
    assert named <= set(BENCHMARKS)


def test_every_table_of_settings_gives_the_defaults() -> None:
    rows = [row for _, text in texts() for row in DEFAULT.findall(text)]
    stated = {(owner, name): None if default == "no limit" else float(default) for owner, name, default in rows}
    assert stated == {(owner, name): getattr(getattr(settings, owner)(), name) for owner, name in stated}
    assert ("Limits", "polls_per_second") in stated


def test_every_package_lists_its_modules() -> None:
    """Each wing's `__init__` docstring names its modules, so that a reader finds the way."""
    forgotten = []
    for name, module in MODULES.items():
        package, _, own = name.rpartition(".")
        if package.count(".") < 1 or package not in MODULES or own == "__main__":
            continue
        listed = MODULES[package].tree.body[0]
        if f"`{own}" not in str(getattr(getattr(listed, "value", None), "value", "")):
            forgotten.append(name)
        assert module.name == name
    assert forgotten == []


@pytest.mark.parametrize(
    "text",
    [
        "see NOWHERE.md",
        "`kontext_async.nowhere.at_all`",
        "`kontext_async.errors.NoSuchError`",
        "`decisions.nowhere`",
        "`python -m benchmarks.nowhere`",
        "[a](nowhere.md)",
        "`decisions/nowhere.py`",
    ],
)
def test_a_missing_thing_is_caught(text: str) -> None:
    assert list(missing("README.md", text))


@pytest.mark.parametrize(
    "text",
    [
        "ARCHITECTURE.md",
        "`kontext_async.errors.TaskTimeout`",
        "`decisions.submission`",
        "`engine.engine.Engine`",
        "[a](CHANGELOG.md)",
        "`decisions/submission.py`",
    ],
)
def test_an_existing_thing_is_found(text: str) -> None:
    assert not list(missing("README.md", text))


def test_the_documents_are_not_in_the_wheel_but_in_the_sdist() -> None:
    pyproject = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    assert 'exclude = ["*.md"]' in pyproject.partition("[tool.hatch.build.targets.wheel]")[2].partition("[tool")[0]
    assert Path(PACKAGE / "ARCHITECTURE.md").is_file()

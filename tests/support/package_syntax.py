"""The package's modules as syntax trees, for the tests of its architecture, words and documents."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

import kontext_async

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "kontext_async"
PACKAGE = Path(kontext_async.__file__).parent
REPOSITORY = PACKAGE.parent


@frozen
class Import:
    """One import of a module, by its full name."""

    target: str
    line: int
    typing_only: bool


@frozen
class Module:
    """One module of the package."""

    name: str
    tree: ast.Module = field(repr=False)
    is_package: bool = False

    @classmethod
    def of(cls, name: str, source: str, *, is_package: bool = False) -> Module:
        return cls(name, ast.parse(source), is_package)

    @property
    def area(self) -> str:
        return area_of(self.name)


def area_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ROOT


@cache  # three modules of tests look at the whole package
def modules_of(package: Path) -> dict[str, Module]:
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found[name] = Module.of(name, path.read_text("utf-8"), is_package=is_package)
    return found


def imports_of(module: Module, known: set[str]) -> Iterator[Import]:
    """Every import of a module, those in functions and under ``TYPE_CHECKING`` too."""
    typing_lines = {
        line
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, node.lineno in typing_lines)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module.name}:{node.lineno}: relative imports are not resolved here"
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in known else base, node.lineno, node.lineno in typing_lines)

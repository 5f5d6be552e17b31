"""The words of the package: retired ones stay out of names and docstrings, and docstrings are not questions.

CONTRIBUTING.md has the words that we use instead.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest
from package_syntax import PACKAGE, Module, modules_of

if TYPE_CHECKING:
    from collections.abc import Iterator

RETIRED_IN_NAMES = {
    "agenda",
    "anew",
    "answer",
    "answered",
    "answers",
    "ask",
    "asked",
    "asking",
    "asks",
    "cargo",
    "deserted",
    "doubted",
    "errand",
    "errands",
    "excerpt",
    "fate",
    "fates",
    "foretelling",
    "foretold",
    "hear",
    "heard",
    "held",
    "hurried",
    "hurry",
    "misuse",
    "narrowed",
    "outlived",
    "pacer",
    "picture",
    "pictures",
    "setback",
    "told",
    "trouble",
    "unanswered",
    "whoever",
    "worth",
}

RETIRED_IN_DOCSTRINGS = (
    r"anew",
    r"answer(s|ed|ing)?",
    r"asks? (about|again|on|once)",
    r"asked about",
    r"be (had|it)",
    r"bears?",
    r"errands?",
    r"foret(ell|ells|old)",
    r"(gives?|given) back",
    r"go(es)? on",
    r"hea(rd|rs?)",
    r"(held|holds?) back",
    r"misused?",
    r"nobody knows",
    r"not any more",
    r"of which",
    r"pictures?",
    r"shall",
    r"tak(e|es|en) (down|up)",
    r"tells?",
    r"told",
    r"(which|who|whoso)ever",
)

PHRASES = re.compile(r"\b(" + "|".join(RETIRED_IN_DOCSTRINGS) + r")\b", re.IGNORECASE)
QUESTIONS = {"What", "Whether", "Who", "Whoever", "Whose", "How", "Why", "When", "Where"}


def segments_of(name: str) -> set[str]:
    """Split an identifier into its words, in lower case."""
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_")
    return {part for part in parts if part}


def names_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name that a module defines: classes, functions, arguments, variables and attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno


def docstrings_in(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int]]:
    """Yield the docstrings of a module, its classes, functions and constants, each with its owner and line."""
    for node in ast.walk(tree):
        for owner, statement in zip((node, *body(node)), body(node), strict=False):
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield owner, text, statement.lineno


def body(node: ast.AST) -> list[ast.stmt]:
    return node.body if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else []


def retired_words(module: Module) -> list[str]:
    """Return the places where a module has a retired word in a name or a docstring."""
    found = [
        f"{module.name}:{line} {name}"
        for name, line in (*names_in(module.tree), (module.name.rpartition(".")[2], 1))
        if segments_of(name) & RETIRED_IN_NAMES
    ]
    for _, text, line in docstrings_in(module.tree):
        found += [f"{module.name}:{line} {match[0]!r}" for match in PHRASES.finditer(text)]
    return found


def is_property(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and any("property" in ast.unparse(each) for each in node.decorator_list)


def questions(module: Module) -> list[str]:
    """Return the docstrings that begin with a question word, and those of functions that begin with an article."""
    found = []
    for node, text, line in docstrings_in(module.tree):
        first = text.split(maxsplit=1)[0]
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_property(node)
        if (first in QUESTIONS and not is_property(node)) or (is_function and first in {"The", "A", "An"}):
            found.append(f"{module.name}:{line} {text[:60]}")
    return found


MODULES = list(modules_of(PACKAGE).values())


def test_no_retired_word_comes_back() -> None:
    assert [line for module in MODULES for line in retired_words(module)] == []


def test_no_docstring_is_a_question() -> None:
    assert [line for module in MODULES for line in questions(module)] == []


@pytest.mark.parametrize(
    "source",
    [
        "def ask_now(): ...",
        "class PictureSink: ...",
        "def f(fate): ...",
        "told = 1",
        "self.heard = 2",
        'def f():\n    """Submit it anew."""',
        'class A:\n    """Whoever waits for it."""',
        'X = 1\n"""The pictures of a task, of which there are many."""',
    ],
)
def test_a_retired_word_is_caught(source: str) -> None:
    assert retired_words(Module.of("kontext_async.made_up", source))


@pytest.mark.parametrize("source", ['def f():\n    """What it is."""', 'def f():\n    """The sum."""'])
def test_a_question_is_caught(source: str) -> None:
    assert questions(Module.of("kontext_async.made_up", source))


def test_a_property_may_be_a_noun_phrase() -> None:
    source = 'class A:\n    @property\n    def b(self):\n        """The sum."""'
    assert not questions(Module.of("kontext_async.made_up", source))

"""The architecture of the package, checked on its syntax trees: import directions, purity, and where things stand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import pytest
from package_syntax import PACKAGE, ROOT, Module, area_of, imports_of, modules_of

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUND = {
    *("version", "redaction", "foreign_values", "shared_timeout", "waitable", "serialization"),
    *(
        "base_errors",
        "cancellation",
        "errors",
        "images",
        "request_rules",
        "request_fields",
        "request_sources",
        "models",
        "settings",
        "events",
    ),
}
CORE = GROUND | {"protocol", "decisions", "gateways", "store", "engine", "session"}
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "redaction": set(),
    "foreign_values": set(),
    "shared_timeout": set(),
    "waitable": set(),
    "base_errors": {"redaction"},
    "images": {"base_errors", "foreign_values", "images", "redaction"},
    "serialization": {"base_errors", "redaction"},
    "request_rules": {"base_errors", "foreign_values", "images", "redaction", "serialization"},
    "request_fields": {"base_errors", "foreign_values", "images", "request_rules"},
    "request_sources": {"base_errors", "images"},
    "models": {
        *("base_errors", "foreign_values", "images", "redaction", "serialization"),
        *("request_rules", "request_fields", "request_sources"),
    },
    "cancellation": {"models"},
    "errors": {"base_errors", "cancellation", "models", "redaction", "serialization"},
    "settings": {"base_errors", "foreign_values", "images", "redaction"},
    "events": {"cancellation", "errors", "models"},
    "protocol": GROUND | {"protocol"},
    "decisions": GROUND | {"decisions"},
    "gateways": GROUND | {"protocol", "decisions", "gateways"},
    "engine": GROUND | {"protocol", "decisions", "gateways", "store", "engine"},
    "session": GROUND | {"protocol", "decisions", "gateways", "store", "engine", "session"},
    ROOT: GROUND | {"session"},
    "emulator": {"models", "emulator"},
    "bulk": CORE | {ROOT, "bulk"},
    "testing": CORE | {ROOT, "emulator", "testing"},
    "store": GROUND | {"protocol", "decisions", "store"},
    "integrations": CORE | {ROOT, "bulk", "integrations"},
    "cli": CORE | {ROOT, "bulk", "emulator", "cli"},
}
"""The areas of the package, and the areas that each may import, for type checking too."""

PURE = {"protocol", "decisions", "gateways"}
EFFECTS = {"asyncio", "anyio", "trio", "aiohttp", "time", "random", "secrets", "threading", "socket", "os", "pathlib"}
CLOCKS = {"now", "utcnow", "today"}


def wrong_directions(modules: Iterable[Module]) -> list[str]:
    return [
        f"{module.name}:{each.line} imports {each.target}"
        for module in modules
        for each in imports_of(module, set(MODULES))
        if each.target.split(".")[0] == ROOT and area_of(each.target) not in MAY_IMPORT[module.area]
    ]


def cycle(modules: dict[str, Module]) -> list[str]:
    """Return the modules of an import cycle, if there is one; imports for type checking count."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module in modules.values():
        for each in imports_of(module, set(modules)):
            if each.target in modules and each.target != module.name:
                graph[module.name].add(each.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def impure(module: Module) -> list[str]:
    wrong = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            wrong.append(f"{module.name}:{node.lineno} is async")
        elif isinstance(node, ast.comprehension) and node.is_async:
            wrong.append(f"{module.name}:{node.target.lineno} is async")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
            wrong.append(f"{module.name}:{node.lineno} reads the clock")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print"}:
            wrong.append(f"{module.name}:{node.lineno} does I/O")
    wrong += [
        f"{module.name}:{each.line} imports {each.target}"
        for each in imports_of(module, set())
        if each.target.split(".")[0] in EFFECTS
    ]
    return wrong


def environment_reads(module: Module) -> list[str]:
    names = {"environ", "environb", "getenv"}
    return [
        f"{module.name}:{node.lineno}"
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names})
    ]


DIALECT = re.compile(
    r"\b(Authorization|Bearer|x-key|X-Api-Key|X-Webhook-Secret|X-BFL-Signature)\b"
    r"|/model/v1|/v1/|/api/v1|get_result|precharge|status_url|response_url|cancel_url|polling_url|queue_position"
    r"|^(IN_QUEUE|succeeded|canceled|Pending|Ready|Task not found|(Request|Content) Moderated)$"
    r"|^(jobId|sample|outputs|provider_error|error_type|credits|webhook_url|webhook_secret)$",
    re.IGNORECASE,
)
"""What belongs to a dialect: its headers, its paths, its status words and the names of its fields.

Words that anybody uses, such as ``completed``, are left out."""

SHARED_WORDS = {"store.digest": {"/storage/v1/object/sign/"}}
"""Words that mean something else where they stand, by module: a form of the signed URLs of input images."""


def dialect_words(module: Module) -> list[str]:
    """Texts of a module that only a dialect may know; docstrings may name them."""
    docstrings = {id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Expr)}
    shared = SHARED_WORDS.get(module.name.removeprefix(f"{ROOT}."), set())
    return [
        f"{module.name}:{node.lineno} {node.value!r}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
        and node.value not in shared
        and DIALECT.search(node.value)
    ]


def aiohttp_imports(module: Module) -> list[str]:
    """Imports of aiohttp that happen when the program runs."""
    return [
        f"{module.name}:{each.line}"
        for each in imports_of(module, set())
        if each.target.split(".")[0] == "aiohttp" and not each.typing_only
    ]


HTTP_MODULES = ("lenient_protocol", "pools", "transport", "transport_errors", "whole_body")
"""The modules of the engine that may import aiohttp."""

LATE = {ROOT: {"__getattr__", "__dir__"}, f"{ROOT}.cli": {"main"}}
"""Functions that may stand in an ``__init__``, because what they need is imported when they are called (PEP 562)."""


def is_table_of_contents(statement: ast.stmt, late: set[str]) -> bool:
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AnnAssign(target=ast.Name(id="__all__")):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=orelse):
            return all(is_table_of_contents(each, late) for each in (*body, *orelse))
        case ast.FunctionDef(name=name, decorator_list=[]):
            return name in late
    return False


def does_more_than_list(module: Module) -> list[str]:
    """What an ``__init__`` does beside importing and naming."""
    return [
        f"{module.name}:{statement.lineno}"
        for statement in module.tree.body
        if not is_table_of_contents(statement, LATE.get(module.name, set()))
    ]


MODULES = modules_of(PACKAGE)


def of_areas(*areas: str) -> list[Module]:
    return [module for module in MODULES.values() if module.area in areas]


def test_the_rules_see_the_package() -> None:
    assert set(MODULES) >= {
        ROOT,
        *(f"{ROOT}.{name}" for name in GROUND),
        *(f"{ROOT}.protocol{name}" for name in ("", ".task_ids", ".tasks", ".errors", ".requests")),
        *(f"{ROOT}.decisions{name}" for name in ("", ".concurrency", ".resend", ".submission", ".polling.queue")),
        *(f"{ROOT}.engine{name}" for name in ("", ".transport", ".scheduler", ".poll_loop", ".downloader", ".engine")),
        f"{ROOT}.session",
        f"{ROOT}.emulator",
    }
    edges = {
        (module.name, each.target, each.typing_only)
        for module in MODULES.values()
        for each in imports_of(module, set(MODULES))
    }
    assert edges >= {
        (f"{ROOT}.errors", f"{ROOT}.models", False),
        (f"{ROOT}.base_errors", f"{ROOT}.redaction", False),
        (f"{ROOT}.models", f"{ROOT}.images", False),
        (f"{ROOT}.engine.transport", "aiohttp", False),
        (f"{ROOT}.engine.poll_loop", f"{ROOT}.engine.context", True),
        (f"{ROOT}.session.session", f"{ROOT}.engine.engine", False),
        (ROOT, f"{ROOT}.session", True),
        (ROOT, f"{ROOT}.session", False),
    }


def test_every_module_has_its_place_in_the_house() -> None:
    assert {module.area for module in MODULES.values()} <= set(MAY_IMPORT)


def test_imports_run_downward_only() -> None:
    assert wrong_directions(MODULES.values()) == []


def test_there_are_no_import_cycles() -> None:
    assert cycle(MODULES) == []


def test_protocol_decisions_and_gateways_are_pure() -> None:
    pure = of_areas(*PURE)
    assert len(pure) >= 9
    assert [line for module in pure for line in impure(module)] == []


def test_only_the_settings_read_the_environment() -> None:
    readers = {line.split(":")[0] for module in MODULES.values() for line in environment_reads(module)}
    assert readers == {f"{ROOT}.settings"}


def test_only_the_transport_imports_aiohttp() -> None:
    importers = {line.split(":")[0] for module in of_areas(*CORE, ROOT) for line in aiohttp_imports(module)}
    assert importers == {f"{ROOT}.engine.{name}" for name in HTTP_MODULES}


def test_only_the_gateways_know_the_words_of_a_dialect() -> None:
    free = {"gateways", "emulator"}
    others = [module for module in MODULES.values() if module.area not in free]
    assert len(others) > 100
    assert [line for module in others for line in dialect_words(module)] == []


def test_every_gateway_knows_the_words_of_its_dialect() -> None:
    for name in ("vtrix", "vtrix_tasks", "vtrix_queue", "bfl", "bfl_tasks", "bfl_webhooks"):
        assert dialect_words(MODULES[f"{ROOT}.gateways.{name}"])


@pytest.mark.parametrize(
    "source",
    [
        'headers = {"Authorization": "x"}',
        'headers = {"x-key": key}',
        'f"Bearer {key}"',
        'f"{base}/model/v1/generation"',
        'f"{base}/v1/get_result?id={task_id}"',
        'status == "Ready"',
        'status in ("IN_QUEUE", "IN_PROGRESS")',
        'payload.get("polling_url")',
        'payload["result"]["sample"]',
    ],
)
def test_a_word_of_a_dialect_is_caught(source: str) -> None:
    assert dialect_words(Module.of(f"{ROOT}.engine.made_up", source))
    assert not dialect_words(Module.of(f"{ROOT}.engine.made_up", f'def f():\n    """{source!r}"""'))


def test_packages_are_tables_of_contents() -> None:
    packages = [module for module in MODULES.values() if module.is_package]
    assert len(packages) >= 5
    assert [line for package in packages for line in does_more_than_list(package)] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("base_errors", "from kontext_async.models import KontextRequest"),
        ("models", "if TYPE_CHECKING:\n    from kontext_async.errors import TaskFailed"),
        ("errors", "import kontext_async.settings"),
        ("redaction", "from kontext_async.errors import KontextError"),
        ("models", "from kontext_async import settings"),
        ("protocol.made_up", "from kontext_async.engine.clock import Clock"),
        ("protocol.made_up", "from kontext_async.decisions.resend import AttemptOutcome"),
        ("protocol.made_up", "from kontext_async.gateways import Gateway"),
        ("gateways.made_up", "from kontext_async.engine.transport import Response"),
        ("decisions.made_up", "def f():\n    from kontext_async.session import KontextSession"),
        ("decisions.made_up", "if TYPE_CHECKING:\n    from kontext_async.engine.slots import Slot"),
        ("engine.made_up", "from kontext_async import KontextSession"),
        ("engine.made_up", "from kontext_async.session import KontextSession"),
        ("session", "from kontext_async.bulk import BulkRun"),
        ("emulator.made_up", "from kontext_async.protocol import error_from_response"),
        ("bulk.made_up", "from kontext_async.cli import main"),
    ],
)
def test_a_module_that_imports_upward_is_caught(name: str, source: str) -> None:
    assert len(wrong_directions([Module.of(f"{ROOT}.{name}", source)])) == 1


def test_a_cycle_is_caught_for_type_checking_too() -> None:
    one = Module.of(f"{ROOT}.engine.one", "from kontext_async.engine import two")
    two = Module.of(f"{ROOT}.engine.two", "def late():\n    import kontext_async.engine.one")
    typed = Module.of(f"{ROOT}.engine.two", "if TYPE_CHECKING:\n    from kontext_async.engine.one import One")
    names = {one.name, two.name}
    assert set(cycle({one.name: one, two.name: two})) == names
    assert set(cycle({one.name: one, typed.name: typed})) == names


@pytest.mark.parametrize(
    "source",
    [
        "async def f(): ...",
        "def f(): return [x async for x in y]",
        "import asyncio",
        "import time",
        "from time import monotonic",
        "from random import Random",
        "import random as r",
        "if TYPE_CHECKING:\n    import anyio",
        "at = datetime.now(UTC)",
        "at = datetime.datetime.utcnow()",
        "file = open('x')",
    ],
)
def test_an_impure_module_is_caught(source: str) -> None:
    assert impure(Module.of(f"{ROOT}.protocol.made_up", source))


@pytest.mark.parametrize(
    "source", ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ"]
)
def test_reading_the_environment_is_caught(source: str) -> None:
    assert environment_reads(Module.of(f"{ROOT}.made_up", source))


@pytest.mark.parametrize("source", ["import aiohttp", "from aiohttp import web", "def f():\n    import aiohttp.abc"])
def test_importing_aiohttp_is_caught(source: str) -> None:
    assert aiohttp_imports(Module.of(f"{ROOT}.made_up", source))
    assert not aiohttp_imports(Module.of(f"{ROOT}.made_up", "if TYPE_CHECKING:\n    import aiohttp"))


@pytest.mark.parametrize(
    "source",
    [
        "print('hello')",
        "x = 1",
        "def f(): ...",
        "class A: ...",
        "if x:\n    import a",
        "def __getattr__(name): ...",
        "f()",
    ],
)
def test_an_init_that_does_more_is_caught(source: str) -> None:
    assert does_more_than_list(Module.of(f"{ROOT}.made_up", source, is_package=True))


def test_a_lazy_getattr_is_allowed_in_the_package_itself() -> None:
    assert not does_more_than_list(Module.of(ROOT, "def __getattr__(name): ...", is_package=True))


IMPORTED = """
import gc, logging, sys, threading
import kontext_async
assert "aiohttp" not in sys.modules, "the session is imported when it is asked for"
from kontext_async import KontextSession
import aiohttp, asyncio
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
handlers = [handler for logger in loggers for handler in logger.handlers]
assert all(isinstance(handler, logging.NullHandler) for handler in handlers), handlers
clients = (aiohttp.ClientSession, aiohttp.BaseConnector, asyncio.AbstractEventLoop)
assert not [each for each in gc.get_objects() if isinstance(each, clients)]
print("nothing was started")
"""


def test_importing_the_package_starts_nothing() -> None:
    run = subprocess.run(  # noqa: S603 # our own interpreter
        [sys.executable, "-W", "error", "-c", IMPORTED], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "nothing was started\n"

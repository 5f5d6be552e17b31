"""Every Python example of the README and the guides runs against an emulator, as in ``python -m asyncio``."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import logging
import os
import re
import subprocess
import sys
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from package_syntax import PACKAGE, REPOSITORY
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser
from web_support import post_to_aiohttp, post_to_asgi

from kontext_async import KontextSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sybil.example import Example

    from kontext_async.emulator import Emulator

pytest_plugins = ["kontext_async.testing.plugin"]

README = REPOSITORY / "README.md"
GUIDES = sorted((PACKAGE / "guides").glob("*.md"))
WITHOUT_PYTHON = {"command_line.md"}


def run(example: Example) -> None:
    """Run a block as asyncio's own prompt does, where ``await`` may stand at the top."""
    example.namespace.setdefault("__name__", "__main__")
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(example.parsed, f"{example.path}:{example.line}", "exec", flags=flags, dont_inherit=True)
    result = eval(code, example.namespace)  # noqa: S307 # our own documents
    if inspect.iscoroutine(result):
        asyncio.run(result)


def examples(path: Path) -> list[Example]:
    document = Sybil([CodeBlockParser("python", run)], path=str(path.parent)).parse(path)
    return list(document.examples())


def evaluate(path: Path, *, without: str | None = None) -> dict[str, Any]:
    """Run all blocks of a document, but for those that contain a text, and return what they define."""
    found = [example for example in examples(path) if without is None or without not in example.parsed]
    assert found
    for example in found:
        example.evaluate()
    return dict(found[-1].namespace)


@pytest.fixture
def kontext_emulator_options() -> dict[str, object]:
    return {"service_time": 0.3, "pixels": 64 * 64}


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what the guide to settings does with the logger."""
    root, logger = logging.getLogger(), logging.getLogger("kontext_async")
    handlers, levels = root.handlers[:], (root.level, logger.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    logger.setLevel(levels[1])


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_readme_runs(kontext_emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(README)
    assert (tmp_path / "fox.jpg").stat().st_size
    assert len(list((tmp_path / "out").iterdir())) == 20
    assert len(list((tmp_path / "foxes").glob("*.jpg"))) == 10
    assert (tmp_path / "foxes" / "index.html").stat().st_size
    printed = capsys.readouterr().out
    assert "0.04 USD" in printed
    assert "0.40 USD, 0 uncertain" in printed


def test_the_test_of_the_readme_passes(kontext_emulator: Emulator) -> None:
    defined: dict[str, Any] = {"KontextSession": KontextSession}
    exec(examples(README)[-1].parsed, defined)  # noqa: S102 # our own README
    asyncio.run(defined["test_a_fox_is_billed_once"](kontext_emulator))


@pytest.mark.parametrize(
    "kontext_emulator_options", [{"service_time": 0.05, "pixels": 4096, "balance": "1.00", "region_host": "127.0.0.1"}]
)
@pytest.mark.parametrize("gateway", ["vtrix", "vtrix-queue", "bfl"])
def test_ten_lines_of_the_readme_run_on_each_gateway(
    gateway: str,
    kontext_emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The regions of the emulator have the host of its base URL here, so that nothing needs to be named."""
    monkeypatch.setenv("KONTEXT_GATEWAY", gateway)
    [example] = [example for example in examples(README) if "session.balance()" in example.parsed]
    assert len(example.parsed.splitlines()) == 10
    example.namespace["KontextSession"] = KontextSession
    example.evaluate()
    assert (tmp_path / "red-fox.jpg").stat().st_size
    assert kontext_emulator.ledger.billed == 3
    printed = capsys.readouterr().out
    assert f"resume with {gateway}:" in printed
    assert [Decimal(found) for found in re.findall(r"balance: (\S+) USD", printed)] == [Decimal(1), Decimal("0.88")]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the prompt of Python 3.13 needs a terminal to paste into")
def test_the_readme_can_be_pasted_into_the_asyncio_prompt(kontext_emulator: Emulator, tmp_path: Path) -> None:
    """A blank line inside a block would end it there, so no block has one."""
    environment = {
        **os.environ,
        "KONTEXT_BASE_URL": kontext_emulator.base_url,
        "KONTEXT_API_KEY": kontext_emulator.api_key or "",
    }
    pasted = "\n\n".join(example.parsed for example in examples(README)) + "\n\nprint('the end')\n"
    prompt = subprocess.run(
        [sys.executable, "-m", "asyncio"], input=pasted, capture_output=True, text=True, env=environment, check=False
    )
    assert "the end" in prompt.stdout
    assert "Error" not in prompt.stderr, prompt.stderr
    assert (tmp_path / "fox.jpg").stat().st_size


@pytest.mark.parametrize(
    "guide", [guide.name for guide in GUIDES if guide.name not in WITHOUT_PYTHON | {"web_server.md"}]
)
def test_a_guide_runs(guide: str, kontext_emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(PACKAGE / "guides" / guide)
    expected = {
        "bulk.md": "10 skipped, 0 USD",
        "gateways.md": "bfl 0.040 USD\n1 billed",
        "errors_and_money.md": "not finished, and billed; resume",
        "many_users.md": "True None",
        "images.md": "aspect_ratio | '3:1' | it must be",
        "settings.md": "completed",
        "testing.md": "1 billed",
    }
    assert expected.get(guide, "") in capsys.readouterr().out


def test_the_guide_to_testing_has_a_test_that_passes(kontext_emulator: Emulator, kontext_settings: object) -> None:
    defined = evaluate(PACKAGE / "guides" / "testing.md")
    defined["test_an_image_is_billed_once"](kontext_emulator, kontext_settings)


def test_the_guide_to_testing_has_a_test_of_two_workers_that_passes(
    kontext_emulator: Emulator, kontext_settings: object, kontext_store: object
) -> None:
    defined = evaluate(PACKAGE / "guides" / "testing.md")
    defined["test_a_second_worker_pays_nothing"](kontext_emulator, kontext_settings, kontext_store)


SERVERS = pytest.mark.parametrize(
    ("name", "post"),
    [
        ("app", post_to_aiohttp),
        ("starlette_app", post_to_asgi),
        ("litestar_app", post_to_asgi),
        ("django_app", post_to_asgi),
    ],
)


WEB_GUIDE = PACKAGE / "guides" / "web_server.md"


@cache
def evaluate_with_django() -> dict[str, Any]:
    """Run the guide to web servers once: Django can be configured only once."""
    return evaluate(WEB_GUIDE)


@pytest.fixture
def web_app(name: str) -> Any:
    """An application of the guide to web servers; that of aiohttp belongs to one event loop."""
    return (evaluate_with_django() if name == "django_app" else evaluate(WEB_GUIDE, without="django"))[name]


@SERVERS
def test_the_web_servers_of_the_guide_serve(web_app: Any, post: Callable[..., Any], kontext_emulator: Emulator) -> None:
    bodies = [{"prompt": f"fox {number}"} for number in range(5)]
    stranger = {"prompt": "a fox", "input_images": "/etc/passwd"}
    served = asyncio.run(post(web_app, *bodies, {}, stranger))
    assert [status for status, _ in served] == [200] * 5 + [422] * 2
    assert served[0][1].startswith(b"\xff\xd8\xff")
    assert json.loads(served[-1][1])["field"] == "input_images[0]"
    assert kontext_emulator.ledger.billed == 5


@SERVERS
@pytest.mark.parametrize("kontext_emulator_options", [{"balance": "0.01"}])
def test_the_web_servers_of_the_guide_respond_when_the_balance_is_empty(
    web_app: Any, post: Callable[..., Any], kontext_emulator: Emulator
) -> None:
    ((status, body),) = asyncio.run(post(web_app, {"prompt": "fox"}))
    assert status == 503
    assert json.loads(body)["title"] == "No image can be generated at the moment"

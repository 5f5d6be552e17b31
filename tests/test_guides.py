"""Every Python example of the README runs, in order, against an emulator, as it would in ``python -m asyncio``."""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

if TYPE_CHECKING:
    from sybil.example import Example

    from kontext_async.emulator import Emulator

pytest_plugins = ["kontext_async.testing.plugin"]

README = Path(__file__).parent.parent / "README.md"


def run(example: Example) -> None:
    """Run a block as asyncio's own prompt does, where ``await`` stands at the top."""
    example.namespace.setdefault("__name__", "__main__")
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(example.parsed, f"{example.path}:{example.line}", "exec", flags=flags, dont_inherit=True)
    result = eval(code, example.namespace)  # noqa: S307 # our own README
    if inspect.iscoroutine(result):
        asyncio.run(result)


def examples() -> list[Example]:
    document = Sybil([CodeBlockParser("python", run)], path=str(README.parent)).parse(README)
    return list(document.examples())


@pytest.fixture
def kontext_emulator_options() -> dict[str, object]:
    return {"service_time": 0.3, "pixels": 64 * 64}


def test_the_examples_run(
    kontext_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = examples()
    assert len(found) >= 8
    for example in found:
        example.evaluate()
    assert (tmp_path / "fox.jpg").stat().st_size
    assert len(list((tmp_path / "out").iterdir())) == 20
    printed = capsys.readouterr().out
    assert "aspect_ratio | '3:1' | it must be" in printed
    assert "0.04 USD" in printed
    assert "1 billed" in printed
    assert kontext_emulator.ledger.billed >= 37
    assert len(list((tmp_path / "foxes").glob("*.jpg"))) == 10
    assert (tmp_path / "foxes" / "index.html").stat().st_size
    assert "uncertain" in printed


def test_the_web_server_of_the_readme_serves(kontext_emulator: Emulator) -> None:
    from aiohttp.test_utils import TestClient, TestServer

    block = next(example for example in examples() if "web.Application()" in example.parsed)
    block.evaluate()

    async def ask() -> bytes:
        async with TestClient(TestServer(block.namespace["app"])) as client:
            answers = await asyncio.gather(*(client.get("/picture", params={"prompt": f"fox {n}"}) for n in range(5)))
            assert [answer.status for answer in answers] == [200] * 5
            return await answers[0].read()

    assert asyncio.run(ask()).startswith(b"\xff\xd8\xff")
    assert kontext_emulator.ledger.billed == 5

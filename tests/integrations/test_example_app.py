"""The FastAPI application of the README, as it stands there, under uvicorn."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import aiohttp
import pytest
from package_syntax import REPOSITORY
from server_processes import post_image, run_server
from session_support import decode_format

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.emulator import Emulator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

COMMAND = ("uvicorn", "--port", "{port}", "example_app:app")


def find_example() -> str:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "FastAPI(" in block]
    return example


def test_the_example_has_at_most_25_lines() -> None:
    assert len(find_example().strip().splitlines()) <= 25


async def test_the_example_serves_images_readiness_and_metrics(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "example_app.py").write_text(find_example(), "utf-8")
    async with run_server(COMMAND, emulator, folder=tmp_path) as server, aiohttp.ClientSession() as client:
        replies = await asyncio.gather(*(post_image(client, server.url) for _ in range(3)))
        assert [reply.status for reply in replies] == [200] * 3
        assert decode_format(replies[0].body) == "JPEG"
        stranger = await post_image(client, server.url, {"prompt": "x", "input_images": "/etc/passwd"})
        assert stranger.status == 422
        async with client.get(f"{server.url}/healthz") as response:
            assert (await response.json())["is_ready"] is True
        async with client.get(f"{server.url}/metrics") as response:
            text = await response.text()
        async with client.get(f"{server.url}/openapi.json") as response:
            assert response.status == 200
    assert re.search(r"^kontext_spent\w*\{.*\} 0\.12$", text, re.MULTILINE), text
    assert re.search(r"^gen_ai_client_operation_duration_seconds_count\{.*\} 3\.0$", text, re.MULTILINE), text

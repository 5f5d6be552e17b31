"""The API key in hostile responses: it is in nothing that a user sees, stores or sends on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs
import pytest
from session_support import raw_server

from kontext_async import KontextError, KontextSession, Settings
from kontext_async.settings import Retries
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from kontext_async.events import Event

pytestmark = pytest.mark.anyio

KEY = "sk-0123456789abcdef/+=ghijkl"
PIECES = (KEY[:9], "0123456789", quote(KEY, safe="")[-20:], "\\u0073", "%73", "&#115;")
ONCE: Settings = attrs.evolve(FAST, retries=Retries(attempts=1, failure_budget=0.01, not_found_grace=0.0))

ECHOES = {
    "plain": KEY,
    "in control characters": f"\x1b[31m{KEY}\x07",
    "percent-encoded": quote(KEY, safe=""),
    "encoded in full": "".join(f"%{ord(each):02x}" for each in KEY),
    "entities": "".join(f"&#{ord(each)};" for each in KEY),
    "escaped": "".join(f"\\u{ord(each):04x}" for each in KEY),
    "across a cut": "x " * 246 + KEY,
}
TASK = {"id": "t1", "status": "in_progress"}
URL = "http://127.0.0.1:9/KEY.png?sig=KEY"


def shapes(echo: str) -> dict[str, Any]:
    """Return the bodies that echo the key, as JSON or as text."""
    return {
        "error": {"error": {"code": echo, "message": f"bad {echo}"}, "request_id": echo},
        "envelope": {"status": {"code": 403, "message": echo, "error_code": 40201}},
        "detail": {"detail": [{"loc": ["body", echo], "msg": echo, "type": echo}]},
        "key of an object": {**TASK, echo: {echo: echo}},
        "status": {"id": "t1", "status": echo},
        "id": {"id": echo, "status": "in_progress"},
        "failed": {"id": "t1", "status": "failed", "error": {"code": echo, "message": echo}},
        "completed": {
            "id": "t1",
            "status": "completed",
            "model": echo,
            "output": [{"content": [{"type": echo, "url": URL.replace("KEY", quote(echo)), "jobId": echo}]}],
            "usage": {"cost": "0.04", echo: echo, "currency": echo},
            "metadata": {echo: echo},
        },
        "price": {"status": "success", "data": {"cost": "1", "currency": echo, "reason": echo, echo: echo}},
        "html": f"<html><body>{echo}</body></html>",
        "cut JSON": json.dumps({"message": echo})[:-9],
        "UTF-16": json.dumps({"message": echo}, ensure_ascii=False).encode("utf-16"),
    }


def encode_body(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def encode_response(status: int, body: bytes, echo: str) -> bytes:
    """Return an HTTP response that echoes the key in its head too."""
    header = quote(echo) if echo.isprintable() else "none"
    names = f"X-Request-Id: {header}\r\nRetry-After: {header}\r\nContent-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status} Bad\r\n{names}\r\n".encode() + body


RESPONSES = [
    (f"{name}, {shape}, {status}", encode_response(status, encode_body(body), echo))
    for name, echo in ECHOES.items()
    for shape, body in shapes(echo).items()
    for status in (200, 400, 403, 502)
] + [
    ("no HTTP", f"Authorization: Bearer {KEY}\r\n\r\n".encode()),
    ("a bad status line", f"HTTP/1.1 2x0 {KEY}\r\n\r\n".encode()),
    ("a bad header", f"HTTP/1.1 200 OK\r\nX: {KEY}\0\r\n\r\n".encode()),
    ("a bad length", f"HTTP/1.1 200 OK\r\nContent-Length: {KEY}\r\n\r\n".encode()),
    ("a bad chunk", f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode()),
    ("a redirect", f"HTTP/1.1 302 Found\r\nLocation: /{KEY}\r\nContent-Length: 0\r\n\r\n".encode()),
]


def texts_of(error: BaseException | None) -> list[str]:
    """Return everything that an error and its causes show, to the last attribute."""
    if error is None:
        return []
    shown = [*traceback.format_exception(error), repr(error), repr(vars(error)), repr(error.args)]
    return shown + texts_of(error.__cause__) + texts_of(error.__context__)


async def collect_texts(base_url: str, folder: Path) -> list[str]:
    """Use every call of a session, and return everything that it shows."""
    texts: list[str] = []
    events: list[Event] = []
    async with KontextSession(KEY, base_url=base_url, settings=ONCE) as session:
        session.subscribe(events.append)
        texts += await show_result(session.generate("a fox", timeout=0.03), session, folder)
        texts += await show_result(session.estimate("a fox"), session, folder)
        texts += await show_result(session.attach("t1").status(), session, folder)
        texts += await show_result(session.attach("t1").wait(timeout=0.02), session, folder)
        texts.append(repr(session.statistics()))
    for event in events:
        texts += [repr(event), *texts_of(getattr(event, "error", None))]
    return texts


async def show_result(call: Awaitable[Any], session: KontextSession, folder: Path) -> list[str]:
    """Return everything that the result of a call shows, or its error."""
    try:
        result = await call
        for image in getattr(result, "images", ()):
            await session.save(image, folder / "a.png")
    except KontextError as error:
        return [*texts_of(error), repr(pickle.dumps(error))]
    return [repr(result), repr(attrs.asdict(result)), repr(pickle.dumps(result))]


@pytest.mark.parametrize("response", [response for _, response in RESPONSES], ids=[name for name, _ in RESPONSES])
async def test_an_echoed_key_is_in_no_text(response: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            await writer.drain()
        writer.close()

    caplog.set_level(logging.DEBUG)
    async with raw_server(respond) as base_url:
        texts = [*await collect_texts(base_url, tmp_path), caplog.text, *map(str, tmp_path.iterdir())]
    everything = "\n".join(texts)
    assert not [piece for piece in PIECES if piece in everything]
    assert "\x1b" not in everything

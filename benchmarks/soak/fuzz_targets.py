"""The readers of foreign bytes, as targets for a fuzzer: each takes bytes, and raises what no reader may raise.

Only errors of the package's tree may come out of a reader, and the API key may be in no text of what comes out.
"""

from __future__ import annotations

import asyncio
import atexit
import html
import json
import re
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from attrs import frozen

from kontext_async import KontextError, KontextRequest, KontextSession, Outcome, UntrustedRules
from kontext_async.bulk import BulkRun, InvalidLine, read_requests
from kontext_async.bulk.contact_sheet import regenerate_reports
from kontext_async.bulk.directory import JOURNAL as NAME
from kontext_async.emulator import Emulator
from kontext_async.gateways import (
    GATEWAYS,
    Purpose,
    Reference,
    TrustedHosts,
    UntrustedAddress,
    bfl_webhooks,
    make_gateway,
)
from kontext_async.gateways.vtrix_estimates import read_estimate
from kontext_async.gateways.vtrix_tasks import read_accepted, read_created, read_poll, read_status
from kontext_async.images import data_uris, formats
from kontext_async.protocol import clean_body, error_from_response, retry_after
from kontext_async.protocol.http import Response
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEY = "sk-Fuzz9Key7+Abc/def=ghi"
"""The API key: no other text has it by chance."""

KEY_FORMS = {
    b"KEY0": KEY.encode(),
    b"KEY1": "".join(f"%{ord(letter):02x}" for letter in KEY).encode(),
    b"KEY2": "".join(f"\\u{ord(letter):04x}" for letter in KEY).encode(),
    b"KEY3": "".join(f"&#{ord(letter)};" for letter in KEY).encode(),
    b"KEY4": KEY[: len(KEY) * 2 // 3].encode(),
    b"KEY5": "\u200b".join(KEY).encode(),
}
"""The words in an input that stand for the key in its disguises. The fuzzer knows them."""

ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")
WIDE_RULES = UntrustedRules(allow_urls=True, models=("flux_kontext_pro",), max_safety_tolerance=6)
NOW = datetime(2026, 1, 9, tzinfo=UTC)
STATUSES = (200, 202, 307, 401, 403, 404, 422, 429, 500, 503)
HTTPS_PORT = 443


class Finding(AssertionError):
    """A reader did what it may not do."""


@frozen(kw_only=True)
class Target:
    """One target.

    Attributes:
        run: Reads the bytes, and raises an error that is not of the tree, or a `Finding`.
        seeds: The inputs to begin with.
        owner: The package of the readers.
    """

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    owner: str


def insert_key(data: bytes) -> bytes:
    """Return the bytes with the key in place of the words that stand for it."""
    for word, form in KEY_FORMS.items():
        data = data.replace(word, form)
    return data


def check_texts(value: object) -> None:
    """Check that no text of a value, or of an error and its causes, has the key in a form that a person can read.

    Raises:
        Finding: There is the key.
    """
    texts = [repr(value)]
    error = value
    while isinstance(error, BaseException):
        texts += [str(error), repr(error), repr(vars(error)), repr(error.args)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for text in texts:
        plain = ESCAPE.sub(lambda match: chr(int(match[1], 16)), html.unescape(unquote(unquote(text))))
        if KEY in text or KEY in plain:
            raise Finding(f"the key is in {type(value).__name__}: {text[:300]}")


def attempt(work: Callable[[], object]) -> None:
    """Do the work; check what it returns, or the error of the tree that it raises."""
    try:
        value = work()
    except KontextError as error:
        check_texts(error)
    else:
        check_texts(value)


def read_responses(data: bytes) -> None:
    """Read the bytes as the response to a create request and to a status request."""
    body = clean_body(insert_key(data), KEY)
    attempt(lambda: read_created(body))
    attempt(lambda: read_accepted(body))
    attempt(lambda: read_status(body, "task-1"))
    attempt(lambda: read_poll(body, "task-1"))
    attempt(lambda: make_gateway("vtrix", KEY).accepted_despite_error(Response(500, body), model="flux_kontext_pro"))


def read_gateways(data: bytes) -> None:
    """Read the bytes as every response of a gateway: two bytes of its name and of the status, and the body."""
    names = [name for name in GATEWAYS if name != "vtrix"]
    gateway = make_gateway(names[data[0] % len(names) if data else 0], KEY)
    body = clean_body(insert_key(data[2:]), KEY)
    response = Response(
        STATUSES[data[1] % len(STATUSES) if data[1:] else 0], body, location="https://a.example/?id=KEY"
    )
    addresses = ("https://api.us1.bfl.ai/v1/get_result?id=1",) if gateway.features.has_addresses else ()
    task = Reference("task-1", gateway.name, model="flux_kontext_pro", addresses=addresses)
    request = gateway.status(task)
    for read in (gateway.read_poll, gateway.read_status):
        attempt(partial(read, task, request, response))
        attempt(partial(read, task, request._replace(purpose=Purpose.RESULT), response))
    attempt(lambda: gateway.read_created(response, model="flux_kontext_pro"))
    attempt(lambda: gateway.read_accepted(response, model="flux_kontext_pro"))
    attempt(lambda: gateway.accepted_despite_error(response, model="flux_kontext_pro"))
    attempt(lambda: gateway.read_refusal(response))
    attempt(lambda: gateway.read_balance(response))
    attempt(lambda: gateway.retry_after(response, NOW))
    attempt(lambda: gateway.is_readable(request, response.status, body))
    attempt(lambda: bfl_webhooks.read_task_id(body))


def read_references(data: bytes) -> None:
    """Read the bytes as the text of a reference, as an address of a task, and as an entry of trusted hosts."""
    text = data.decode("utf-8", "surrogateescape")
    attempt(lambda: Reference.parse(text, GATEWAYS))
    gateway = make_gateway("bfl", KEY)
    with suppress(UntrustedAddress):
        url = gateway.trusted.check(text)
        if url.scheme != "https" or url.port != HTTPS_PORT or not (url.raw_host or "").lower().endswith(".bfl.ai"):
            raise Finding(f"{text!r} is trusted")
    attempt(lambda: TrustedHosts.of(gateway.base, (), [text]))


def read_estimates(data: bytes) -> None:
    """Read the bytes as the response to a precharge request."""
    body = clean_body(insert_key(data), KEY)
    attempt(lambda: read_estimate(body))


def read_refusals(data: bytes) -> None:
    """Read the bytes as an error response: two bytes of status, and the body, which is a Retry-After too."""
    status = 300 + int.from_bytes(data[:2], "big") % 300
    body = clean_body(insert_key(data[2:]), KEY)
    attempt(lambda: error_from_response(status, body, task_id="task-1"))
    attempt(lambda: retry_after(data[2:80].decode("latin-1"), NOW))


def read_stranger_requests(data: bytes) -> None:
    """Read the bytes as the JSON body of a stranger, and as a value that travelled."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return
    attempt(lambda: KontextRequest.from_untrusted(fields))
    attempt(lambda: KontextRequest.from_untrusted(fields, WIDE_RULES).to_dict())
    attempt(lambda: KontextRequest.from_dict(fields))
    attempt(lambda: Outcome.from_dict(fields).to_dict())


def read_image_heads(data: bytes) -> None:
    """Read the bytes as an image, and as a data URI."""
    kind = formats.detect_format(data)
    formats.describe_other_format(data)
    detect_any = getattr(formats, "detect_any_format", formats.detect_format)
    detect_any(data)
    if kind is not None:
        formats.has_header(kind, len(data), lambda offset, length: data[offset : offset + length])
        formats.is_complete(kind, data)
    text = f"data:{data.decode('latin-1')}"
    with suppress(ValueError):  # their callers name the field
        data_uris.decode_payload(data_uris.parse_data_uri(text))
    with suppress(ValueError):
        data_uris.decode_start(text, formats.SIGNATURE_LENGTH)


SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
MAX_LINES = 1000


def read_prompt_files(data: bytes) -> None:
    """Read the bytes as a prompt file; the first byte chooses its format."""
    path = _get_scratch_folder() / f"prompts{SUFFIXES[data[0] % len(SUFFIXES) if data else 0]}"
    path.write_bytes(data[1:])
    try:
        reader = read_requests(path)
    except KontextError:
        return
    for _ in range(MAX_LINES):
        try:
            next(reader)
        except StopIteration:
            return
        except InvalidLine:
            continue
        except KontextError:
            return


def read_journals(data: bytes) -> None:
    """Read a good journal of which some bytes, or some values, are those of the input."""
    directory, journal = _make_run()
    path = directory / NAME
    for suffix in ("-wal", "-shm", "-journal"):
        (directory / f"{NAME}{suffix}").unlink(missing_ok=True)
    path.write_bytes(journal if data[:1] < b"\x80" else _patch(journal, data[1:]))
    if data[:1] < b"\x80":
        _change_value(path, data[1:])
    with suppress(KontextError):
        _get_runner().run(regenerate_reports(directory))


def _patch(journal: bytes, data: bytes) -> bytes:
    """Return the journal with up to 64 of its bytes changed: three bytes of place, and one of value, for each."""
    changed = bytearray(journal)
    for start in range(0, min(len(data) - 3, 256), 4):
        changed[int.from_bytes(data[start : start + 3], "big") % len(changed)] = data[start + 3]
    return bytes(changed)


def _change_value(path: Path, data: bytes) -> None:
    """Set one column of one table to a value of the input: text, bytes, a number or nothing."""
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.Error, OverflowError, ValueError):
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = tables[data[0] % len(tables)] if data else tables[0]
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        raw = data[3:]
        values: tuple[object, ...] = (raw.decode("utf-8", "surrogateescape"), raw, len(raw), None, float("inf"))
        values += (int.from_bytes(raw[:8], "big", signed=True), insert_key(raw).decode("latin-1"))
        column = columns[(data[1] if len(data) > 1 else 0) % len(columns)]
        value = values[(data[2] if len(data) > 2 else 0) % len(values)]
        connection.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))  # noqa: S608 # names of its own tables
        connection.commit()


@cache
def _get_scratch_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kontext-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _get_runner() -> asyncio.Runner:
    return asyncio.Runner()


@cache
def _make_run() -> tuple[Path, bytes]:
    """Return the directory of a small finished run, and the bytes of its journal."""
    directory = _get_scratch_folder() / "run"

    async def run() -> None:
        faults = ["task-fails", "cut-after-accept", None, "http-status", None, None]
        async with Emulator(service_time=0, pixels=4096) as emulator:
            emulator.faults.script("create", faults)
            async with KontextSession(KEY, base_url=emulator.base_url, settings=FAST) as session:
                emulator._state.api_key = KEY  # noqa: SLF001 # the run uses the key that must not show
                await BulkRun(session, directory).execute([f"fox {number}" for number in range(len(faults))])

    _get_runner().run(run())
    with closing(sqlite3.connect(directory / NAME)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return directory, (directory / NAME).read_bytes()


DONE = {
    "id": "task-1",
    "status": "completed",
    "model": "flux_kontext_pro KEY0",
    "created_at": 1767965610,
    "output": [{"content": [{"type": "image", "url": "https://cdn.example/KEY1/a.jpg?sig=a%2Fb", "jobId": "KEY2"}]}],
    "usage": {"cost": "0.04", "discount": 1.0, "extra_info": "KEY3"},
    "metadata": {"in_queue_at": 1767965610, "seed": 7, "note": "KEY5"},
}
FAILED = {"id": "task-1", "status": "failed", "error": {"code": "KEY0", "message": "Bearer KEY1 \u202e\u001b[31m"}}
RUNNING = {"id": "task-1", "status": "in_progress", "progress": 0.42}
CREATED = {"id": "task-1", "polling_url": "https://api.us1.bfl.ai/v1/get_result?id=KEY1", "cost": 4.0}
QUEUED = {"request_id": "task-1", "status": "queued", "status_url": "https://cloud.vtrix.ai/KEY0", "queue_position": 1}
READY = {"id": "task-1", "status": "Ready", "result": {"sample": "https://delivery.bfl.ai/KEY1?se=1", "prompt": "KEY0"}}
MODERATED = {"id": "task-1", "status": "Request Moderated", "details": {"Moderation Reasons": ["KEY2", "Violence"]}}
OUTPUTS = {"request_id": "task-1", "status": "COMPLETED", "outputs": [{"type": "image", "url": "https://a/KEY0"}]}
LOST = {"request_id": "task-1", "status": "COMPLETED", "error": "KEY5", "provider_error": {"code": "KEY0"}}
PRICE = {"status": "success", "data": {"model": "m KEY0", "cost": "0.0357", "currency": "USD", "discount": 0.7}}
ERRORS = (
    {"error": {"code": "RATE_LIMIT_EXCEEDED", "message": "Bearer KEY0"}, "request_id": "KEY1"},
    {"message": "KEY2"},
    {"detail": [{"loc": ["body", "KEY3"], "msg": "KEY0", "type": "x"}]},
    {"status": {"code": 403, "message": "KEY0", "error_code": 40201}},
)
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde\0\0\0\0IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xc0\0\x11\x08\0\1\0\1\3\1\x11\0\2\x11\0\3\x11\0\xff\xd9"
GIF = b"GIF89a\1\0\1\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2L\1\0;"


def _dump(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


TARGETS = {
    "responses": Target(run=read_responses, seeds=_dump(DONE, FAILED, RUNNING, [], "KEY4"), owner="protocol"),
    "estimates": Target(run=read_estimates, seeds=_dump(PRICE, {"status": "failed", "data": None}), owner="gateways"),
    "gateways": Target(
        run=read_gateways,
        seeds=[
            *(b"\0\0" + body for body in _dump(QUEUED, OUTPUTS, LOST, *ERRORS)),
            *(b"\1\0" + body for body in _dump(CREATED, READY, MODERATED, {"errors": ["KEY0"]})),
            *(b"\1\6" + body for body in _dump({"detail": "Invalid API key format: KEY0"}, *ERRORS)),
            *(b"\2\0" + body for body in _dump({"request_id": "task-1"}, READY)),
            b'\1\0{"id": "task-1", "polling_url": "https://api.us1.b',
        ],
        owner="gateways",
    ),
    "references": Target(
        run=read_references,
        seeds=[
            b"vtrix:task-1",
            b"bfl:task-1@https://api.us1.bfl.ai/v1/get_result?id=1",
            b"vtrix-queue:a%2Fb@m@https://a.example/1|https://a.example/2",
            b"https://api.us1.bfl.ai:443/v1",
            b"https://api.bfl.ai@evil.example/",
            b"poll.example:8443",
        ],
        owner="gateways",
    ),
    "refusals": Target(
        run=read_refusals,
        seeds=[b"\0\x90" + body for body in [*_dump(*ERRORS), b"<html>KEY0</html>", b"Fri, 09 Jan 2026 13:34:30 GMT"]],
        owner="protocol",
    ),
    "image_heads": Target(
        run=read_image_heads,
        seeds=[PNG, JPEG, GIF, b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0", b"image/png;base64,iVBORw0KGgo="],
        owner="images",
    ),
    "stranger_requests": Target(
        run=read_stranger_requests,
        seeds=_dump(
            {
                "prompt": "a fox",
                "seed": 7,
                "aspect_ratio": "16:9",
                "input_images": ["data:image/png;base64,iVBORw0KGgo="],
            },
            {"prompt": "a fox", "input_images": "/etc/passwd", "output_format": "png", "model": "KEY0"},
            {"index": 0, "request": {"prompt": "x"}, "error": {"type": "TaskFailed", "text": "KEY0"}},
        ),
        owner="request_rules",
    ),
    "prompt_files": Target(
        run=read_prompt_files,
        seeds=[
            b"\0a fox\n\nan owl\n",
            b'\1prompt,seed,input_images\na fox,7,a.png;b.png\n"an\nowl",x,\n',
            b"\2prompt\tseed\na fox\t7\n",
            b'\3{"prompt": "a fox", "seed": 7}\n{"prompt": null}\n[]\n',
        ],
        owner="bulk",
    ),
    "journals": Target(
        run=read_journals,
        seeds=[b"\0\2\3\0x", b"\0\2\x0e\0{}", b"\0\2\x13\0[]", b"\0\1\1\0a", b"\x80\0\0\x10\0", b"\x80\0\x10\0\xff"],
        owner="bulk",
    ),
}
"""All targets by name."""

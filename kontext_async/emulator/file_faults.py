"""The faults of downloads: what is served in place of a good file, and how it is sent. Pure."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen

from kontext_async.emulator.fault_kinds import FaultKind

if TYPE_CHECKING:
    from kontext_async.emulator.faults import Fault

MISSING_BYTES = 64
"""The number of bytes that a short body lacks at its end, or half of it if that is less."""

TRAILING_BYTES = b"\n<!-- served from the edge -->\n\0\0\0\0"
OTHER_ETAG = '"another-file"'
OTHER_TOTAL = 1000
"""The number of bytes by which another file is larger."""

BRANDS = {"avif": b"avif", "heic": b"heic"}


@frozen(kw_only=True)
class ServedFile:
    """A file as it is served.

    Attributes:
        data: Its bytes.
        content_type: Its Content-Type.
        encoding: Its Content-Encoding; empty for none.
    """

    data: bytes = field(repr=False)
    content_type: str
    encoding: str = ""


@frozen(kw_only=True)
class TransferPlan:
    """The plan for sending a body.

    Attributes:
        declared: The Content-Length; None for chunks.
        body: The bytes to send.
        seconds: The duration of the transfer in seconds.
        then: The last step: `finish` the response, `close` the connection, or `stall`.
    """

    declared: int | None
    body: bytes = field(repr=False)
    seconds: float = 0.0
    then: Literal["finish", "close", "stall"] = "finish"


def change_file(file: ServedFile, fault: Fault | None, accept: str) -> ServedFile:
    """Return the file to serve under the fault, to a request with that Accept header."""
    if fault is None:
        return file
    variant = fault.variant or ""
    match fault.kind:
        case FaultKind.TRAILING_BYTES:
            return evolve(file, data=file.data + TRAILING_BYTES)
        case FaultKind.ENCODED_FILE:
            return evolve(file, data=gzip.compress(file.data, mtime=0), encoding="gzip")
        case FaultKind.NEGOTIATED_FORMAT:
            name = variant.removeprefix("forced-")
            is_wanted = variant.startswith("forced-") or accepts(accept, f"image/{name}")
            return ServedFile(data=disguise(file.data, name), content_type=f"image/{name}") if is_wanted else file
        case _:
            return file


def accepts(header: str, media_type: str) -> bool:
    """Return whether an Accept header permits a type of image; a missing header permits every type."""
    ranges = {part.partition(";")[0].strip().lower() for part in header.split(",")}
    return bool(ranges & {"", "*/*", "image/*", media_type})


def disguise(data: bytes, name: str) -> bytes:
    """Return the head of an AVIF or HEIC file, with other data behind it."""
    brand = BRANDS[name]
    kind = b"ftyp" + brand + b"\0\0\0\0" + b"mif1" + brand
    return (len(kind) + 4).to_bytes(4) + kind + (len(data) + 8).to_bytes(4) + b"mdat" + data


def plan_transfer(body: bytes, fault: Fault | None) -> TransferPlan:
    """Return the plan for sending a body under the fault."""
    whole, half = len(body), body[: len(body) // 2]
    ordinary = TransferPlan(declared=whole, body=body)
    if fault is None:
        return ordinary
    cut = TransferPlan(declared=whole, body=half, then="close")
    plans = {
        FaultKind.CUT_HALFWAY: cut,
        FaultKind.ENCODED_FILE: cut if fault.variant == "halfway" else ordinary,
        FaultKind.STALL_HALFWAY: evolve(cut, then="stall"),
        FaultKind.SHORT_BODY: evolve(cut, body=body[: max(len(half), whole - MISSING_BYTES)]),
        FaultKind.LENGTH_TOO_LONG: TransferPlan(declared=whole + 1, body=body, then="close"),
        FaultKind.MISSING_LAST_CHUNK: TransferPlan(declared=None, body=body, then="close"),
        FaultKind.TRUNCATED_FILE: TransferPlan(declared=len(half), body=half),
        FaultKind.EMPTY_FILE: TransferPlan(declared=0, body=b""),
        FaultKind.TRICKLE: evolve(ordinary, seconds=fault.seconds or 0.0),
    }
    return plans.get(fault.kind, ordinary)


def supports_ranges(fault: Fault | None) -> bool:
    """Return whether Range requests work under this fault."""
    return fault is None or (fault.kind is not FaultKind.NO_RANGES and fault.ranges)


def is_another_file(fault: Fault | None) -> bool:
    """Return whether a Range request gets a part of another file under this fault."""
    return fault is not None and fault.kind is FaultKind.RANGE_OF_ANOTHER_FILE


def build_part_headers(part: range, total: int, etag: str, fault: Fault | None) -> dict[str, str]:
    """Return the headers of a part of a file, or of another one."""
    is_other = is_another_file(fault)
    if is_other and fault is not None and fault.variant == "total":
        total += OTHER_TOTAL
    if is_other and fault is not None and fault.variant == "etag":
        etag = OTHER_ETAG
    return {"ETag": etag, "Content-Range": f"bytes {part.start}-{part.stop - 1}/{total}"}
